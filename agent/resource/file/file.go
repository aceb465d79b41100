package file

import (
	"context"
	"fmt"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/accounts"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/tmpl"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// New returns one resource for each file of the pool. A template that cannot be rendered is an error of its resource.
func New(s *desired.State, h *host.Host) []converge.Resource {
	var list []converge.Resource
	data, db := facts(s), accounts.NewReader(h)
	for _, f := range s.Pool.GetFiles() {
		list = append(list, newFile(f, h, db, data))
	}
	return list
}

// facts returns what templates see.
func facts(s *desired.State) tmpl.Data {
	m := s.Machine
	d := tmpl.Data{
		Machine: tmpl.Machine{
			Name: m.GetName(), FQDN: m.GetFqdn(), Index: int(m.GetIndex()), Address: m.GetAddress(), Pool: m.GetPool(), ID: m.GetMachineId(),
		},
		Pool: tmpl.Pool{Name: m.GetPool(), Domain: m.GetDomain()},
		Vars: s.Pool.GetVariables(),
	}
	for _, member := range s.Members[m.GetPool()] {
		d.Pool.Members = append(d.Pool.Members, tmpl.Member{
			Name: member.Name, FQDN: member.Fqdn, Index: int(member.Index), Address: member.Address,
		})
	}
	return d
}

type file struct {
	host         *host.Host
	accounts     *accounts.Reader
	want         conffile.File
	owner, group string
	// broken is why the file cannot be made at all.
	broken error
	seen   conffile.Seen
}

func newFile(f *agentv1.File, h *host.Host, db *accounts.Reader, data tmpl.Data) *file {
	r := &file{
		host: h, accounts: db,
		want:  conffile.File{Path: f.Path, Mode: conffile.Mode(f.Mode), Absent: f.GetAbsent()},
		owner: orRoot(f.Owner),
		group: orRoot(f.Group),
	}
	switch source := f.Source.(type) {
	case *agentv1.File_Content:
		r.want.Content = source.Content
	case *agentv1.File_Template:
		content, err := tmpl.Render(source.Template, data)
		if err != nil {
			r.broken = errs.New(errs.Invalid, "cannot render the template of %s: %w", f.Path, err)
		}
		r.want.Content = content
	}
	return r
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
func (f *file) After() []string { return []string{"package", "user"} }

// Check implements converge.Resource.
func (f *file) Check(context.Context) (converge.Diff, error) {
	if f.broken != nil {
		return converge.Diff{}, f.broken
	}
	if err := f.resolve(); err != nil {
		// An owner that does not exist yet is a difference, until Apply finds it still missing.
		return converge.Diff{Text: err.Error()}, nil
	}
	text, err := conffile.Check(f.host, &f.want, &f.seen)
	return converge.Diff{Text: text}, err
}

// Apply implements converge.Resource.
func (f *file) Apply(context.Context) error {
	if f.broken != nil {
		return f.broken
	}
	if err := f.resolve(); err != nil {
		return err
	}
	return conffile.Apply(f.host, &f.want)
}

// resolve looks up the owner.
func (f *file) resolve() error {
	if f.want.Absent {
		return nil
	}
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
		WithHint("list the %s under users or groups, or the package that creates it under packages", fmt.Sprintf("%s %q", what, name))
}
