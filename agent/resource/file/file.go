package file

import (
	"context"
	"io/fs"
	"path"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/accounts"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// New returns one resource for each file of the pool. A template that cannot be rendered is an error of its resource.
func New(s *desired.State, h *host.Host) []converge.Resource {
	var list []converge.Resource
	db, content := accounts.NewReader(h), newContents(s)
	for _, f := range s.Pool.GetFiles() {
		list = append(list, &file{
			host: h, accounts: db, contents: content, spec: f, before: before(f, s.Pool),
			want:  conffile.File{Path: f.Path, Mode: mode(f), Absent: f.GetAbsent()},
			owner: orRoot(f.Owner), group: orRoot(f.Group),
		})
	}
	return list
}

// secretMode is the default mode of a file that is a secret.
const secretMode = 0o600

func mode(f *agentv1.File) fs.FileMode {
	if f.Mode == 0 && f.GetSecret() != "" {
		return secretMode
	}
	return conffile.Mode(f.Mode)
}

// before returns the names of what comes first: file systems and directories on the way to f, and what is to go from a
// directory that is to go.
func before(f *agentv1.File, pool *agentv1.PoolComponent) []string {
	var names []string
	for _, fs := range pool.GetFilesystems() {
		if fs.Path == f.Path || below(f.Path, fs.Path) {
			names = append(names, "filesystem/"+fs.Path)
		}
	}
	for _, other := range pool.GetFiles() {
		if other.Path == f.Path {
			continue
		}
		switch {
		case f.GetAbsent() && other.GetAbsent() && below(other.Path, f.Path), !other.GetAbsent() && below(f.Path, other.Path):
			names = append(names, "file/"+other.Path)
		}
	}
	return names
}

// below reports whether a path is within a directory, at any depth.
func below(name, dir string) bool {
	for p := path.Dir(name); p != "/" && p != "."; p = path.Dir(p) {
		if p == dir {
			return true
		}
	}
	return false
}

type file struct {
	host         *host.Host
	accounts     *accounts.Reader
	contents     *contents
	spec         *agentv1.File
	want         conffile.File
	owner, group string
	before       []string
	// made says that want has its content.
	made bool
}

func orRoot(name string) string {
	if name == "" {
		return "root"
	}
	return name
}

// Name implements converge.Resource.
func (f *file) Name() string { return "file/" + f.want.Path }

// After implements converge.Ordered: packages and accounts make the owners and directories, and a package's own version of
// a file is replaced after it was unpacked.
func (f *file) After() []string {
	return append([]string{"package", "group", "user"}, f.before...)
}

// Triggers implements converge.Triggered.
func (f *file) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: f.want.Path}}
}

// Check implements converge.Resource.
func (f *file) Check(ctx context.Context) (converge.Diff, error) {
	if f.want.Absent {
		text, err := conffile.CheckAbsent(f.host, f.want.Path)
		return converge.Diff{Text: text}, err
	}
	if err := f.fill(ctx); err != nil {
		return converge.Diff{}, err
	}
	if err := f.resolve(); err != nil {
		// An owner that does not exist yet is a difference, until Apply finds it still missing.
		return converge.Diff{Text: err.Error()}, nil
	}
	var text string
	var err error
	switch {
	case f.spec.GetDirectory():
		text, err = conffile.CheckDir(f.host, &f.want)
	case f.spec.GetLink() != "":
		text, err = conffile.CheckLink(f.host, f.want.Path, f.spec.GetLink(), f.want.Owner)
	default:
		text, err = conffile.Check(f.host, &f.want, &conffile.Seen{})
	}
	return converge.Diff{Text: text}, err
}

// Apply implements converge.Resource.
func (f *file) Apply(ctx context.Context) error {
	if f.want.Absent {
		return conffile.Apply(f.host, &f.want)
	}
	if err := f.fill(ctx); err != nil {
		return err
	}
	if err := f.resolve(); err != nil {
		return err
	}
	switch {
	case f.spec.GetDirectory():
		return conffile.ApplyDir(f.host, &f.want)
	case f.spec.GetLink() != "":
		return conffile.ApplyLink(f.host, f.want.Path, f.spec.GetLink(), f.want.Owner)
	}
	return conffile.Apply(f.host, &f.want)
}

// fill makes the content once. What could not be made, as while no server can be asked for a secret, is tried again.
func (f *file) fill(ctx context.Context) error {
	if f.made {
		return nil
	}
	content, secret, err := f.contents.of(ctx, f.spec)
	if err != nil {
		return err
	}
	f.want.Content, f.want.Secret, f.made = content, secret, true
	return nil
}

// resolve looks up the owner.
func (f *file) resolve() error {
	db, err := f.accounts.Load()
	if err != nil {
		return err
	}
	uid, ok := db.UID(f.owner)
	if !ok {
		return notFound(f.want.Path, "user", f.owner)
	}
	gid, ok := db.GID(f.group)
	if !ok {
		return notFound(f.want.Path, "group", f.group)
	}
	f.want.Owner = &host.Owner{UID: uid, GID: gid}
	return nil
}

func notFound(path, what, name string) error {
	return errs.New(errs.NotFound, "cannot give %s its owner: %s %s does not exist", path, what, name).
		WithHint("list the %s %q under users or groups, or the package that creates it under packages", what, name)
}
