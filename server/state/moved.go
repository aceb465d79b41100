package state

import (
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Moved says which field of a provider tells where its machines are and differs, as spec.aws.region; it is empty for none.
// Machines of a provider that has moved read as absent: they would be replaced, and run on unseen.
func Moved(before, after *provisionrv1.Provider) string {
	kind := kindOf(after)
	if kindOf(before) != kind {
		return "the kind"
	}
	b, a := before.GetSpec(), after.GetSpec()
	for _, f := range []struct{ name, before, after string }{
		{"owner", b.GetLocal().GetOwner(), a.GetLocal().GetOwner()},
		{"owner", b.GetQemu().GetOwner(), a.GetQemu().GetOwner()},
		{"owner", b.GetSim().GetOwner(), a.GetSim().GetOwner()},
		{"region", b.GetAws().GetRegion(), a.GetAws().GetRegion()},
		{"region", b.GetGce().GetRegion(), a.GetGce().GetRegion()},
		{"project", b.GetGce().GetProject(), a.GetGce().GetProject()},
		{"region", b.GetOpenstack().GetRegion(), a.GetOpenstack().GetRegion()},
		{"cloud", b.GetOpenstack().GetCloud(), a.GetOpenstack().GetCloud()},
	} {
		if f.before != f.after {
			return "spec." + kind + "." + f.name
		}
	}
	// A simulated cloud is in memory: another begins empty.
	if b.GetSim() != nil && !proto.Equal(b, a) {
		return "spec." + kind
	}
	return ""
}

// kindOf names the type of a provider as its field in a manifest.
func kindOf(p *provisionrv1.Provider) string {
	m := p.GetSpec().ProtoReflect()
	if f := m.WhichOneof(m.Descriptor().Oneofs().ByName("type")); f != nil {
		return f.JSONName()
	}
	return ""
}

// MachinesAt counts the machines of a provider that are not gone.
func MachinesAt(s *Snapshot, provider string) (n int) {
	for m := range s.Machines() {
		if m.GetSpec().GetProvider() == provider && m.GetStatus().GetPhase() != provisionrv1.Phase_PHASE_GONE {
			n++
		}
	}
	return n
}
