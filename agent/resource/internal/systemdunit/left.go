package systemdunit

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

const (
	// Dir is where units of the system's administrator are, and ours.
	Dir = "/etc/systemd/system/"
	// Header begins what we write there. It tells it from what people write.
	Header = "# Managed by provisionr-agent.\n"
	// maxUnit bounds what is read of a unit to see whose it is.
	maxUnit = 1 << 20
)

// vendorDirs are where packages have their units (systemd.unit(5)).
var vendorDirs = []string{"/usr/lib/systemd/system/", "/lib/systemd/system/"}

// Begins reports whether there is a file, and no link, that begins with head.
func Begins(h *host.Host, path, head string) (bool, error) {
	st, err := conffile.Stat(h, path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	b, err := conffile.Read(h, path, maxUnit)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return bytes.HasPrefix(b, []byte(head)), err
}

// Left returns the units with one of the endings, as mount, whose files begin with head and which are not wanted.
func Left(h *host.Host, head string, wanted map[string]bool, endings ...string) ([]string, error) {
	names, err := conffile.Regular(h, Dir, "*.*")
	if err != nil {
		return nil, err
	}
	var left []string
	for _, name := range names {
		if wanted[name] || !slices.Contains(endings, strings.TrimPrefix(path.Ext(name), ".")) {
			continue
		}
		ours, err := Begins(h, Dir+name, head)
		if err != nil {
			return nil, err
		}
		if ours {
			left = append(left, name)
		}
	}
	return left, nil
}

// Remove takes away a unit's file. The unit is stopped and no longer started at boot, unless a package has one of the name,
// which then counts again. A unit that cannot be stopped keeps its file.
func Remove(ctx context.Context, h *host.Host, name string) error {
	vendor := false
	for _, dir := range vendorDirs {
		vendor = vendor || conffile.Exists(h, dir+name)
	}
	// A template is nothing that runs.
	if !vendor && !strings.Contains(name, "@.") {
		u, err := h.Units.Unit(ctx, name)
		if err != nil {
			return err
		}
		if u.Active != "inactive" && u.Active != "failed" {
			if err := h.Units.Stop(ctx, name); err != nil {
				return err
			}
		}
		if u.File == "enabled" {
			if err := h.Units.Disable(ctx, name); err != nil {
				return err
			}
		}
	}
	if err := conffile.Apply(h, &conffile.File{Path: Dir + name, Absent: true}); err != nil {
		return err
	}
	return h.Units.DaemonReload(ctx)
}
