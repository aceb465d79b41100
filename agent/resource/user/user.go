package user

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/accounts"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/strays"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	defaultShell = "/bin/bash"
	// systemShell keeps people out of accounts of the system.
	systemShell = "/usr/sbin/nologin"
	// accountTimeout bounds useradd and its like; they wait for the databases' locks.
	accountTimeout = 30 * time.Second
)

// New returns one resource for each account, and what takes away rights to sudo and memberships that are no longer listed.
func New(s *desired.State, h *host.Host) []converge.Resource {
	var list []converge.Resource
	db := accounts.NewReader(h)
	listed := make(map[string]bool)
	given := newMemberships(h, db, s.Pool.GetUsers())
	after := []string{"package"}
	for _, g := range s.Pool.GetGroups() {
		if !g.Absent {
			after = append(after, "group/"+g.Name)
		}
	}
	for _, u := range s.Pool.GetUsers() {
		file, err := sudoers(u)
		a := &account{host: h, accounts: db, want: u, given: given, sudoers: file, broken: err, after: slices.Clone(after)}
		for _, f := range s.Pool.GetFilesystems() {
			// A home directory, with the keys in it, that was made before the mount would be hidden by it.
			if strings.HasPrefix(a.home()+"/", f.Path+"/") {
				a.after = append(a.after, "filesystem/"+f.Path)
			}
		}
		list = append(list, a)
		listed[sudoersPrefix+u.Name] = true
	}
	return append(list, strays.New(h, "user/strays", "rights to sudo of accounts", listed, strays.Place{Dir: sudoersDir, Pattern: sudoersPrefix + "*"}), given)
}

type account struct {
	host     *host.Host
	accounts *accounts.Reader
	want     *agentv1.User
	given    *memberships
	sudoers  conffile.File
	// broken is why the right to sudo cannot be given.
	broken error
	after  []string
	seen   [2]conffile.Seen
}

// Name implements converge.Resource.
func (a *account) Name() string { return "user/" + a.want.Name }

// After implements converge.Ordered: packages bring groups, shells and sudo.
func (a *account) After() []string { return a.after }

// Triggers implements converge.Triggered.
func (a *account) Triggers() []converge.Trigger {
	files := []string{"/etc/passwd", "/etc/group", a.sudoers.Path}
	if !a.want.Absent && len(a.want.SshKeys) > 0 {
		files = append(files, a.home()+"/.ssh/authorized_keys")
	}
	var triggers []converge.Trigger
	for _, f := range files {
		triggers = append(triggers, converge.Trigger{Kind: converge.OnFile, Name: f})
	}
	return triggers
}

// Check implements converge.Resource.
func (a *account) Check(context.Context) (converge.Diff, error) {
	if a.broken != nil {
		return converge.Diff{}, a.broken
	}
	db, err := a.accounts.Load()
	if err != nil {
		return converge.Diff{}, err
	}
	diffs, err := a.compare(db)
	if err != nil {
		return converge.Diff{}, err
	}
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

// compare returns what differs in the databases, and whether the home directory is there.
func (a *account) compare(db *accounts.DB) ([]string, error) {
	u, exists := db.User(a.want.Name)
	switch {
	case a.want.Absent && exists:
		return []string{"account exists, wanted absent"}, nil
	case a.want.Absent:
		return nil, nil
	case !exists:
		return []string{"account is missing"}, nil
	case a.want.Uid != 0 && u.UID != int(a.want.Uid):
		return nil, errs.New(errs.Conflict, "cannot give account %s the number %d: it has %d", u.Name, a.want.Uid, u.UID).
			WithHint("files carry the number: change it by usermod(8) by hand, or take uid out of the manifest")
	}
	var diffs []string
	if a.want.Shell != "" && u.Shell != a.want.Shell {
		diffs = append(diffs, "shell is "+u.Shell+", wanted "+a.want.Shell)
	}
	if a.want.Home != "" && u.Home != a.want.Home {
		diffs = append(diffs, "home is "+u.Home+", wanted "+a.want.Home)
	}
	if !a.inFirstGroup(db, u) {
		diffs = append(diffs, fmt.Sprintf("first group has number %d, wanted %s", u.GID, a.want.Group))
	}
	if missing := a.missingGroups(db, u); len(missing) > 0 {
		diffs = append(diffs, "not in groups "+strings.Join(missing, ", "))
	}
	if a.wantsHome() && usable(u.Home) && !conffile.Exists(a.host, u.Home) {
		diffs = append(diffs, "home directory "+u.Home+" is missing")
	}
	return diffs, nil
}

func (a *account) inFirstGroup(db *accounts.DB, u accounts.User) bool {
	if a.want.Group == "" {
		return true
	}
	g, ok := db.Group(a.want.Group)
	return ok && g.GID == u.GID
}

func (a *account) missingGroups(db *accounts.DB, u accounts.User) []string {
	return slices.DeleteFunc(slices.Clone(a.want.Groups), func(g string) bool { return db.Belongs(u, g) })
}

// Apply implements converge.Resource.
func (a *account) Apply(ctx context.Context) error {
	if a.broken != nil {
		return a.broken
	}
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
		return a.remove(ctx, db, u)
	}
	if a.want.Shell != "" && u.Shell != a.want.Shell && !conffile.Exists(a.host, a.want.Shell) {
		// Nobody logs in with a shell that does not exist.
		return errs.New(errs.NotFound, "cannot give account %s the shell %s: there is no such program", a.want.Name, a.want.Shell).
			WithHint("list the package that brings it under packages")
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
	if err := a.makeHome(u); err != nil {
		return err
	}
	if err := a.writeKeys(u); err != nil {
		return err
	}
	return a.writeSudoers(ctx)
}

func (a *account) makeGroups(ctx context.Context, db *accounts.DB) error {
	groups := a.want.Groups
	if a.want.Group != "" {
		groups = append(slices.Clone(groups), a.want.Group)
	}
	for _, g := range groups {
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
	switch {
	case shell != "":
	case a.want.System:
		shell = systemShell
	default:
		shell = defaultShell
	}
	home := "--create-home"
	if a.want.System {
		// A service's directory gets no files of /etc/skel; makeHome makes it where it is wanted.
		home = "--no-create-home"
	}
	args := []string{home, "--shell", shell}
	if len(a.want.Groups) > 0 {
		if err := a.given.give(a.want.Name, a.want.Groups); err != nil {
			return err
		}
		args = append(args, "--groups", strings.Join(a.want.Groups, ","))
	}
	// A group of the account's name that exists already becomes its first group.
	_, own := db.Group(a.want.Name)
	switch {
	case a.want.Group != "":
		args = append(args, "--gid", a.want.Group)
	case own:
		args = append(args, "--gid", a.want.Name)
	default:
		args = append(args, "--user-group")
	}
	if a.want.Uid != 0 {
		args = append(args, "--uid", strconv.FormatUint(uint64(a.want.Uid), 10))
	}
	if a.want.System {
		args = append(args, "--system")
	}
	if a.want.Home != "" {
		args = append(args, "--home-dir", a.want.Home)
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
	if a.want.Home != "" && u.Home != a.want.Home {
		args = append(args, "--home", a.want.Home)
	}
	if !a.inFirstGroup(db, u) {
		args = append(args, "--gid", a.want.Group)
	}
	if missing := a.missingGroups(db, u); len(missing) > 0 {
		if err := a.given.give(a.want.Name, missing); err != nil {
			return err
		}
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

func (a *account) remove(ctx context.Context, db *accounts.DB, u accounts.User) error {
	if u.UID == 0 {
		return errs.New(errs.Invalid, "cannot remove account %s: its number is 0", u.Name).WithHint("take it out of users")
	}
	// Force: sessions that are open must not keep the account. But it also removes a group of the account's name that is the
	// first one of another account (userdel(8)).
	args := []string{"--force", u.Name}
	if g, ok := db.Group(u.Name); ok && db.FirstOf(g.GID, u.Name) != "" {
		args = args[1:]
	}
	if err := a.run(ctx, "userdel", args...); err != nil {
		return fmt.Errorf("cannot remove account %s: %w", u.Name, err)
	}
	return nil
}

func (a *account) run(ctx context.Context, path string, args ...string) error {
	_, err := command.Run(ctx, a.host, host.Command{Path: path, Args: args, Timeout: accountTimeout})
	return err
}
