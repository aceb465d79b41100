package user

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/accounts"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	defaultShell = "/bin/bash"
	// accountTimeout bounds useradd and its like; they wait for the databases' locks.
	accountTimeout = 30 * time.Second
)

// New returns one resource for each account, and one that takes away rights to sudo that are no longer listed.
func New(s *desired.State, h *host.Host) []converge.Resource {
	var list []converge.Resource
	db := accounts.NewReader(h)
	admins := make(map[string]bool)
	for _, u := range s.Pool.GetUsers() {
		list = append(list, &account{host: h, accounts: db, want: u, sudoers: sudoers(u.Name, u.Admin && !u.Absent)})
		admins[sudoersPrefix+u.Name] = true
	}
	return append(list, &strays{host: h, listed: admins})
}

type account struct {
	host     *host.Host
	accounts *accounts.Reader
	want     *agentv1.User
	sudoers  conffile.File
	seen     [2]conffile.Seen
}

// Name implements converge.Resource.
func (a *account) Name() string { return "user/" + a.want.Name }

// After implements converge.Ordered: packages bring groups, shells and sudo.
func (a *account) After() []string { return []string{"package"} }

// Check implements converge.Resource.
func (a *account) Check(context.Context) (converge.Diff, error) {
	db, err := a.accounts.Load()
	if err != nil {
		return converge.Diff{}, err
	}
	diffs := a.compare(db)
	d, err := conffile.Check(a.host, &a.sudoers, &a.seen[0])
	if err != nil {
		return converge.Diff{}, err
	}
	diffs = append(diffs, d)
	if u, ok := db.User(a.want.Name); ok && !a.want.Absent {
		d, err := a.checkKeys(u)
		if err != nil {
			return converge.Diff{}, err
		}
		diffs = append(diffs, d)
	}
	return converge.Diff{Text: textdiff.Join(diffs...)}, nil
}

// compare returns what differs in the databases.
func (a *account) compare(db *accounts.DB) []string {
	u, exists := db.User(a.want.Name)
	switch {
	case a.want.Absent && exists:
		return []string{"account exists, wanted absent"}
	case a.want.Absent:
		return nil
	case !exists:
		return []string{"account is missing"}
	}
	var diffs []string
	if a.want.Shell != "" && u.Shell != a.want.Shell {
		diffs = append(diffs, "shell is "+u.Shell+", wanted "+a.want.Shell)
	}
	if missing := a.missingGroups(db, u); len(missing) > 0 {
		diffs = append(diffs, "not in groups "+strings.Join(missing, ", "))
	}
	return diffs
}

func (a *account) missingGroups(db *accounts.DB, u accounts.User) []string {
	return slices.DeleteFunc(slices.Clone(a.want.Groups), func(g string) bool { return db.Belongs(u, g) })
}

// Apply implements converge.Resource.
func (a *account) Apply(ctx context.Context) error {
	db, err := a.accounts.Load()
	if err != nil {
		return err
	}
	u, exists := db.User(a.want.Name)
	if a.want.Absent {
		// The right to sudo goes first: it must not outlive the account.
		if err := conffile.Apply(a.host, &a.sudoers); err != nil || !exists {
			return err
		}
		return a.remove(ctx, u)
	}
	if err := a.makeGroups(ctx, db); err != nil {
		return err
	}
	if exists {
		err = a.modify(ctx, db, u)
	} else {
		err = a.add(ctx, db)
	}
	if err != nil {
		return err
	}
	if db, err = a.accounts.Load(); err != nil {
		return err
	}
	if u, exists = db.User(a.want.Name); !exists {
		return errs.New(errs.Internal, "cannot add account %s: it is not in /etc/passwd afterwards", a.want.Name)
	}
	if err := a.writeKeys(u); err != nil {
		return err
	}
	return a.writeSudoers(ctx)
}

func (a *account) makeGroups(ctx context.Context, db *accounts.DB) error {
	for _, g := range a.want.Groups {
		if _, ok := db.Group(g); ok {
			continue
		}
		if err := a.run(ctx, "groupadd", g); err != nil {
			return fmt.Errorf("cannot add group %s: %w", g, err)
		}
	}
	return nil
}

func (a *account) add(ctx context.Context, db *accounts.DB) error {
	shell := a.want.Shell
	if shell == "" {
		shell = defaultShell
	}
	args := []string{"--create-home", "--shell", shell}
	if len(a.want.Groups) > 0 {
		args = append(args, "--groups", strings.Join(a.want.Groups, ","))
	}
	// A group of the account's name that exists already becomes its first group.
	if _, ok := db.Group(a.want.Name); ok {
		args = append(args, "--gid", a.want.Name)
	} else {
		args = append(args, "--user-group")
	}
	if err := a.run(ctx, "useradd", append(args, a.want.Name)...); err != nil {
		return fmt.Errorf("cannot add account %s: %w", a.want.Name, err)
	}
	return nil
}

func (a *account) modify(ctx context.Context, db *accounts.DB, u accounts.User) error {
	var args []string
	if a.want.Shell != "" && u.Shell != a.want.Shell {
		args = append(args, "--shell", a.want.Shell)
	}
	if missing := a.missingGroups(db, u); len(missing) > 0 {
		args = append(args, "--append", "--groups", strings.Join(missing, ","))
	}
	if len(args) == 0 {
		return nil
	}
	if err := a.run(ctx, "usermod", append(args, a.want.Name)...); err != nil {
		return fmt.Errorf("cannot change account %s: %w", a.want.Name, err)
	}
	return nil
}

func (a *account) remove(ctx context.Context, u accounts.User) error {
	if u.UID == 0 {
		return errs.New(errs.Invalid, "cannot remove account %s: its number is 0", u.Name).WithHint("take it out of users")
	}
	// Force: sessions that are open must not keep the account.
	if err := a.run(ctx, "userdel", "--force", u.Name); err != nil {
		return fmt.Errorf("cannot remove account %s: %w", u.Name, err)
	}
	return nil
}

func (a *account) run(ctx context.Context, path string, args ...string) error {
	_, err := command.Run(ctx, a.host, host.Command{Path: path, Args: args, Timeout: accountTimeout})
	return err
}
