package swap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/fstab"
	"github.com/provisionr/provisionr/agent/resource/internal/sharedkernel"
	"github.com/provisionr/provisionr/agent/resource/internal/systemdunit"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	defaultPath = "/swapfile"
	fstabPath   = "/etc/fstab"
	unitDir     = systemdunit.Dir
	// mark is what comments out a line of fstab.
	mark = "#provisionr# "
	// maxTable bounds what is read of fstab and /proc/swaps.
	maxTable = 1 << 20
	// swapoffTimeout bounds bringing back into memory what was swapped.
	swapoffTimeout = 10 * time.Minute
)

// New returns the resource for swap. Where it is left as it is, what we made earlier goes.
func New(s *desired.State, h *host.Host) []converge.Resource {
	want := s.Pool.GetSwap()
	switch {
	case sharedkernel.Of(s):
		if want == nil {
			return nil
		}
		return []converge.Resource{sharedkernel.Refused("swap/all", "swap")}
	case want == nil:
		return []converge.Resource{&left{host: h}}
	case want.SizeMib == 0:
		return []converge.Resource{&none{host: h}}
	}
	path := want.Path
	if path == "" {
		path = defaultPath
	}
	unit, after := host.UnitForPath(path, "swap"), []string{"package"}
	for _, f := range s.Pool.GetFilesystems() {
		if strings.HasPrefix(path, f.Path+"/") {
			after = append(after, "filesystem/"+f.Path)
		}
	}
	gone := &left{host: h, wanted: map[string]bool{unit: true}}
	return []converge.Resource{&swap{
		host: h, after: after, path: path, size: int64(want.SizeMib) << 20, unit: unit,
		file: conffile.File{Path: unitDir + unit, Content: []byte(
			unitHead + "\n[Swap]\nWhat=" + strings.ReplaceAll(path, "%", "%%") + "\n\n[Install]\nWantedBy=swap.target\n")},
	}, gone}
}

// active returns what the machine swaps to, by path, with sizes in octets (proc_swaps(5)).
func active(h *host.Host) (map[string]int64, error) {
	b, err := conffile.Read(h, "/proc/swaps", maxTable)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read what is swapped to: %w", err)
	}
	list := make(map[string]int64)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || !strings.HasPrefix(f[0], "/") {
			continue
		}
		kib, err := strconv.ParseInt(f[2], 10, 53)
		if err == nil {
			list[fstab.Unescape(f[0])] = kib << 10
		}
	}
	return list, nil
}

type swap struct {
	host *host.Host
	path string
	// size is in octets.
	size int64
	unit string
	// after has the file systems that the file is on.
	after []string
	file  conffile.File
	seen  conffile.Seen
}

// Name implements converge.Resource.
func (s *swap) Name() string { return "swap/" + s.path }

// After implements converge.Ordered.
func (s *swap) After() []string { return s.after }

// Triggers implements converge.Triggered.
func (s *swap) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnUnit, Name: s.unit}, {Kind: converge.OnFile, Name: s.file.Path}}
}

// Units implements converge.Looking.
func (s *swap) Units() []string { return []string{s.unit} }

// Check implements converge.Resource.
func (s *swap) Check(ctx context.Context) (converge.Diff, error) {
	text, err := conffile.Check(s.host, &s.file, &s.seen)
	if err != nil {
		return converge.Diff{}, err
	}
	found, err := look(s.host, s.path)
	if err != nil {
		return converge.Diff{}, err
	}
	used, err := active(s.host)
	if err != nil {
		return converge.Diff{}, err
	}
	u, err := s.host.Units.Unit(ctx, s.unit)
	if err != nil {
		return converge.Diff{}, err
	}
	diffs := []string{text}
	switch {
	case !found.exists:
		diffs = append(diffs, s.path+": missing")
	case !found.swap:
		return converge.Diff{}, s.occupied()
	case found.size != s.size:
		diffs = append(diffs, fmt.Sprintf("%s:\n-%d MiB\n+%d MiB", s.path, found.size>>20, s.size>>20))
	case found.mode != 0o600:
		diffs = append(diffs, fmt.Sprintf("%s: mode %#o, wanted 0600", s.path, found.mode))
	}
	if _, ok := used[s.path]; !ok {
		diffs = append(diffs, "is not swapped to")
	}
	if u.File != "enabled" {
		diffs = append(diffs, s.unit+" is not enabled")
	}
	return converge.Diff{Text: textdiff.Join(diffs...)}, nil
}

func (s *swap) occupied() error {
	return errs.New(errs.Conflict, "cannot make swap file %s: there is something else", s.path).WithHint("remove it, or give swap another path")
}

// Apply implements converge.Resource.
func (s *swap) Apply(ctx context.Context) error {
	found, err := look(s.host, s.path)
	if err != nil {
		return err
	}
	if found.exists && !found.swap {
		return s.occupied()
	}
	if err := conffile.Apply(s.host, &s.file); err != nil {
		return err
	}
	if err := s.host.Units.DaemonReload(ctx); err != nil {
		return err
	}
	if !found.exists || found.size != s.size {
		if err := s.remake(ctx); err != nil {
			return err
		}
	} else if err := s.protect(); err != nil {
		return err
	}
	u, err := s.host.Units.Unit(ctx, s.unit)
	if err != nil {
		return err
	}
	if u.File != "enabled" {
		if err := s.host.Units.Enable(ctx, s.unit); err != nil {
			return err
		}
	}
	used, err := active(s.host)
	if err != nil {
		return err
	}
	if _, ok := used[s.path]; ok {
		return nil
	}
	return s.host.Units.Start(ctx, s.unit)
}

func (s *swap) protect() error {
	dir, base, err := conffile.Parent(s.host, s.path, false)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Chmod(base, 0o600)
}

// remake makes the file anew beside its place, once nothing is swapped to the old one.
func (s *swap) remake(ctx context.Context) error {
	used, err := active(s.host)
	if err != nil {
		return err
	}
	if _, ok := used[s.path]; ok {
		if err := off(ctx, s.host, s.path); err != nil {
			return err
		}
	}
	dir, base, err := conffile.Parent(s.host, s.path, true)
	if err != nil {
		return err
	}
	defer dir.Close()
	// The old file's room is needed for the new one.
	if err := dir.Remove(base); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot replace swap file %s: %w", s.path, err)
	}
	temp := "." + base + ".provisionr"
	if err := dir.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = allocate(ctx, dir, temp, s.size)
	if err == nil {
		_, err = command.Run(ctx, s.host, host.Command{Path: "mkswap", Args: []string{strings.TrimSuffix(s.path, base) + temp}, Timeout: time.Minute})
	}
	if err == nil {
		err = dir.Rename(temp, base)
	}
	if err != nil {
		rm := dir.Remove(temp)
		if errors.Is(rm, os.ErrNotExist) {
			rm = nil
		}
		return errors.Join(errs.New(errs.KindOf(err), "cannot make swap file %s: %w", s.path, err), rm)
	}
	return nil
}

func off(ctx context.Context, h *host.Host, path string) error {
	if _, err := command.Run(ctx, h, host.Command{Path: "swapoff", Args: []string{path}, Timeout: swapoffTimeout}); err != nil {
		return errs.New(errs.Unavailable, "cannot stop swapping to %s: %w", path, err).WithHint("see whether the machine has the memory for what is swapped")
	}
	return nil
}
