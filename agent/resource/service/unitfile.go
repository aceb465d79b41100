package service

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	unitDir = "/etc/systemd/system/"
	// dropIn comes after those that packages bring.
	dropIn = ".d/60-provisionr.conf"
	// header begins unit files of ours. It tells them from those of people.
	header = "# Managed by provisionr-agent.\n"
	// maxUnit bounds what is read of a unit file to see whose it is.
	maxUnit = 1 << 20
)

func contentPath(unit string) string { return unitDir + unit }

func overridePath(unit string) string { return unitDir + unit + dropIn }

// unitFiles returns the unit's files as wanted. A file of the system's administrator is left alone where the manifest has
// none of its own.
func unitFiles(h *host.Host, want *agentv1.Service) ([]conffile.File, error) {
	override := conffile.File{Path: overridePath(want.Name), Content: []byte(header + want.GetOverride()), Absent: want.Override == nil}
	files := []conffile.File{override}
	content := conffile.File{Path: contentPath(want.Name), Content: []byte(header + want.GetContent()), Absent: want.Content == nil || want.Masked}
	if content.Absent {
		ours, err := isOurs(h, content.Path)
		if err != nil || !ours {
			return files, err
		}
	}
	return append(files, content), nil
}

// isOurs reports whether a unit file was written by us. The link that masks a unit is not.
func isOurs(h *host.Host, path string) (bool, error) {
	if !conffile.Exists(h, path) || conffile.IsLink(h, path) {
		return false, nil
	}
	b, err := conffile.Read(h, path, maxUnit)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return bytes.HasPrefix(b, []byte(header)), err
}

// watched returns the files whose content the unit was started with: those that the manifest names, and its own.
func watched(want *agentv1.Service) []string {
	files := append([]string(nil), want.RestartOn...)
	if want.Content != nil {
		files = append(files, contentPath(want.Name))
	}
	if want.Override != nil {
		files = append(files, overridePath(want.Name))
	}
	return files
}

// isUnitFile reports whether systemd must read its files again when the file changed.
func isUnitFile(path string) bool { return strings.HasPrefix(path, "/etc/systemd/") }
