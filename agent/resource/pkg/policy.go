package pkg

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

const (
	policyPath = "/usr/sbin/policy-rc.d"
	// policySaved is where a policy of somebody else waits during a transaction.
	policySaved = "/usr/sbin/policy-rc.d.provisionr-saved"
	// ranDir holds a file for each unit that ran and was stopped by the present transaction.
	ranDir       = "/run/provisionr-agent/ran"
	policyMarker = "# provisionr-agent: services stay down during a package transaction"
)

// policy denies (exit 101) whatever would start a unit that did not run before; a unit that a package stops in its upgrade
// may start again. See /usr/share/doc/init-system-helpers/README.policy-rc.d.gz.
const policy = `#!/bin/sh
` + policyMarker + `
ran=` + ranDir + `
case "$2" in
*stop*)
	systemctl is-active --quiet "$1" 2>/dev/null && mkdir -p "$ran" && : >"$ran/$1"
	exit 0 ;;
esac
systemctl is-active --quiet "$1" 2>/dev/null && exit 0
[ -e "$ran/$1" ] && exit 0
exit 101
`

const maxPolicy = 64 << 10

// ours reports whether the policy in place is ours.
func ours(h *host.Host) (bool, error) {
	content, err := conffile.Read(h, policyPath, maxPolicy)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return strings.Contains(string(content), policyMarker), err
}

// leftover reports whether a transaction ended without taking its policy away.
func leftover(h *host.Host) bool {
	mine, err := ours(h)
	return mine || err == nil && conffile.Exists(h, policySaved)
}

// deny puts our policy in place and returns what takes it away again.
func deny(h *host.Host) (allow func() error, err error) {
	mine, err := ours(h)
	if err != nil {
		return nil, fmt.Errorf("cannot keep services down: %w", err)
	}
	if !mine && conffile.Exists(h, policyPath) {
		if err := rename(h, policyPath, policySaved); err != nil {
			return nil, fmt.Errorf("cannot keep services down: %w", err)
		}
	}
	if err := forgetRan(h); err != nil {
		return nil, fmt.Errorf("cannot keep services down: %w", err)
	}
	if err := conffile.Apply(h, &conffile.File{Path: policyPath, Content: []byte(policy), Mode: 0o755}); err != nil {
		return nil, fmt.Errorf("cannot keep services down: %w", err)
	}
	return func() error { return allowServices(h) }, nil
}

// forgetRan removes what an earlier transaction noted.
func forgetRan(h *host.Host) error {
	dir, base, err := conffile.Parent(h, ranDir, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.RemoveAll(base)
}

// allowServices restores what was before deny. It is safe to repeat, also after a crash.
func allowServices(h *host.Host) error {
	mine, err := ours(h)
	if err == nil && mine {
		err = conffile.Apply(h, &conffile.File{Path: policyPath, Absent: true})
	}
	if err == nil && conffile.Exists(h, policySaved) {
		err = rename(h, policySaved, policyPath)
	}
	if err != nil {
		return fmt.Errorf("cannot let services start again: %w", err)
	}
	return nil
}

// rename moves a file within its directory.
func rename(h *host.Host, from, to string) error {
	dir, base, err := conffile.Parent(h, from, false)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Rename(base, to[strings.LastIndexByte(to, '/')+1:])
}
