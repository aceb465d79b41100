package dnszone_test

import (
	"bytes"
	"fmt"
	"log/slog"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/state"
)

// fataler is what tests of all kinds have.
type fataler interface{ Fatalf(string, ...any) }

// world is a state that a log makes.
type world struct {
	t     fataler
	store *state.Store
	fsm   *fsm.FSM
	index uint64
	// saved is an earlier state to go back to.
	saved []byte
}

// newWorld has a cluster with a zone, a managed network and one whose provider gives the addresses.
func newWorld(t fataler) *world {
	w := &world{t: t, store: state.New()}
	w.fsm = fsm.New(w.store, fsm.Level, slog.New(slog.DiscardHandler))
	w.fsm.OnFatal(func(err error) { t.Fatalf("stopped: %v", err) })
	w.apply(&raftlogv1.Command{Kind: &raftlogv1.Command_InitCluster{InitCluster: &raftlogv1.InitCluster{
		Cluster: &provisionrv1.Cluster{Id: "c", Name: "c", FeatureLevel: fsm.Level, SerialBase: 1<<32 - 10},
		Objects: []*provisionrv1.Object{
			zoneObject("default", &provisionrv1.ZoneSpec{Domain: "p.internal"}),
			networkObject("local", &provisionrv1.NetworkSpec{Cidr: "10.88.0.0/16", Managed: true, Provider: "local"}),
			networkObject("far", &provisionrv1.NetworkSpec{Cidr: "10.99.0.0/26", Provider: "local"}),
			{Kind: &provisionrv1.Object_Provider{Provider: &provisionrv1.Provider{Metadata: &provisionrv1.Metadata{Name: "local"},
				Spec: &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Local{Local: &provisionrv1.LocalProvider{Owner: "s1"}}}}}},
		},
	}}})
	w.apply(putMember("s1", "10.88.0.1"))
	return w
}

// apply applies commands in one entry; those that make no sense are refused.
func (w *world) apply(commands ...*raftlogv1.Command) []fsm.Result {
	entry := &raftlogv1.Entry{}
	for _, c := range commands {
		entry.Requests = append(entry.Requests, &raftlogv1.Request{Command: c, Time: &timestamppb.Timestamp{Seconds: int64(w.index)}})
	}
	data, err := proto.Marshal(entry)
	if err != nil {
		w.t.Fatalf("marshal: %v", err)
	}
	w.index++
	return w.fsm.Apply(w.index, data)
}

func (w *world) must(commands ...*raftlogv1.Command) {
	for i, r := range w.apply(commands...) {
		if r.Err != nil {
			w.t.Fatalf("%v: %v", commands[i], r.Err)
		}
	}
}

func (w *world) save() {
	var b bytes.Buffer
	if err := w.store.Read().Save(&b); err != nil {
		w.t.Fatalf("save: %v", err)
	}
	w.saved = b.Bytes()
}

// restore goes back to the saved state and begins an incarnation whose serials are above all before, as a restored cluster
// does.
func (w *world) restore(between func()) {
	if w.saved == nil {
		return
	}
	left := w.store.Read().Cluster()
	if err := w.fsm.Restore(bytes.NewReader(w.saved)); err != nil {
		w.t.Fatalf("restore: %v", err)
	}
	between()
	saved := w.store.Read().Cluster()
	base := saved.GetSerialBase() + uint32(saved.GetZoneIndex())
	if other := left.GetSerialBase() + uint32(left.GetZoneIndex()); int32(other-base) > 0 {
		base = other
	}
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_BeginIncarnation{BeginIncarnation: &raftlogv1.BeginIncarnation{
		Incarnation: left.GetIncarnation() + 1, SerialBase: base + 1,
	}}})
}

func zoneObject(name string, spec *provisionrv1.ZoneSpec) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{Metadata: &provisionrv1.Metadata{Name: name}, Spec: spec}}}
}

func networkObject(name string, spec *provisionrv1.NetworkSpec) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Network{Network: &provisionrv1.Network{Metadata: &provisionrv1.Metadata{Name: name}, Spec: spec}}}
}

func poolObject(name string, spec *provisionrv1.PoolSpec) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Pool{Pool: &provisionrv1.Pool{Metadata: &provisionrv1.Metadata{Name: name}, Spec: spec}}}
}

func apply(objects ...*provisionrv1.Object) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{ApplyObjects: &raftlogv1.ApplyObjects{Objects: objects}}}
}

func putMember(name, host string) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: &provisionrv1.Member{
		Metadata: &provisionrv1.Metadata{Name: name}, DnsAddress: host + ":53", FeatureLevel: fsm.Level}}}}
}

func create(id, pool string, index uint32, generation uint64, heir bool) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_CreateMachine{CreateMachine: &raftlogv1.CreateMachine{
		Id: id, Pool: pool, Index: index, PoolGeneration: generation, Heir: heir}}}
}

func launch(id string, attempt uint32) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_BeginLaunch{BeginLaunch: &raftlogv1.BeginLaunch{
		Launch: &provisionrv1.LaunchRequest{MachineId: id, Attempt: attempt}}}}
}

func phase(id string, to, from provisionrv1.Phase) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_SetPhase{SetPhase: &raftlogv1.SetPhase{Id: id, To: to, From: []provisionrv1.Phase{from}}}}
}

func report(id, agent string, facts *provisionrv1.Facts) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_ReportMachine{ReportMachine: &raftlogv1.ReportMachine{
		Id: id, Agent: &provisionrv1.AgentStatus{Version: agent}, Facts: facts}}}
}

func remove(kind, name string) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_DeleteObject{DeleteObject: &raftlogv1.DeleteObject{Kind: kind, Name: name}}}
}

// pick draws one of some values.
func pick[T any](t *rapid.T, label string, values ...T) T {
	return rapid.SampledFrom(values).Draw(t, label)
}

// drawCommand draws commands that mostly make sense, about few machines so that they meet each other.
func drawCommand(t *rapid.T, s *state.Snapshot) *raftlogv1.Command {
	pool := pick(t, "pool", "a", "b", "c")
	id := fmt.Sprintf("m-%d", rapid.IntRange(1, 12).Draw(t, "machine"))
	m := s.Machine(id)
	slot := s.Slot(fmt.Sprintf("%s-%d", pool, rapid.IntRange(1, 4).Draw(t, "slot")))
	generation := s.Pool(pool).GetMetadata().GetGeneration()
	if m == nil && rapid.IntRange(0, 3).Draw(t, "fresh") > 0 {
		return create(id, pool, max(1, slot.GetIndex()), generation, slot.GetHolder() != "")
	}
	switch rapid.IntRange(0, 20).Draw(t, "command") {
	case 0, 1, 2:
		return apply(poolObject(pool, drawPool(t)))
	case 3:
		return apply(zoneObject(pick(t, "zone", "default", "other"), &provisionrv1.ZoneSpec{
			Domain: pick(t, "domain", "p.internal", "p.internal", "example.org"), Ttl: pick[uint32](t, "ttl", 0, 0, 0, 60),
			Records: drawRecords(t), Dnssec: pick(t, "dnssec", "", "", "presigned", "online"),
		}))
	case 4:
		return apply(networkObject(pick(t, "network", "far", "other"), &provisionrv1.NetworkSpec{
			Cidr: pick(t, "cidr", "", "10.99.0.0/26", "10.99.0.64/26", "10.99.0.0/24", "2001:db8:0:1::/80"), Provider: "local",
			Reverse: pick(t, "reverse", "", "classless"),
		}))
	case 5:
		return pick(t, "member", putMember("s2", "10.88.0.2"), putMember("s2", "10.88.0.3"), putMember("s1", "10.88.0.1"),
			&raftlogv1.Command{Kind: &raftlogv1.Command_RemoveMember{RemoveMember: &raftlogv1.RemoveMember{Name: "s2"}}})
	case 6:
		return remove(pick(t, "kind", "pools", "machines", "zones", "networks"), pick(t, "name", pool, id, "other", "far"))
	case 7, 8:
		return launch(id, m.GetStatus().GetAttempt()+1)
	case 9, 10, 11:
		return phase(id, provisionrv1.Phase_PHASE_READY, m.GetStatus().GetPhase())
	case 12, 13:
		c := phase(id, m.GetStatus().GetPhase(), m.GetStatus().GetPhase())
		c.GetSetPhase().Address = pick(t, "address", "", "10.99.0.5", "10.99.0.70", "10.1.1.1", "2001:db8:0:1::5")
		c.GetSetPhase().Address6 = pick(t, "address6", "", "2001:db8:0:1::6", "2001:db8:0:2::6", "2001:db8:0:2::7")
		return c
	case 14:
		return phase(id, pick(t, "phase", provisionrv1.Phase_PHASE_TERMINATING, provisionrv1.Phase_PHASE_DEGRADED), m.GetStatus().GetPhase())
	case 15:
		return phase(id, provisionrv1.Phase_PHASE_GONE, m.GetStatus().GetPhase())
	case 16:
		return &raftlogv1.Command{Kind: &raftlogv1.Command_HandOver{HandOver: &raftlogv1.HandOver{
			Slot: slot.GetMetadata().GetName(), Holder: slot.GetHolder(), Heir: slot.GetHeir()}}}
	case 17:
		return &raftlogv1.Command{Kind: &raftlogv1.Command_Quarantine{Quarantine: &raftlogv1.Quarantine{Id: id}}}
	case 18:
		return &raftlogv1.Command{Kind: &raftlogv1.Command_ForgetMachine{ForgetMachine: &raftlogv1.ForgetMachine{Id: id}}}
	case 19:
		return &raftlogv1.Command{Kind: &raftlogv1.Command_ScalePool{ScalePool: &raftlogv1.ScalePool{
			Name: pool, Size: uint32(rapid.IntRange(0, 4).Draw(t, "size"))}}}
	}
	return report(id, pick(t, "agent", "1", "2"), &provisionrv1.Facts{
		Kernel: pick(t, "kernel", "6.1", "6.12"), Cpus: pick[uint32](t, "cpus", 1, 2), SshHostKeys: drawHostKeys(t),
	})
}

func drawHostKeys(t *rapid.T) []string {
	return rapid.SliceOfN(rapid.SampledFrom([]string{"ssh-ed25519 AAAA", "ssh-ed25519 AAAA x", "ssh-rsa AAAB", "other AAAA", "ssh-rsa !"}), 0, 3).Draw(t, "host keys")
}

func drawPool(t *rapid.T) *provisionrv1.PoolSpec {
	return &provisionrv1.PoolSpec{
		Size: uint32(rapid.IntRange(0, 4).Draw(t, "size")), Zone: pick(t, "zone", "", "", "", "other"),
		Network: pick(t, "network", "", "", "far"), Aliases: rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y", "a"}), 0, 2).Draw(t, "aliases"),
		Roles:   rapid.SliceOfN(rapid.SampledFrom([]string{"db", "web", "No"}), 0, 2).Draw(t, "roles"),
		Records: drawRecords(t), Endpoints: rapid.SliceOfN(rapid.SampledFrom([]*provisionrv1.PoolEndpoint{
			{Service: "http", Port: 80}, {Service: "dns", Protocol: "udp", Port: 53}, {Service: "http", Port: 81}}), 0, 2).Draw(t, "endpoints"),
	}
}

func drawRecords(t *rapid.T) []*provisionrv1.StaticRecord {
	return rapid.SliceOfN(rapid.SampledFrom([]*provisionrv1.StaticRecord{
		{Name: "w", Addresses: []string{"10.88.0.9", "10.99.0.5"}}, {Name: "w", Addresses: []string{"10.88.0.2", "10.88.0.2"}},
		{Name: "v.w", Cname: "a"}, {Name: "v.w", Text: []string{"hello", "world"}}, {Name: "@", Text: []string{"apex"}},
		{Name: "@", Caa: []string{`0 issue "ca.example.net"`}}, {Name: "_x._tcp.w", Services: []*provisionrv1.ServiceRecord{{Port: 1, Target: "w"}}},
		{Name: "c-2", Addresses: []string{"2001:db8:0:1::5"}}, {Name: "z", Cname: "example.org."},
	}), 0, 3).Draw(t, "records")
}
