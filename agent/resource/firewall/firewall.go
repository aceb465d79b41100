package firewall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	rulesPath  = conffile.StateDir + "/firewall.nft"
	recordPath = conffile.StateDir + "/firewall.json"
	unit       = "provisionr-firewall.service"
	unitPath   = "/etc/systemd/system/" + unit
	wantsPath  = "/etc/systemd/system/sysinit.target.wants/" + unit
	nftTimeout = 30 * time.Second
	maxRecord  = 4 << 10
	maxRules   = 1 << 20
)

// bootUnit loads the last policy before the network comes up (systemd.special(7), network-pre.target).
const bootUnit = `# Managed by provisionr-agent.
[Unit]
Description=Provisionr's firewall as it was last applied
DefaultDependencies=no
RequiresMountsFor=` + conffile.StateDir + `
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f ` + rulesPath + `

[Install]
WantedBy=sysinit.target
`

// New returns the resource for the firewall.
func New(s *desired.State, h *host.Host) []converge.Resource {
	return []converge.Resource{&firewall{host: h, state: s, enabled: s.Pool.GetFirewall().GetEnabled(), kernel: look}}
}

type firewall struct {
	host    *host.Host
	state   *desired.State
	enabled bool
	// rules are those of the last render, which exits went into.
	rules  *ruleset
	exits  exits
	policy string
	files  []conffile.File
	seen   []conffile.Seen
	// kernel returns our table, nil if there is none.
	kernel func() (*loaded, error)
}

// Name implements converge.Resource.
func (f *firewall) Name() string { return "firewall/nftables" }

// After implements converge.Ordered: a package brings nft, the resolver records the servers that egress rules let through.
func (f *firewall) After() []string { return []string{"package", "resolver"} }

// Triggers implements converge.Triggered.
func (f *firewall) Triggers() []converge.Trigger {
	return []converge.Trigger{
		{Kind: converge.OnFirewall, Name: "inet/" + table},
		{Kind: converge.OnFile, Name: rulesPath},
		{Kind: converge.OnFile, Name: unitPath},
	}
}

// Units implements converge.Looking.
func (f *firewall) Units() []string { return []string{unit} }

// render makes the rules anew where something went into them that is new.
func (f *firewall) render() error {
	var e exits
	var err error
	if f.enabled && len(f.state.Pool.GetFirewall().GetEgress()) > 0 {
		if e, err = readExits(f.host); err != nil {
			return err
		}
	}
	if f.rules != nil && e.equal(f.exits) {
		return nil
	}
	rules, text := &ruleset{}, ""
	if f.enabled {
		if rules, err = render(f.state, e); err != nil {
			return err
		}
		text = rules.text(true)
		f.policy = sum(rules.text(false))
	}
	f.rules, f.exits = rules, e
	f.files = []conffile.File{
		{Path: rulesPath, Content: []byte(text), Mode: 0o600, Absent: !f.enabled},
		{Path: unitPath, Content: []byte(bootUnit), Absent: !f.enabled},
	}
	f.seen = make([]conffile.Seen, len(f.files))
	return nil
}

// Check implements converge.Resource.
func (f *firewall) Check(ctx context.Context) (converge.Diff, error) {
	if err := f.render(); err != nil {
		return converge.Diff{}, err
	}
	var diffs []string
	for i := range f.files {
		d, err := f.checkFile(i)
		if err != nil {
			return converge.Diff{}, err
		}
		diffs = append(diffs, d)
	}
	c, err := f.checkKernel()
	if err != nil {
		return converge.Diff{}, err
	}
	diffs = append(diffs, c.diff)
	u, err := f.host.Units.Unit(ctx, unit)
	if err != nil {
		return converge.Diff{}, err
	}
	if on := u.File == "enabled"; on != f.enabled {
		diffs = append(diffs, fmt.Sprintf("%s is %q, wanted enabled %v", unit, u.File, f.enabled))
	}
	return converge.Diff{Text: textdiff.Join(diffs...)}, nil
}

// checkFile shows how the rules change although others may not read them: the administrators who see a diff may.
func (f *firewall) checkFile(i int) (string, error) {
	file := &f.files[i]
	d, err := conffile.Check(f.host, file, &f.seen[i])
	if err != nil || d == "" || file.Absent || file.Path != rulesPath {
		return d, err
	}
	old, err := conffile.Read(f.host, rulesPath, maxRules)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if shown := textdiff.Contents("table inet "+table, old, file.Content, false); shown != "" {
		return shown, nil
	}
	return d, nil
}

// change is what has to be done to the table in the kernel.
type change struct {
	// diff is for people, empty where the table is as desired.
	diff string
	// script makes only members come and go; without it the table is replaced.
	script string
}

// checkKernel compares the table in the kernel with the one that was loaded last, and its members with the desired ones.
func (f *firewall) checkKernel() (change, error) {
	now, err := f.kernel()
	if !f.enabled {
		if err == nil && now != nil {
			return change{diff: "table inet " + table + ": exists, wanted absent"}, nil
		}
		return change{}, nil // a kernel that cannot even be asked has no table
	}
	if err != nil {
		return change{}, err
	}
	if now == nil {
		return change{diff: "table inet " + table + ": missing in the kernel"}, nil
	}
	last, err := readRecord(f.host)
	switch {
	case err != nil:
		return change{}, err
	case last.Rules != f.policy:
		return change{diff: "table inet " + table + ": was loaded from other rules"}, nil
	case last.Kernel != now.fingerprint:
		return change{diff: "table inet " + table + ": changed from outside"}, nil
	}
	script, diff := f.rules.delta(now.members)
	return change{diff: diff, script: script}, nil
}

// Apply implements converge.Resource.
func (f *firewall) Apply(ctx context.Context) error {
	if err := f.render(); err != nil {
		return err
	}
	if !f.enabled {
		return f.off(ctx)
	}
	c, err := f.checkKernel()
	if err != nil {
		return err
	}
	switch {
	case c.script != "":
		err = f.nft(ctx, c.script)
	case c.diff != "":
		err = f.load(ctx)
	}
	if err != nil {
		return err
	}
	// The files come after nft took the rules: what is loaded at boot has been loaded before.
	for i := range f.files {
		if err := conffile.Apply(f.host, &f.files[i]); err != nil {
			return err
		}
	}
	// The unit is for boots: systemd reads it then, and need not read all units now, at each change of a pool's membership.
	u, err := f.host.Units.Unit(ctx, unit)
	if err != nil || u.File == "enabled" {
		return err
	}
	return f.host.Units.Enable(ctx, unit)
}

// load replaces the table and records what it became.
func (f *firewall) load(ctx context.Context) error {
	if err := f.nft(ctx, f.rules.text(true)); err != nil {
		return err
	}
	now, err := f.kernel()
	if err != nil {
		return err
	}
	if now == nil {
		return errs.New(errs.Internal, "cannot load the firewall: nft succeeded, and the kernel has no table inet %s", table)
	}
	return writeRecord(f.host, record{Rules: f.policy, Kernel: now.fingerprint})
}

// off removes our table and what would load it.
func (f *firewall) off(ctx context.Context) error {
	u, err := f.host.Units.Unit(ctx, unit)
	if err != nil {
		return err
	}
	if u.File == "enabled" {
		if err := f.host.Units.Disable(ctx, unit); err != nil {
			return err
		}
	}
	if c, err := f.checkKernel(); err != nil {
		return err
	} else if c.diff != "" {
		if err := f.nft(ctx, remove); err != nil {
			return err
		}
	}
	for _, file := range append(f.files, conffile.File{Path: recordPath, Absent: true}) {
		if err := conffile.Apply(f.host, &file); err != nil {
			return err
		}
	}
	return f.host.Units.DaemonReload(ctx)
}

func (f *firewall) nft(ctx context.Context, rules string) error {
	_, err := command.Run(ctx, f.host, host.Command{Path: "nft", Args: []string{"-f", "-"}, Stdin: strings.NewReader(rules), Timeout: nftTimeout})
	if err != nil {
		return errs.New(errs.Internal, "cannot load the firewall: %w", err).WithHint("see that package nftables is installed and the kernel has nf_tables")
	}
	return nil
}
