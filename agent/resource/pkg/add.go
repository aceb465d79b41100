package pkg

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	statesPath = "/var/lib/apt/extended_states"
	maxStates  = 16 << 20
)

// add has apt fetch what is not in its cache, and gives all packages to dpkg in one go.
func (a *apt) add(ctx context.Context, targets []target, adds []*stanza, unsynced bool) error {
	if len(adds) == 0 {
		return nil
	}
	missing, err := a.missing(adds)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		args := slices.Concat(options, ownLock, []string{"--no-install-recommends", "--download-only", "install"}, missing)
		if err := a.run(ctx, "fetch packages", host.Command{Path: "apt-get", Args: args, Timeout: a.limits.transaction}); err != nil {
			return err
		}
		if missing, err = a.missing(adds); err != nil {
			return err
		}
		if len(missing) > 0 {
			return errs.New(errs.Internal, "cannot fetch packages: apt-get left out %s", strings.Join(missing, " "))
		}
	}
	args := slices.Clone(forces)
	if !conffile.Exists(a.host, settledPath) {
		args = append(args, "--force-unsafe-io")
	}
	args = append(args, "--install")
	for _, s := range adds {
		args = append(args, archivesDir+"/"+archiveName(s))
	}
	if err := a.run(ctx, "change packages", host.Command{Path: "dpkg", Args: args, Timeout: a.limits.transaction, Unsynced: unsynced}); err != nil {
		return err
	}
	return a.markAutomatic(targets, adds)
}

// archiveName is how apt names a package in its cache: a colon in the version is written as URIs have it.
func archiveName(s *stanza) string {
	escape := strings.NewReplacer(":", "%3a", "_", "%5f").Replace
	return s.name + "_" + escape(s.version) + "_" + s.arch + ".deb"
}

// missing returns those, as name=version, that are not in the cache as the archive's list has them.
func (a *apt) missing(adds []*stanza) ([]string, error) {
	var list []string
	for _, s := range adds {
		sum, err := a.sum(archivesDir+"/"+archiveName(s), s.size)
		if err != nil {
			return nil, err
		}
		if sum == s.sha256 {
			continue
		}
		if sum != "" {
			// apt takes a file of the right size for the right one.
			if err := conffile.Apply(a.host, &conffile.File{Path: archivesDir + "/" + archiveName(s), Absent: true}); err != nil {
				return nil, err
			}
		}
		list = append(list, s.name+"="+s.version)
	}
	return list, nil
}

// sum returns the SHA-256 of a file; "" if there is none, and "size" if its size is wrong.
func (a *apt) sum(name string, size int64) (string, error) {
	dir, base, err := conffile.Parent(a.host, name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer dir.Close()
	file, err := dir.Open(base)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.Size() != size {
		return "size", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// markAutomatic has apt know which packages came only as dependencies, as apt-get itself would (apt-mark(8)).
func (a *apt) markAutomatic(targets []target, adds []*stanza) error {
	content, err := conffile.Read(a.host, statesPath, maxStates)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var b strings.Builder
	for part := range strings.SplitSeq(strings.TrimRight(string(content), "\n"), "\n\n") {
		name, _, _ := strings.Cut(strings.TrimPrefix(part, "Package: "), "\n")
		if part != "" && !slices.ContainsFunc(adds, func(s *stanza) bool { return s.name == name }) {
			b.WriteString(part + "\n\n")
		}
	}
	for _, s := range adds {
		if !slices.ContainsFunc(targets, func(t target) bool { return t.name == s.name }) {
			fmt.Fprintf(&b, "Package: %s\nArchitecture: %s\nAuto-Installed: 1\n\n", s.name, debianArch())
		}
	}
	return conffile.Apply(a.host, &conffile.File{Path: statesPath, Content: []byte(b.String())})
}
