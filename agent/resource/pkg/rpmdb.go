package pkg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	rpmCopy    = conffile.StateDir + "/rpm-packages"
	maxRPMCopy = 16 << 20
)

// rpmDirs are where rpm keeps its database; rpmFiles are its files in the forms that it had (sqlite, ndb, Berkeley).
var (
	rpmDirs  = []string{"/usr/lib/sysimage/rpm", "/var/lib/rpm"}
	rpmFiles = []string{"rpmdb.sqlite", "rpmdb.sqlite-wal", "Packages.db", "Packages"}
)

// rpmDB is what rpm said last.
type rpmDB struct {
	key  string
	last *installed
}

// packages returns what rpm's database holds. Rpm is asked only where the database changed; what it says is kept on disk, so
// that a new agent need not ask either.
func (d *dnf) packages(ctx context.Context) (*installed, error) {
	key, err := d.key()
	if err != nil {
		return nil, err
	}
	if d.db.last != nil && d.db.key == key {
		return d.db.last, nil
	}
	if key == "" {
		return parseRPM(nil), nil // nothing was ever installed
	}
	content, err := conffile.Read(d.host, rpmCopy, maxRPMCopy)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	first, rest, _ := bytes.Cut(content, []byte("\n"))
	if string(first) != key {
		if rest, err = d.ask(ctx); err != nil {
			return nil, err
		}
		// Reading may have touched the database: sqlite folds its log in.
		if key, err = d.key(); err != nil {
			return nil, err
		}
		content = append([]byte(key+"\n"), rest...)
		if err := conffile.Apply(d.host, &conffile.File{Path: rpmCopy, Content: content, Mode: 0o600}); err != nil {
			return nil, err
		}
	}
	d.db = rpmDB{key, parseRPM(rest)}
	return d.db.last, nil
}

// ask runs rpm. Its output is longer than what a Result keeps, and goes through a file.
func (d *dnf) ask(ctx context.Context) ([]byte, error) {
	const raw = conffile.StateDir + "/rpm-query"
	if err := d.host.MkdirAll(conffile.StateDir, 0o700); err != nil {
		return nil, err
	}
	path := raw
	if root := d.rootArgs(""); root != nil {
		path = root[0] + raw
	}
	script := `out=$1; shift; exec rpm "$@" >"$out"`
	args := append([]string{"-c", script, "sh", path}, d.rootArgs("--root=")...)
	args = append(args, "-qa", "--qf", `%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\t[%{PROVIDENAME} ]\n`)
	r, err := d.host.Commands.Run(ctx, host.Command{Path: "sh", Args: args})
	if err != nil {
		return nil, errs.New(errs.Unavailable, "cannot ask rpm for the packages: %w", err)
	}
	if r.Exit != 0 {
		return nil, errs.New(errs.Internal, "cannot ask rpm for the packages: exit %d: %s", r.Exit, command.Tail(r))
	}
	content, err := conffile.Read(d.host, raw, maxRPMCopy)
	if err != nil {
		return nil, err
	}
	return content, conffile.Apply(d.host, &conffile.File{Path: raw, Absent: true})
}

// key identifies a state of the database; it is empty where there is none.
func (d *dnf) key() (string, error) {
	var b strings.Builder
	for _, name := range rpmDirs {
		dir, _, err := conffile.Parent(d.host, name+"/x", false)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		for _, file := range rpmFiles {
			info, err := dir.Stat(file)
			if err != nil || info.Size() == 0 {
				continue
			}
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				fmt.Fprintf(&b, "%d %d %d.%09d;", st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
			}
		}
		if err := dir.Close(); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// parseRPM reads lines of name, epoch:version-release, and provided names.
func parseRPM(content []byte) *installed {
	in := &installed{versions: make(map[string]string), provided: make(map[string]bool)}
	r := bytes.NewBuffer(content)
	for {
		line, err := r.ReadString('\n')
		f := strings.SplitN(strings.TrimRight(line, "\n"), "\t", 3)
		if len(f) == 3 && f[0] != "" && f[0] != "gpg-pubkey" {
			if old, twice := in.versions[f[0]]; !twice || compareVersions(strings.TrimPrefix(f[1], "0:"), old) > 0 {
				in.versions[f[0]] = strings.TrimPrefix(f[1], "0:")
			}
			for name := range strings.FieldsSeq(f[2]) {
				// Names of files, libraries and modules are no packages.
				if !strings.ContainsAny(name, "/()") {
					in.provided[name] = true
				}
			}
		}
		if err == io.EOF {
			return in
		}
	}
}
