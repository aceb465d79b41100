package fsm

import (
	"encoding/base64"
	"fmt"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Bounds of facts; what is above them is cut.
const (
	maxHostKeys = 8
	maxHostKey  = 2048
	maxFact     = 255
)

// validVpnKey reports whether a text is a WireGuard public key: the base64 of 32 bytes, in its one spelling.
func validVpnKey(text string) bool {
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	return err == nil && len(key) == 32 && len(text) == 44
}

// setFacts records what an agent says about its machine, which the caller writes. Two machines that say that one WireGuard key
// is theirs are clones: what the second says is not believed.
func (a *applier) setFacts(m *provisionrv1.Machine, facts *provisionrv1.Facts) {
	facts = cleanFacts(facts)
	if key := facts.GetVpnPublicKey(); key != "" {
		if owner := a.vpnKeyOwner(m, key); owner != "" {
			a.event("FactsRefused", fmt.Sprintf("%s says that the vpn key of %s is its own", m.GetSpec().GetSlot(), owner), true, "", m)
			return
		}
	}
	if !proto.Equal(m.GetStatus().GetFacts(), facts) {
		m.Status.Facts = facts
	}
	a.joinVpn(a.Pool(m.GetSpec().GetPool()), m)
}

// vpnKeyOwner names who else has a key, or returns "". Before a machine is in a Vpn, joinVpn looks at the peers.
func (a *applier) vpnKeyOwner(m *provisionrv1.Machine, key string) string {
	for other := range a.MachinesWithVpnKey(key) {
		if other.GetMetadata().GetName() != m.GetMetadata().GetName() && other.GetStatus().GetPhase() != provisionrv1.Phase_PHASE_GONE {
			return other.GetSpec().GetSlot() + " (" + other.GetMetadata().GetName() + ")"
		}
	}
	for p := range a.VpnPeersOf(m.GetStatus().GetVpn()) {
		if p.GetSpec().GetPublicKey() == key {
			return "vpn peer " + p.GetMetadata().GetName()
		}
	}
	return ""
}

// cleanFacts copies facts within bounds.
func cleanFacts(f *provisionrv1.Facts) *provisionrv1.Facts {
	out := &provisionrv1.Facts{
		OsRelease: clip(f.GetOsRelease(), maxFact), Kernel: clip(f.GetKernel(), maxFact), Architecture: clip(f.GetArchitecture(), maxName),
		RebootRequired: clip(f.GetRebootRequired(), maxDetail), Cpus: f.GetCpus(), MemoryMib: f.GetMemoryMib(),
	}
	for _, key := range f.GetSshHostKeys()[:min(len(f.GetSshHostKeys()), maxHostKeys)] {
		if len(key) <= maxHostKey {
			out.SshHostKeys = append(out.SshHostKeys, valid(key))
		}
	}
	if validVpnKey(f.GetVpnPublicKey()) {
		out.VpnPublicKey = f.GetVpnPublicKey()
	}
	return out
}
