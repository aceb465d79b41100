package group

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/accounts"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// timeout bounds groupadd and its like; they wait for the databases' locks.
const timeout = 30 * time.Second

// New returns one resource for each group of the pool.
func New(s *desired.State, h *host.Host) []converge.Resource {
	var list []converge.Resource
	db := accounts.NewReader(h)
	for _, g := range s.Pool.GetGroups() {
		r := &group{host: h, accounts: db, want: g, after: []string{"package"}}
		if g.Absent {
			// Accounts that go with it may have it as their first group.
			for _, u := range s.Pool.GetUsers() {
				if u.Absent {
					r.after = append(r.after, "user/"+u.Name)
				}
			}
		}
		list = append(list, r)
	}
	return list
}

type group struct {
	host     *host.Host
	accounts *accounts.Reader
	want     *agentv1.Group
	after    []string
}

// Name implements converge.Resource.
func (g *group) Name() string { return "group/" + g.want.Name }

// After implements converge.Ordered.
func (g *group) After() []string { return g.after }

// Triggers implements converge.Triggered.
func (g *group) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: "/etc/group"}}
}

// Check implements converge.Resource.
func (g *group) Check(context.Context) (converge.Diff, error) {
	db, err := g.accounts.Load()
	if err != nil {
		return converge.Diff{}, err
	}
	now, exists := db.Group(g.want.Name)
	switch {
	case g.want.Absent && exists:
		return converge.Diff{Text: "group exists, wanted absent"}, nil
	case g.want.Absent:
	case !exists:
		return converge.Diff{Text: "group is missing"}, nil
	case g.want.Gid != 0 && now.GID != int(g.want.Gid):
		return converge.Diff{}, errs.New(errs.Conflict, "cannot give group %s the number %d: it has %d", now.Name, g.want.Gid, now.GID).
			WithHint("files carry the number: change it by groupmod(8) and their owners by hand, or take gid out of the manifest")
	}
	return converge.Diff{}, nil
}

// Apply implements converge.Resource.
func (g *group) Apply(ctx context.Context) error {
	if d, err := g.Check(ctx); err != nil || d.Empty() {
		return err
	}
	if g.want.Absent {
		return g.remove(ctx)
	}
	var args []string
	if g.want.Gid != 0 {
		args = append(args, "--gid", strconv.FormatUint(uint64(g.want.Gid), 10))
	}
	if g.want.System {
		args = append(args, "--system")
	}
	if err := g.run(ctx, "groupadd", append(args, g.want.Name)...); err != nil {
		return fmt.Errorf("cannot add group %s: %w", g.want.Name, err)
	}
	return nil
}

func (g *group) remove(ctx context.Context) error {
	db, err := g.accounts.Load()
	if err != nil {
		return err
	}
	if now, ok := db.Group(g.want.Name); ok && now.GID == 0 {
		return errs.New(errs.Invalid, "cannot remove group %s: its number is 0", now.Name).WithHint("take it out of groups")
	}
	if err := g.run(ctx, "groupdel", g.want.Name); err != nil {
		return fmt.Errorf("cannot remove group %s: %w", g.want.Name, err)
	}
	return nil
}

func (g *group) run(ctx context.Context, path string, args ...string) error {
	_, err := command.Run(ctx, g.host, host.Command{Path: path, Args: args, Timeout: timeout})
	return err
}
