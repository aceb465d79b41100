package user

import (
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/accounts"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

// homeMode is what a home directory gets that we make.
const homeMode = 0o750

// usable reports whether a home directory is the account's own: those of the system often have none.
func usable(home string) bool {
	return strings.HasPrefix(home, "/") && home != "/" && home != "/nonexistent" && !strings.HasPrefix(home, "/dev/")
}

// home is the home directory as wanted.
func (a *account) home() string {
	if a.want.Home != "" {
		return a.want.Home
	}
	return "/home/" + a.want.Name
}

// wantsHome reports whether the account needs its home directory: accounts of the system do without, unless they have keys or
// the manifest names one.
func (a *account) wantsHome() bool {
	return !a.want.System || a.want.Home != "" || len(a.want.SshKeys) > 0
}

// makeHome makes a home directory that is missing. What useradd(8) made, or people changed, is left as it is.
func (a *account) makeHome(u accounts.User) error {
	if !a.wantsHome() || !usable(u.Home) || conffile.Exists(a.host, u.Home) {
		return nil
	}
	return conffile.ApplyDir(a.host, &conffile.File{Path: u.Home, Mode: homeMode, Owner: &host.Owner{UID: u.UID, GID: u.GID}})
}
