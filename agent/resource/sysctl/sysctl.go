package sysctl

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/sharedkernel"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	// confPath comes after what packages and images bring, as 99-sysctl.conf: at boot the last value counts (sysctl.d(5)).
	confPath = "/etc/sysctl.d/99-zz-provisionr.conf"
	procPath = "proc/sys"
	// maxValue bounds what is read of a parameter; maxMatches how many a pattern may stand for.
	maxValue   = 64 << 10
	maxMatches = 4096
)

// New returns the resource for all parameters, and one for each that the machine cannot have.
func New(s *desired.State, h *host.Host) []converge.Resource {
	r := &parameters{host: h}
	var list []converge.Resource
	for _, name := range slices.Sorted(maps.Keys(s.Pool.GetSysctl())) {
		if p := (parameter{name, s.Pool.Sysctl[name]}); sharedkernel.Of(s) && !strings.HasPrefix(p.path()+"/", "net/") {
			list = append(list, sharedkernel.Refused("sysctl/"+name, "sysctl."+name))
		} else {
			r.want = append(r.want, p)
		}
	}
	r.file = conffile.File{Path: confPath, Content: render(r.want), Absent: len(r.want) == 0}
	return append(list, r)
}

// parameter is one as desired. Its name may have patterns of path.Match.
type parameter struct{ name, value string }

// path returns the file below /proc/sys. Where the first separator is a slash, dots are part of the names; else the
// other way round (sysctl.d(5)).
func (p parameter) path() string {
	if i := strings.IndexAny(p.name, "./"); i >= 0 && p.name[i] == '/' {
		return path.Clean(p.name)
	}
	return path.Clean(strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, p.name))
}

func (p parameter) pattern() bool { return strings.ContainsAny(p.path(), "*?[") }

func render(want []parameter) []byte {
	var b bytes.Buffer
	b.WriteString("# Managed by provisionr-agent.\n")
	for _, p := range want {
		b.WriteString(p.name + " = " + p.value + "\n")
	}
	return b.Bytes()
}

type parameters struct {
	host *host.Host
	want []parameter
	file conffile.File
	seen conffile.Seen
}

// Name implements converge.Resource.
func (r *parameters) Name() string { return "sysctl/all" }

// After implements converge.Ordered: modules bring parameters, and packages bring files of the same name.
func (r *parameters) After() []string { return []string{"package", "module"} }

// Triggers implements converge.Triggered.
func (r *parameters) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: confPath}}
}

// Check implements converge.Resource.
func (r *parameters) Check(context.Context) (converge.Diff, error) {
	text, err := conffile.Check(r.host, &r.file, &r.seen)
	if err != nil {
		return converge.Diff{}, err
	}
	diffs := []string{text}
	err = r.live(func(_ *os.Root, p parameter, file, now string, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			diffs = append(diffs, p.name+": the kernel has no such parameter")
		case err != nil:
			return err
		case !equal(now, p.value):
			diffs = append(diffs, file+":\n-"+now+"\n+"+p.value)
		}
		return nil
	})
	return converge.Diff{Text: textdiff.Join(diffs...)}, err
}

// Apply implements converge.Resource. A parameter that cannot be set does not keep the others from being set. What each had
// before is noted first, so that it gets that back when it is no longer listed.
func (r *parameters) Apply(context.Context) error {
	noted, err := readBefore(r.host)
	if err != nil {
		return err
	}
	var failed error
	listed := make(map[string]bool)
	differ := make(map[string]parameter)
	err = r.live(func(_ *os.Root, p parameter, file, now string, err error) error {
		listed[file] = true
		switch {
		case errors.Is(err, fs.ErrNotExist):
			failed = errors.Join(failed, errs.New(errs.NotFound, "cannot set %s: the kernel has no such parameter", p.name).
				WithHint("correct the name, or list the module that brings it under modules"))
		case err != nil:
			return err
		case !equal(now, p.value):
			was, ok := noted[file]
			if !ok {
				was.Was = now
			}
			noted[file], differ[file] = before{was.Was, p.value}, p
		}
		return nil
	})
	if err != nil {
		return errors.Join(failed, err)
	}
	failed = errors.Join(failed, r.restore(noted, listed))
	if err := writeBefore(r.host, noted); err != nil {
		return errors.Join(failed, err)
	}
	// The file is what says that something is to be done: it goes, or changes, after what left was restored.
	if err := conffile.Apply(r.host, &r.file); err != nil {
		return errors.Join(failed, err)
	}
	err = r.live(func(sys *os.Root, p parameter, file, now string, err error) error {
		if d, ok := differ[file]; ok && d.name == p.name && err == nil {
			failed = errors.Join(failed, set(sys, p, file))
		}
		return nil
	})
	return errors.Join(failed, err)
}

func set(sys *os.Root, p parameter, file string) error {
	f, err := sys.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
	if err == nil {
		_, err = f.WriteString(p.value)
		err = errors.Join(err, f.Close())
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EROFS):
		return errs.New(errs.Unsupported, "cannot set %s: /proc/sys is read-only on this machine", p.name).
			WithHint("set it on the host, or use provider qemu")
	}
	return errs.New(errs.Invalid, "cannot set %s to %q: %w", p.name, p.value, err)
}

// live calls f for each parameter that a name stands for, with the directory /proc/sys, the file within, the present value,
// and why it cannot be read.
func (r *parameters) live(f func(sys *os.Root, p parameter, file, now string, err error) error) error {
	if len(r.want) == 0 {
		return nil
	}
	root, err := r.host.Open()
	if err != nil {
		return err
	}
	defer root.Close()
	sys, err := root.OpenRoot(procPath)
	if err != nil {
		return errs.New(errs.Internal, "cannot read kernel parameters: %w", err)
	}
	defer sys.Close()
	for _, p := range r.want {
		files, err := expand(sys, p)
		if err != nil {
			return err
		}
		if p.pattern() {
			// A parameter that is named itself is left out of patterns (sysctl.d(5)).
			files = slices.DeleteFunc(files, func(file string) bool {
				return slices.ContainsFunc(r.want, func(o parameter) bool { return o.path() == file })
			})
		}
		for _, file := range files {
			now, err := sys.ReadFile(file)
			if len(now) > maxValue {
				err = errs.New(errs.Internal, "cannot read %s: more than %d bytes", p.name, maxValue)
			}
			if err := f(sys, p, file, string(bytes.TrimSpace(now)), err); err != nil {
				return errs.New(errs.Internal, "cannot read kernel parameter %s: %w", p.name, err)
			}
		}
	}
	return nil
}

// expand returns the files that a parameter stands for: itself, or what its pattern matches.
func expand(sys *os.Root, p parameter) ([]string, error) {
	name := p.path()
	if !p.pattern() {
		return []string{name}, nil
	}
	files, err := fs.Glob(sys.FS(), name)
	if err != nil || len(files) > maxMatches {
		return nil, errs.New(errs.Invalid, "cannot use kernel parameter %s: no pattern, or more than %d match", p.name, maxMatches)
	}
	return files, nil
}

// equal compares values as the kernel shows them: it separates numbers by tabs, and writes them in decimal.
func equal(now, want string) bool {
	return slices.EqualFunc(strings.Fields(now), strings.Fields(want), func(a, b string) bool {
		if a == b {
			return true
		}
		n, err := strconv.ParseInt(a, 0, 64)
		m, err2 := strconv.ParseInt(b, 0, 64)
		return err == nil && err2 == nil && n == m
	})
}
