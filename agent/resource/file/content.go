package file

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/tmpl"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// contents makes what files hold from a desired state.
type contents struct {
	data      tmpl.Data
	secrets   desired.Secrets
	revisions map[string]uint64
}

func newContents(s *desired.State) *contents {
	m := s.Machine
	c := &contents{
		data: tmpl.Data{
			Machine: tmpl.Machine{
				Name: m.GetName(), FQDN: m.GetFqdn(), Index: int(m.GetIndex()), Address: m.GetAddress(), Pool: m.GetPool(), ID: m.GetMachineId(),
			},
			Pool: tmpl.Pool{Name: m.GetPool(), Domain: m.GetDomain()},
			Vars: s.Pool.GetVariables(),
		},
		secrets: s.Secrets, revisions: make(map[string]uint64),
	}
	for _, member := range s.Members[m.GetPool()] {
		c.data.Pool.Members = append(c.data.Pool.Members, tmpl.Member{
			Name: member.Name, FQDN: member.Fqdn, Index: int(member.Index), Address: member.Address,
		})
	}
	for _, ref := range s.Pool.GetSecrets() {
		c.revisions[ref.Name] = ref.Revision
	}
	return c
}

// of returns the content of a file, and which secrets it is made of.
func (c *contents) of(ctx context.Context, f *agentv1.File) (content []byte, secret string, err error) {
	switch source := f.Source.(type) {
	case *agentv1.File_Content:
		return source.Content, "", nil
	case *agentv1.File_Secret:
		if content, err = c.secret(ctx, source.Secret); err != nil {
			return nil, "", wrap(err, "cannot write %s", f.Path)
		}
		return content, c.label(source.Secret), nil
	case *agentv1.File_Template:
		return c.render(ctx, f.Path, source.Template)
	}
	return nil, "", nil
}

func (c *contents) render(ctx context.Context, path, template string) ([]byte, string, error) {
	var used []string
	var failed error
	data := c.data
	data.Secret = func(name string) (string, error) {
		value, err := c.secret(ctx, name)
		if err != nil {
			failed = err
			return "", err
		}
		if !slices.Contains(used, name) {
			used = append(used, name)
		}
		return string(value), nil
	}
	content, err := tmpl.Render(template, data)
	switch {
	case failed != nil:
		// The template is as it should be: what is said is why the secret is not here.
		return nil, "", wrap(failed, "cannot render the template of %s", path)
	case err != nil && len(used) > 0:
		// An error of a template may quote the values that it works on.
		return nil, "", errs.New(errs.Invalid, "cannot render the template of %s: it fails after it asked for %s", path, c.label(used...))
	case err != nil:
		return nil, "", errs.New(errs.Invalid, "cannot render the template of %s: %w", path, err)
	}
	return content, c.label(used...), nil
}

func (c *contents) secret(ctx context.Context, name string) ([]byte, error) {
	if c.secrets == nil {
		return nil, errs.New(errs.Unavailable, "cannot read secret %s: no server can be asked", name)
	}
	return c.secrets.Secret(ctx, name)
}

// label names secrets for people, without anything of their values.
func (c *contents) label(names ...string) string {
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("secret %s revision %d", name, c.revisions[name]))
	}
	return strings.Join(parts, ", ")
}

// wrap says what failed for an error, and keeps its kind and hint.
func wrap(err error, format string, args ...any) error {
	return errs.New(errs.KindOf(err), "%s: %w", fmt.Sprintf(format, args...), err).WithHint("%s", errs.HintOf(err))
}
