package locale

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	debianPath    = "/etc/default/locale"
	systemdPath   = "/etc/locale.conf"
	localeDir     = "/usr/lib/locale"
	archiveName   = "locale-archive"
	genPath       = "/etc/locale.gen"
	supportedPath = "/usr/share/i18n/SUPPORTED"
	// maxGen bounds the lists of locales.
	maxGen = 1 << 20
	// genTimeout bounds locale-gen: a locale takes some seconds, on a slow machine a minute.
	genTimeout = 10 * time.Minute
)

// New returns the resource for the locale; none where it is left as it is.
func New(s *desired.State, h *host.Host) []converge.Resource {
	name := s.Pool.GetLocale()
	if name == "" {
		return nil
	}
	return []converge.Resource{&locale{host: h, name: name, distribution: s.Machine.GetOs().GetDistribution()}}
}

type locale struct {
	host               *host.Host
	name, distribution string
	seen               conffile.Seen
}

// Name implements converge.Resource.
func (r *locale) Name() string { return "locale/" + r.name }

// After implements converge.Ordered: a package brings what locales are made of.
func (r *locale) After() []string { return []string{"package"} }

// Triggers implements converge.Triggered.
func (r *locale) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: r.file().Path}}
}

// file is where the system reads the locale from. Newer Debians make the old place a link to the new one.
func (r *locale) file() *conffile.File {
	f := &conffile.File{Path: systemdPath, Content: []byte("LANG=" + r.name + "\n")}
	if r.distribution != "fedora" && !conffile.IsLink(r.host, debianPath) {
		f.Path = debianPath
	}
	return f
}

// Check implements converge.Resource.
func (r *locale) Check(context.Context) (converge.Diff, error) {
	text, err := conffile.Check(r.host, r.file(), &r.seen)
	if err != nil {
		return converge.Diff{}, err
	}
	there, err := r.exists()
	if err == nil && !there {
		text = textdiff.Join(text, "locale "+r.name+" is not generated")
	}
	return converge.Diff{Text: text}, err
}

// Apply implements converge.Resource. The locale is there before anything uses it.
func (r *locale) Apply(ctx context.Context) error {
	there, err := r.exists()
	if err != nil {
		return err
	}
	if !there {
		if err := r.generate(ctx); err != nil {
			return err
		}
	}
	return conffile.Apply(r.host, r.file())
}

// normal returns a locale's name as the C library keeps it: the character set in small letters without punctuation
// (_nl_normalize_codeset), as de_DE.utf8.
func normal(name string) string {
	head, modifier, modified := strings.Cut(name, "@")
	head, codeset, has := strings.Cut(head, ".")
	if has {
		head += "." + strings.Map(func(r rune) rune {
			switch {
			case r >= 'A' && r <= 'Z':
				return r + 'a' - 'A'
			case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
				return r
			}
			return -1
		}, codeset)
	}
	if modified {
		head += "@" + modifier
	}
	return head
}

func (r *locale) exists() (bool, error) {
	name := normal(r.name)
	if name == "C" || name == "POSIX" || name == "C.utf8" {
		return true, nil
	}
	if conffile.Exists(r.host, localeDir+"/"+name) || conffile.Exists(r.host, localeDir+"/"+r.name) {
		return true, nil
	}
	dir, base, err := conffile.Parent(r.host, localeDir+"/"+archiveName, false)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	f, err := dir.OpenFile(base, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	return archived(f, name)
}

// generate has the locale made from the distribution's sources.
func (r *locale) generate(ctx context.Context) error {
	supported, err := conffile.Read(r.host, supportedPath, maxGen)
	if err != nil {
		return errs.New(errs.NotFound, "cannot generate locale %s: %w", r.name, err).
			WithHint("list the package that brings it under packages: locales on Debian and Ubuntu, glibc-langpack-%s on Fedora", r.name[:min(2, len(r.name))])
	}
	line := entry(supported, r.name)
	if line == "" {
		return errs.New(errs.NotFound, "cannot generate locale %s: the system has no such locale", r.name).WithHint("see %s on the machine", supportedPath)
	}
	now, err := conffile.Read(r.host, genPath, maxGen)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := conffile.Apply(r.host, &conffile.File{Path: genPath, Content: withLine(now, line)}); err != nil {
		return err
	}
	if _, err := command.Run(ctx, r.host, host.Command{Path: "locale-gen", Timeout: genTimeout}); err != nil {
		return errs.New(errs.Internal, "cannot generate locale %s: %w", r.name, err)
	}
	there, err := r.exists()
	if err == nil && !there {
		err = errs.New(errs.Internal, "cannot generate locale %s: locale-gen did not make it", r.name)
	}
	return err
}

// entry returns the line of a list of supported locales, as "de_DE.UTF-8 UTF-8", that is for a locale, or "".
func entry(supported []byte, name string) string {
	for line := range strings.Lines(string(supported)) {
		if f := strings.Fields(line); len(f) == 2 && normal(f[0]) == normal(name) {
			return f[0] + " " + f[1]
		}
	}
	return ""
}

// withLine returns a list of locales with the line, which it may have already.
func withLine(now []byte, line string) []byte {
	for l := range strings.Lines(string(now)) {
		if strings.TrimSpace(l) == line {
			return now
		}
	}
	if len(now) > 0 && !bytes.HasSuffix(now, []byte("\n")) {
		now = append(now, '\n')
	}
	return append(now, line+"\n"...)
}
