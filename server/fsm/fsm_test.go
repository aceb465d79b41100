package fsm

import (
	"bytes"
	"log/slog"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

func TestNamesHaveOneOwner(t *testing.T) {
	for name, test := range map[string]struct {
		first, second *raftlogv1.Command
	}{
		"alias of two pools":      {put(pool("a", 1, "web")), put(pool("b", 1, "web"))},
		"pool named as an alias":  {put(pool("a", 1, "b")), put(pool("b", 1))},
		"pool named as a machine": {put(pool("a", 2)), put(pool("a-2", 1))},
		"machine named as a pool": {put(pool("a-2", 1)), put(pool("a", 2))},
		"record named as a pool":  {put(pool("a", 1)), put(zone("default", "provisionr.internal", "a"))},
		"machine named as record": {put(zone("default", "provisionr.internal", "a-3")), put(pool("a", 3))},
		"two records":             {put(pool("a", 1)), put(zone("other", "example.org", "x", "x"))},
		"two zones of one domain": {put(pool("a", 1)), put(zone("other", "provisionr.internal"))},
		"overlapping networks":    {put(pool("a", 1)), put(network("other", "10.88.0.0/16"))},
		"in one request":          {put(pool("z", 1)), put(pool("a", 1, "x"), pool("b", 1, "x"))},
		"scaled into a name":      {put(pool("a", 1), pool("a-2", 1)), scale("a", 2)},
	} {
		t.Run(name, func(t *testing.T) {
			w := initialised(t)
			w.must(test.first)
			before := w.store.Read()
			r := w.apply(test.second)
			if r[0].Err == nil || (r[0].Err.Kind != errs.Conflict && r[0].Err.Kind != errs.Invalid) {
				t.Fatalf("result %v, want a refusal", r[0].Err)
			}
			after := w.store.Read()
			for p := range after.Pools() {
				if !proto.Equal(p, before.Pool(p.GetMetadata().GetName())) {
					t.Errorf("the refused request left %v", p)
				}
			}
		})
	}
}

func TestNamesAreFreedWithTheirOwner(t *testing.T) {
	w := initialised(t)
	w.must(put(pool("a", 2, "web")))
	w.must(put(pool("a", 1)))
	w.must(put(pool("b", 1, "web", "a-2")))
	w.must(remove("pools", "b"))
	w.must(put(pool("web", 1), pool("a", 2)))
}

func TestReferences(t *testing.T) {
	w := initialised(t)
	p := pool("a", 1)
	p.GetPool().Spec.Provider = "nosuch"
	w.refuse(errs.Invalid, put(p))
	p.GetPool().Spec.Provider, p.GetPool().Spec.Zone = "", "nosuch"
	w.refuse(errs.Invalid, put(p))
	p.GetPool().Spec.Zone, p.GetPool().Spec.Network = "", "nosuch"
	w.refuse(errs.Invalid, put(p))
	// Objects of one request may name each other in any order.
	p.GetPool().Spec.Zone, p.GetPool().Spec.Network = "mine", ""
	w.must(put(p, zone("mine", "example.org")))
	w.refuse(errs.Conflict, remove("zones", "mine"))
	w.refuse(errs.Conflict, remove("networks", "local"))
	w.refuse(errs.Conflict, remove("providers", "local"))
	w.refuse(errs.Conflict, remove("zones", "default"))
	w.must(remove("pools", "a"))
	w.must(remove("zones", "mine"))
	w.refuse(errs.NotFound, remove("zones", "mine"))
	w.refuse(errs.Invalid, remove("slots", "a-1"))
	w.refuse(errs.Conflict, remove("users", "admin"))
	w.refuse(errs.Conflict, put(user("admin", provisionrv1.Role_ROLE_VIEWER)))
}

func TestGenerationAndPrecondition(t *testing.T) {
	w := initialised(t)
	w.must(put(pool("a", 1)))
	first := w.store.Read().Pool("a")
	w.must(put(pool("a", 1)))
	if again := w.store.Read().Pool("a"); !proto.Equal(first, again) {
		t.Errorf("applying the same changed %v to %v", first, again)
	}
	labelled := pool("a", 1)
	labelled.GetPool().Metadata.Labels = map[string]string{"x": "y"}
	w.must(put(labelled))
	if m := w.store.Read().Pool("a").GetMetadata(); m.GetGeneration() != 1 || proto.Equal(m.GetVersion(), first.GetMetadata().GetVersion()) {
		t.Errorf("a label gave %v", m)
	}
	w.must(scale("a", 2))
	if g := w.store.Read().Pool("a").GetMetadata().GetGeneration(); g != 2 {
		t.Errorf("generation %d after a change of spec, want 2", g)
	}
	stale := pool("a", 3)
	stale.GetPool().Metadata.Version = first.GetMetadata().GetVersion()
	w.refuse(errs.Conflict, put(stale))
}

func TestLifeOfAMachine(t *testing.T) {
	w := initialised(t)
	w.must(put(pool("zk", 1)))
	w.refuse(errs.Conflict, create("m-a", "zk", 1, 7))
	w.refuse(errs.Conflict, create("m-a", "zk", 2, 1))
	w.must(create("m-a", "zk", 1, 1))
	w.refuse(errs.Exists, create("m-a", "zk", 1, 1))
	w.refuse(errs.Conflict, create("m-b", "zk", 1, 1))
	m := w.store.Read().MachineNamed("zk-1.provisionr.internal")
	if m.GetMetadata().GetName() != "m-a" || m.GetStatus().GetAddress() != "10.88.0.2" {
		t.Fatalf("machine %v", m)
	}
	w.refuse(errs.Conflict, move("m-a", booting, pending))
	w.refuse(errs.Conflict, launch("m-a", 2))
	w.must(launch("m-a", 1))
	w.must(launch("m-a", 1))
	w.refuse(errs.Denied, bind("m-a", 2, "k1"))
	w.must(bind("m-a", 1, "k1"))
	w.must(bind("m-a", 1, "k1"))
	w.refuse(errs.Conflict, move("m-a", booting, pending))
	w.must(move("m-a", booting, launching))
	w.must(move("m-a", ready, booting, joining, converging))
	w.refuse(errs.Conflict, move("m-a", booting, ready))
	w.refuse(errs.Conflict, move("m-a", gone, ready))
	w.must(remove("machines", "zk-1"))
	w.must(remove("machines", "m-a"))
	if w.store.Read().Machine("m-a").GetMetadata().GetDeleted() == nil {
		t.Error("no tombstone")
	}
	w.must(remove("pools", "zk"))
	w.refuse(errs.Conflict, put(pool("zk", 1)))
	w.refuse(errs.Conflict, scale("zk", 5))
	zoneBefore := w.store.Read().Cluster().GetZoneIndex()
	w.die("m-a", ready)
	s := w.store.Read()
	if s.Pool("zk") != nil || s.Slot("zk-1") != nil || s.Claim("local", "10.88.0.2").GetMachine() != "" || s.Cluster().GetZoneIndex() <= zoneBefore {
		t.Errorf("left behind: %v %v %v", s.Pool("zk"), s.Slot("zk-1"), s.Claim("local", "10.88.0.2"))
	}
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_ForgetMachine{ForgetMachine: &raftlogv1.ForgetMachine{Id: "m-a"}}})
	if w.store.Read().Machine("m-a") != nil {
		t.Error("a forgotten machine is there")
	}
}

func TestAddressesRestAsLongAsPossible(t *testing.T) {
	w := initialised(t)
	w.must(put(pool("a", 10)))
	var got []string
	next := func(id string, index uint32) {
		w.serving(id, "a", index)
		got = append(got, w.store.Read().Machine(id).GetStatus().GetAddress())
	}
	for i, id := range []string{"m-1", "m-2", "m-3"} {
		next(id, uint32(i+1))
	}
	w.die("m-3", ready)
	w.die("m-1", ready)
	for i, id := range []string{"m-4", "m-5", "m-6", "m-7"} {
		next(id, uint32(i+4))
	}
	want := []string{"10.88.0.2", "10.88.0.3", "10.88.0.4", "10.88.0.5", "10.88.0.6", "10.88.0.4", "10.88.0.2"}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("addresses %v, want %v", got, want)
			break
		}
	}
	w.refuse(errs.Exhausted, create("m-8", "a", 9, 1))
	w.refuse(errs.Conflict, put(network("local", "10.88.0.0/30")))
	w.must(put(network("local", "10.88.0.0/24")))
	w.must(create("m-8", "a", 9, 2-1))
}

func TestSecondKeyQuarantines(t *testing.T) {
	w := initialised(t)
	w.must(put(pool("a", 1)))
	w.must(create("m-1", "a", 1, 1))
	w.must(launch("m-1", 1))
	w.must(bind("m-1", 1, "k1"))
	w.refuse(errs.Denied, bind("m-1", 1, "k2"))
	if w.store.Read().Machine("m-1").GetStatus().GetQuarantined() == "" {
		t.Error("not quarantined")
	}
	w.refuse(errs.Denied, bind("m-1", 1, "k1"))
	w.refuse(errs.Denied, bind("m-9", 1, "k1"))
}

func TestRepeatedRequestHasItsFirstResult(t *testing.T) {
	w := initialised(t)
	request := func(id string, c *raftlogv1.Command) *raftlogv1.Request {
		return &raftlogv1.Request{Id: id, Command: c}
	}
	first := w.applyEntry(&raftlogv1.Entry{Requests: []*raftlogv1.Request{
		request("x", put(pool("a", 1))), request("x", put(pool("a", 1))), request("bad", scale("nosuch", 1))}})
	again := w.applyEntry(&raftlogv1.Entry{Requests: []*raftlogv1.Request{request("x", scale("a", 9)), request("bad", put(pool("nosuch", 1)))}})
	if !proto.Equal(first[0].Version, first[1].Version) || !proto.Equal(first[0].Version, again[0].Version) || again[0].Err != nil {
		t.Errorf("repetition within an entry %v, later %v, first %v", first[1], again[0], first[0])
	}
	if again[1].Err == nil || again[1].Err.Kind != errs.NotFound || again[1].Err.Message != first[2].Err.Message {
		t.Errorf("repetition of a refusal: %v, first %v", again[1].Err, first[2].Err)
	}
	if got := w.store.Read().Version().GetIndex(); got != w.index {
		t.Errorf("version %d after an entry of repetitions, want %d", got, w.index)
	}
}

func TestWhatIsNotUnderstoodStops(t *testing.T) {
	known, err := proto.Marshal(&raftlogv1.Entry{Requests: []*raftlogv1.Request{{Command: scale("a", 1)}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, entry := range map[string][]byte{
		"garbage": {0xff, 0xff, 0xff},
		// Field 1000 of Command: a command of the future.
		"unknown command": {0x0a, 0x06, 0x2a, 0x04, 0xc2, 0x3e, 0x01, 0x00},
		"feature level":   {0x0a, 0x02, 0x20, 0x63},
	} {
		t.Run(name, func(t *testing.T) {
			w := initialised(t)
			if r := w.fsm.Apply(2, entry); r != nil || w.fatal == nil || errs.HintOf(w.fatal) == "" {
				t.Fatalf("results %v, fatal %v", r, w.fatal)
			}
			if r := w.fsm.Apply(3, known); r != nil {
				t.Error("a stopped FSM goes on")
			}
			if _, err := w.fsm.Snapshot(); err == nil {
				t.Error("a stopped FSM gives a snapshot")
			}
		})
	}
	w := initialised(t)
	w.refuse(errs.Invalid, &raftlogv1.Command{})
	w.refuse(errs.Invalid, nil)
	if w.fatal != nil {
		t.Errorf("an empty command stops: %v", w.fatal)
	}
	other := New(state.New(), 0, slog.New(slog.DiscardHandler))
	if err := other.Restore(bytes.NewReader(w.snapshot())); !errs.Is(err, errs.Unsupported) {
		t.Errorf("a snapshot of a newer level: %v", err)
	}
}

func TestReports(t *testing.T) {
	w := initialised(t)
	w.must(put(pool("a", 2)))
	w.serving("m-1", "a", 1)
	w.serving("m-2", "a", 2)
	report := func(state provisionrv1.ProofState) *raftlogv1.Command {
		return &raftlogv1.Command{Kind: &raftlogv1.Command_ReportMachine{ReportMachine: &raftlogv1.ReportMachine{
			Id: "m-1", Agent: &provisionrv1.AgentStatus{PoolGeneration: 1, Converged: true},
			Proofs: []*provisionrv1.Proof{{Machine: "m-2", Assumption: "dns.forward", Observer: "m-9", State: state}, {Machine: "m-7", Assumption: "x", State: state}},
			Events: []*provisionrv1.Event{{Reason: "Drift", Machine: "m-2"}, {Reason: "Drift"}},
		}}}
	}
	w.must(report(provisionrv1.ProofState_PROOF_STATE_PROVEN))
	p := w.store.Read().Proof("m-2", "dns.forward", "m-1")
	if p == nil {
		t.Fatal("no proof, or by another than who reported it")
	}
	w.must(report(provisionrv1.ProofState_PROOF_STATE_PROVEN))
	if again := w.store.Read().Proof("m-2", "dns.forward", "m-1"); !proto.Equal(p.GetAt(), again.GetAt()) {
		t.Error("an unchanged proof has a new time")
	}
	w.must(report(provisionrv1.ProofState_PROOF_STATE_FAILED))
	var reasons []string
	seen := map[string]bool{}
	for e := range w.store.Read().Events(0) {
		reasons = append(reasons, e.GetReason())
		v := e.GetVersion().String()
		if seen[v] {
			t.Errorf("two events have the version %s", v)
		}
		seen[v] = true
		if e.GetReason() == "Drift" && e.GetMachine() != "m-1" {
			t.Errorf("an event about %s reported by m-1", e.GetMachine())
		}
	}
	if got := reasons[len(reasons)-3]; got != "ProofFailed" {
		t.Errorf("events %v, want ProofFailed before the drift", reasons)
	}
	if s := state.PoolStatus(w.store.Read(), w.store.Read().Pool("a")); s.GetReady() != 1 || s.GetState() != state.PoolProgressing {
		t.Errorf("status %v", s)
	}
	w.die("m-1", ready)
	if w.store.Read().Proof("m-2", "dns.forward", "m-1") != nil {
		t.Error("the proof of a machine that is gone is there")
	}
}

func TestJoinTokens(t *testing.T) {
	w := initialised(t)
	secret := bytes.Repeat([]byte{1}, 32)
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_PutJoinToken{PutJoinToken: &raftlogv1.PutJoinToken{Token: &raftlogv1.JoinToken{
		Id: "t1", SecretSha256: secret, Expires: timestamppb.New(start.Add(10e9))}}}})
	use := func(member string, secret []byte) *raftlogv1.Command {
		return &raftlogv1.Command{Kind: &raftlogv1.Command_UseJoinToken{UseJoinToken: &raftlogv1.UseJoinToken{Id: "t1", SecretSha256: secret, Member: member}}}
	}
	w.refuse(errs.Denied, use("s2", secret[1:]))
	w.must(use("s2", secret))
	w.must(use("s2", secret))
	w.refuse(errs.Denied, use("s3", secret))
	for range 10 {
		w.apply()
	}
	w.refuse(errs.Denied, use("s2", secret))
}

func TestIncarnationAndLevels(t *testing.T) {
	w := initialised(t)
	begin := &raftlogv1.Command{Kind: &raftlogv1.Command_BeginIncarnation{BeginIncarnation: &raftlogv1.BeginIncarnation{Incarnation: 2, SerialBase: 77}}}
	r := w.apply(begin)
	if r[0].Err != nil || r[0].Version.GetIncarnation() != 2 {
		t.Fatalf("result %v", r)
	}
	w.refuse(errs.Conflict, begin)
	w.refuse(errs.Conflict, &raftlogv1.Command{Kind: &raftlogv1.Command_SetFeatureLevel{SetFeatureLevel: &raftlogv1.SetFeatureLevel{}}})
	w.refuse(errs.Unsupported, &raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{
		Member: &provisionrv1.Member{Metadata: &provisionrv1.Metadata{Name: "old"}}}}})
	w.refuse(errs.Exists, initCommand())
	fresh := newWorld(t)
	fresh.refuse(errs.Conflict, put(pool("a", 1)))
}

func TestPhaseOrder(t *testing.T) {
	for _, test := range []struct {
		from, to provisionrv1.Phase
		attempts uint32
		want     bool
	}{
		{pending, launching, 0, false}, {pending, booting, 0, false}, {pending, terminating, 0, true}, {pending, gone, 0, true},
		{launching, joining, 1, true}, {joining, booting, 1, false}, {converging, ready, 1, true}, {ready, degraded, 1, true},
		{degraded, ready, 1, true}, {unreachable, ready, 1, true}, {ready, joining, 1, false}, {booting, failed, 1, true},
		{failed, ready, 1, false}, {failed, terminating, 1, true}, {failed, gone, 1, false}, {draining, ready, 1, false},
		{draining, terminating, 1, true}, {terminating, draining, 1, false}, {terminating, terminating, 1, true},
		{terminating, gone, 1, true}, {gone, gone, 1, false}, {gone, pending, 1, false}, {ready, 0, 1, false}, {ready, 99, 1, false},
	} {
		if got := mayMove(test.from, test.to, test.attempts); got != test.want {
			t.Errorf("from %s to %s after %d attempts: %v, want %v", test.from, test.to, test.attempts, got, test.want)
		}
	}
}
