package firewall

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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
	nftTimeout = 30 * time.Second
	maxRecord  = 4 << 10
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
	f := &firewall{host: h, enabled: s.Pool.GetFirewall().GetEnabled(), kernel: fingerprint}
	if f.enabled {
		f.rules, f.broken = render(s)
	}
	f.files = []conffile.File{
		{Path: rulesPath, Content: []byte(f.rules), Mode: 0o600, Absent: !f.enabled},
		{Path: unitPath, Content: []byte(bootUnit), Absent: !f.enabled},
	}
	f.seen = make([]conffile.Seen, len(f.files))
	return []converge.Resource{f}
}

type firewall struct {
	host    *host.Host
	enabled bool
	rules   string
	// broken is why there are no rules.
	broken error
	files  []conffile.File
	seen   []conffile.Seen
	// kernel returns the fingerprint of our table, "" if there is none.
	kernel func() (string, error)
}

// record ties the table in the kernel to the rules that it was made from.
type record struct {
	// Rules is the SHA-256 of the rules, Kernel the fingerprint taken after they were loaded; both hexadecimal.
	Rules  string `json:"rules"`
	Kernel string `json:"kernel"`
}

// Name implements converge.Resource.
func (f *firewall) Name() string { return "firewall/nftables" }

// After implements converge.Ordered: a package brings nft.
func (f *firewall) After() []string { return []string{"package"} }

// Check implements converge.Resource.
func (f *firewall) Check(ctx context.Context) (converge.Diff, error) {
	if f.broken != nil {
		return converge.Diff{}, f.broken
	}
	var diffs []string
	for i := range f.files {
		d, err := f.checkFile(i)
		if err != nil {
			return converge.Diff{}, err
		}
		diffs = append(diffs, d)
	}
	d, err := f.checkKernel()
	if err != nil {
		return converge.Diff{}, err
	}
	diffs = append(diffs, d)
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
	old, err := conffile.Read(f.host, rulesPath, 1<<20)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if shown := textdiff.Contents("table inet "+table, old, file.Content, false); shown != "" {
		return shown, nil
	}
	return d, nil
}

// checkKernel compares the table in the kernel with the one that was loaded last.
func (f *firewall) checkKernel() (string, error) {
	now, err := f.kernel()
	if !f.enabled {
		if err == nil && now != "" {
			return "table inet " + table + ": exists, wanted absent", nil
		}
		return "", nil // a kernel that cannot even be asked has no table
	}
	if err != nil {
		return "", err
	}
	if now == "" {
		return "table inet " + table + ": missing in the kernel", nil
	}
	last, err := f.readRecord()
	switch {
	case err != nil:
		return "", err
	case last.Rules != sum(f.rules):
		return "table inet " + table + ": was loaded from other rules", nil
	case last.Kernel != now:
		return "table inet " + table + ": changed from outside", nil
	}
	return "", nil
}

func (f *firewall) readRecord() (record, error) {
	var r record
	content, err := conffile.Read(f.host, recordPath, maxRecord)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	if json.Unmarshal(content, &r) != nil {
		return record{}, nil // torn: the table is loaded again
	}
	return r, nil
}

func sum(rules string) string {
	s := sha256.Sum256([]byte(rules))
	return hex.EncodeToString(s[:])
}

// Apply implements converge.Resource.
func (f *firewall) Apply(ctx context.Context) error {
	if f.broken != nil {
		return f.broken
	}
	if !f.enabled {
		return f.off(ctx)
	}
	differs, err := f.checkKernel()
	if err != nil {
		return err
	}
	if differs != "" {
		if err := f.load(ctx); err != nil {
			return err
		}
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
	if err := f.nft(ctx, f.rules); err != nil {
		return err
	}
	now, err := f.kernel()
	if err != nil {
		return err
	}
	if now == "" {
		return errs.New(errs.Internal, "cannot load the firewall: nft succeeded, and the kernel has no table inet %s", table)
	}
	content, err := json.Marshal(record{Rules: sum(f.rules), Kernel: now})
	if err != nil {
		return err
	}
	return conffile.Apply(f.host, &conffile.File{Path: recordPath, Content: append(content, '\n'), Mode: 0o600})
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
	if d, err := f.checkKernel(); err != nil {
		return err
	} else if d != "" {
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
