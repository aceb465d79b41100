package ospolicy

import (
	"context"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/systemdunit"
)

const (
	// aptPath comes after the package's own 20auto-upgrades and 50unattended-upgrades, which stay as they are.
	aptPath     = "/etc/apt/apt.conf.d/52provisionr-unattended-upgrades"
	dnfAutoPath = "/etc/dnf/automatic.conf"
	dnfTimer    = "dnf-automatic.timer"
	header      = "// Managed by provisionr-agent.\n"
)

// New returns one resource for each part of the policy that the pool has, and what takes back those that it had.
func New(s *desired.State, h *host.Host) []converge.Resource {
	p := s.Pool.GetOsPolicy()
	fedora := s.Machine.GetOs().GetDistribution() == "fedora"
	shared := s.Machine.GetSharedKernel()
	var list []converge.Resource
	if mode := p.GetUnattendedUpgrades(); mode != "" {
		list = append(list, newUpgrades(h, mode, fedora))
	} else if u := leftUpgrades(h, fedora); u != nil {
		list = append(list, u)
	}
	if mode := p.GetSelinux(); mode != "" {
		list = append(list, &selinux{host: h, mode: mode, shared: shared})
	}
	if state := p.GetApparmor(); state != "" {
		list = append(list, &apparmor{host: h, enabled: state == "enabled", shared: shared})
	} else if conffile.Exists(h, apparmorGrub) {
		list = append(list, &apparmor{host: h, left: true})
	}
	return list
}

// upgrades keeps the system's own upgrades.
type upgrades struct {
	host *host.Host
	set  *conffile.Set
	// timer is the unit that has to run; empty where nothing but files counts.
	timer   string
	enabled bool
	paths   []string
}

func newUpgrades(h *host.Host, mode string, fedora bool) *upgrades {
	u := &upgrades{host: h, enabled: mode != "off"}
	var files []conffile.File
	if fedora {
		u.timer = dnfTimer
		files = append(files, conffile.File{Path: dnfAutoPath, Absent: !u.enabled, Content: dnfAutomatic(mode)})
	} else {
		content := periodic(u.enabled)
		if u.enabled {
			content = append(content, origins(mode)...)
		}
		files = append(files, conffile.File{Path: aptPath, Content: content})
	}
	for _, f := range files {
		u.paths = append(u.paths, f.Path)
	}
	u.set = conffile.NewSet(h, "ospolicy", files...)
	return u
}

// leftUpgrades takes back what was written while the pool had a policy; nil where nothing was.
func leftUpgrades(h *host.Host, fedora bool) *upgrades {
	u := &upgrades{host: h, paths: []string{aptPath}}
	if fedora {
		u.paths, u.timer = []string{dnfAutoPath}, dnfTimer
		if ours, err := systemdunit.Begins(h, dnfAutoPath, systemdunit.Header); err != nil || !ours {
			return nil
		}
	} else if !conffile.Exists(h, aptPath) {
		return nil
	}
	u.set = conffile.NewSet(h, "ospolicy", conffile.File{Path: u.paths[0], Absent: true})
	return u
}

// periodic is what apt's daily timer does (/usr/lib/apt/apt.systemd.daily).
func periodic(enabled bool) []byte {
	flag := map[bool]string{true: "1", false: "0"}[enabled]
	return []byte(header + "APT::Periodic::Update-Package-Lists \"" + flag + "\";\nAPT::Periodic::Unattended-Upgrade \"" + flag + "\";\n")
}

// origins replaces the archives that unattended-upgrades takes upgrades from. The names are those of Debian and Ubuntu.
func origins(mode string) []byte {
	var b strings.Builder
	b.WriteString("#clear Unattended-Upgrade::Origins-Pattern;\n#clear Unattended-Upgrade::Allowed-Origins;\nUnattended-Upgrade::Origins-Pattern {\n")
	patterns := []string{"origin=Debian,codename=${distro_codename},label=Debian-Security", "origin=Debian,codename=${distro_codename}-security,label=Debian-Security",
		"origin=Ubuntu,archive=${distro_codename}-security"}
	if mode == "all" {
		patterns = []string{"origin=*"}
	}
	for _, p := range patterns {
		b.WriteString("\t\"" + p + "\";\n")
	}
	b.WriteString("};\nUnattended-Upgrade::Automatic-Reboot \"false\";\n")
	return []byte(b.String())
}

func dnfAutomatic(mode string) []byte {
	kind := map[string]string{"security": "security", "all": "default"}[mode]
	return []byte("# Managed by provisionr-agent.\n[commands]\nupgrade_type = " + kind + "\napply_updates = yes\nreboot = never\n\n[emitters]\nemit_via = stdio\n")
}

// Name implements converge.Resource.
func (u *upgrades) Name() string { return "ospolicy/upgrades" }

// After implements converge.Ordered: the package brings the unit, and files of its own that ours follow.
func (u *upgrades) After() []string { return []string{"package"} }

// Triggers implements converge.Triggered.
func (u *upgrades) Triggers() []converge.Trigger {
	var list []converge.Trigger
	for _, path := range u.paths {
		list = append(list, converge.Trigger{Kind: converge.OnFile, Name: path})
	}
	if u.timer != "" {
		list = append(list, converge.Trigger{Kind: converge.OnUnit, Name: u.timer})
	}
	return list
}

// Check implements converge.Resource.
func (u *upgrades) Check(ctx context.Context) (converge.Diff, error) {
	text, err := u.set.Check()
	if err != nil || u.timer == "" {
		return converge.Diff{Text: text}, err
	}
	unit, err := u.host.Units.Unit(ctx, u.timer)
	if err != nil {
		return converge.Diff{}, err
	}
	if running := unit.Active == "active" && unit.File == "enabled"; running != u.enabled && (u.enabled || unit.Load != "not-found") {
		text = strings.TrimPrefix(text+"\n"+u.timer+":\n-"+unit.Active+", "+unit.File+"\n+"+map[bool]string{true: "active, enabled", false: "inactive, disabled"}[u.enabled], "\n")
		if !u.enabled && unit.Active != "active" && unit.File != "enabled" {
			text = ""
		}
	}
	return converge.Diff{Text: text}, nil
}

// Apply implements converge.Resource.
func (u *upgrades) Apply(ctx context.Context) error {
	if err := u.set.Apply(nil); err != nil || u.timer == "" {
		return err
	}
	unit, err := u.host.Units.Unit(ctx, u.timer)
	if err != nil {
		return err
	}
	if u.enabled {
		if err := u.host.Units.Enable(ctx, u.timer); err != nil {
			return err
		}
		return u.host.Units.Start(ctx, u.timer)
	}
	if unit.Load == "not-found" {
		return nil
	}
	if err := u.host.Units.Disable(ctx, u.timer); err != nil {
		return err
	}
	return u.host.Units.Stop(ctx, u.timer)
}
