package firewall

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// sshPort is what an administrator comes in by when all else fails.
const sshPort = 22

// Guard implements converge.Guarded. Machines that join or leave a pool are no new policy.
func (f *firewall) Guard() converge.Guard {
	g := converge.Guard{Fingerprint: "off", Inbound: []uint16{sshPort}}
	if f.enabled {
		g.Fingerprint = "broken"
		if f.render() == nil {
			g.Fingerprint = f.policy
		}
	}
	return g
}

// Admits implements confirm.Admitter: whom no rule allows in is kept out on purpose. Whom one allows and another drops is a
// contradiction, which the change has to prove harmless.
func (f *firewall) Admits(port uint16, source netip.Addr) bool {
	return !f.enabled || slices.ContainsFunc(f.state.Pool.GetFirewall().GetRules(), func(r *agentv1.FirewallRule) bool {
		return !r.Drop && r.Protocol == "tcp" && f.isSource(r, source) && slices.ContainsFunc(r.Ports, func(p *agentv1.PortRange) bool {
			return p.First <= uint32(port) && uint32(port) <= p.Last
		})
	})
}

func (f *firewall) isSource(r *agentv1.FirewallRule, source netip.Addr) bool {
	v4, v6, err := sources(r.Cidrs)
	if err != nil {
		return false
	}
	within := func(p netip.Prefix) bool { return p.Contains(source) }
	if slices.ContainsFunc(v4, within) || slices.ContainsFunc(v6, within) {
		return true
	}
	if vpn, err := netip.ParsePrefix(f.state.Machine.GetVpn().GetCidr()); r.Vpn && err == nil && vpn.Contains(source) {
		return true
	}
	for pool, members := range f.state.Members {
		for _, m := range members {
			if a, err := netip.ParseAddr(m.Address); err == nil && a == source && (slices.Contains(r.Pools, pool) || slices.Contains(r.Machines, m.Name)) {
				return true
			}
		}
	}
	return false
}

// Undo implements converge.Guarded: the policy that was applied last comes back, or the machine has none again.
func (f *firewall) Undo(context.Context) (converge.Undo, error) {
	var u converge.Undo
	for _, path := range []string{rulesPath, recordPath, unitPath, wantsPath} {
		saved, err := conffile.Save(f.host, path)
		if err != nil {
			return converge.Undo{}, err
		}
		u.Files = append(u.Files, saved)
	}
	if u.Files[0].Absent {
		u.Commands = [][]string{{"nft", "add", "table", "inet", table}, {"nft", "delete", "table", "inet", table}}
	} else {
		u.Commands = [][]string{{"nft", "-f", rulesPath}}
	}
	u.Commands = append(u.Commands, []string{"systemctl", "daemon-reload"})
	return u, nil
}

// record ties the table in the kernel to the rules that it was made from.
type record struct {
	// Rules is the SHA-256 of the rules without members, Kernel the fingerprint taken after they were loaded; both hexadecimal.
	Rules  string `json:"rules"`
	Kernel string `json:"kernel"`
}

func readRecord(h *host.Host) (record, error) {
	var r record
	content, err := conffile.Read(h, recordPath, maxRecord)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	if json.Unmarshal(content, &r) != nil {
		return record{}, nil // torn: the table is loaded again
	}
	return r, nil
}

func writeRecord(h *host.Host, r record) error {
	content, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return conffile.Apply(h, &conffile.File{Path: recordPath, Content: append(content, '\n'), Mode: 0o600})
}

// sum is the SHA-256 of a text, in hexadecimal.
func sum[T string | []byte](text T) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}
