package ntp

import (
	"slices"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// daemon is what keeps time on a machine, as a distribution has it.
type daemon struct {
	name, unit string
	// mainPath is the distribution's own configuration of chrony; ownPath is ours, dropInPath changes the unit.
	mainPath, ownPath, dropInPath string
	// include is the line by which mainPath reads ownPath, where it does not by itself.
	include string
	// command runs chronyd so that it observes only.
	command string
}

var (
	// debianChrony is that of Debian and Ubuntu, whose chrony.conf reads conf.d.
	debianChrony = daemon{
		name: "chrony", unit: "chrony.service", mainPath: "/etc/chrony/chrony.conf", ownPath: "/etc/chrony/conf.d/provisionr.conf",
		dropInPath: "/etc/systemd/system/chrony.service.d/provisionr.conf", command: "!/usr/sbin/chronyd -x $DAEMON_OPTS",
	}
	// fedoraChrony is that of Fedora and what comes from it.
	fedoraChrony = daemon{
		name: "chrony", unit: "chronyd.service", mainPath: "/etc/chrony.conf", ownPath: "/etc/chrony.d/provisionr.conf",
		include:    "include /etc/chrony.d/provisionr.conf",
		dropInPath: "/etc/systemd/system/chronyd.service.d/provisionr.conf", command: "/usr/sbin/chronyd -x $OPTIONS",
	}
	// timesyncd has no configuration of its own to be changed.
	timesyncd = daemon{name: "timesyncd", unit: "systemd-timesyncd.service", ownPath: "/etc/systemd/timesyncd.conf.d/provisionr.conf"}
)

// facts are what the daemon depends on.
type facts struct {
	// wanted and unwanted say that the manifest lists package chrony, or lists it as absent.
	wanted, unwanted bool
	// debian, fedora and timesyncd say that the unit of each is there.
	debian, fedora, timesyncd bool
	// dnf says that the machine's packages are dnf's.
	dnf bool
}

// choose decides what keeps time: chrony, but where it is absent and systemd-timesyncd is there. The zero daemon says nothing
// does and nothing shall.
func choose(f facts) daemon {
	chrony := debianChrony
	if !f.debian && (f.fedora || f.dnf) {
		chrony = fedoraChrony
	}
	installed := (f.debian || f.fedora) && !f.unwanted
	switch {
	case f.wanted, installed:
		return chrony
	case f.timesyncd:
		return timesyncd
	case f.unwanted:
		return daemon{}
	}
	return chrony
}

// listed reports whether a package is listed, and whether as absent.
func listed(packages []*agentv1.Package, name string) (wanted, unwanted bool) {
	i := slices.IndexFunc(packages, func(p *agentv1.Package) bool { return p.Name == name })
	if i < 0 {
		return false, false
	}
	return !packages[i].Absent, packages[i].Absent
}
