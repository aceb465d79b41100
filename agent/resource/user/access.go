package user

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/accounts"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
)

// keys returns authorized_keys(5) as wanted for an account.
func (a *account) keys(u accounts.User) (*conffile.File, error) {
	if !usable(u.Home) {
		return nil, errs.New(errs.Conflict, "cannot write the ssh keys of %s: its home directory is %q", u.Name, u.Home)
	}
	var b strings.Builder
	for _, k := range a.want.SshKeys {
		b.WriteString(strings.TrimSpace(k) + "\n")
	}
	return &conffile.File{
		Path: u.Home + "/.ssh/authorized_keys", Content: []byte(b.String()), Mode: 0o600, Public: true,
		Owner: &host.Owner{UID: u.UID, GID: u.GID},
		// No keys at all: no file.
		Absent: len(a.want.SshKeys) == 0,
	}, nil
}

// checkKeys returns what differs in the keys and the directory that they are in.
func (a *account) checkKeys(u accounts.User) (string, error) {
	if len(a.want.SshKeys) == 0 && !usable(u.Home) {
		return "", nil
	}
	f, err := a.keys(u)
	if err != nil {
		return "", err
	}
	d, err := conffile.Check(a.host, f, &a.seen[1])
	if err != nil || f.Absent || d != "" {
		return d, err
	}
	st, err := conffile.Stat(a.host, u.Home+"/.ssh")
	if err != nil {
		return "", err
	}
	// sshd refuses keys in a directory that others may write to (StrictModes in sshd_config(5)).
	if perm := st.Mode & 0o777; int(st.Uid) != u.UID || perm != 0o700 {
		return fmt.Sprintf("%s/.ssh: mode %#o of user %d, wanted 0700 of %d", u.Home, perm, st.Uid, u.UID), nil
	}
	return "", nil
}

// writeKeys writes the keys. The directories on the way are walked without following links of the account itself.
func (a *account) writeKeys(u accounts.User) error {
	if len(a.want.SshKeys) == 0 && !usable(u.Home) {
		return nil
	}
	f, err := a.keys(u)
	if err != nil || f.Absent {
		if err == nil {
			err = conffile.Apply(a.host, f)
		}
		return err
	}
	home, base, err := conffile.Parent(a.host, u.Home+"/.ssh", true)
	if err != nil {
		return err
	}
	defer home.Close()
	if err := home.Mkdir(base, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot make %s/.ssh: %w", u.Home, err)
	}
	// Through the opened directory: its name may have become a link meanwhile.
	ssh, err := home.OpenRoot(base)
	if err != nil {
		return fmt.Errorf("cannot open %s/.ssh: %w", u.Home, err)
	}
	defer ssh.Close()
	named, err := home.Lstat(base)
	if err != nil {
		return err
	}
	if opened, err := ssh.Stat("."); err != nil || !os.SameFile(named, opened) {
		return errors.Join(fmt.Errorf("cannot open %s/.ssh: refusing to follow a symbolic link", u.Home), err)
	}
	if err := errors.Join(ssh.Chown(".", u.UID, u.GID), ssh.Chmod(".", 0o700)); err != nil {
		return fmt.Errorf("cannot protect %s/.ssh: %w", u.Home, err)
	}
	return host.WriteFile(ssh, "authorized_keys", f.Content, host.Attributes{Mode: f.Mode, Owner: f.Owner})
}
