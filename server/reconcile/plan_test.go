package reconcile_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/reconcile"
	"github.com/provisionr/provisionr/server/state"
)

var (
	epoch  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	debian = &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}
)

// scene builds a view row by row. Machines are named after their slots: m-web-1.
type scene struct {
	store *state.Store
	tx    *state.Tx
	view  reconcile.View
}

func newScene(size uint32, change func(*provisionrv1.Pool)) *scene {
	s := &scene{store: state.New()}
	s.tx = s.store.Begin()
	s.view = reconcile.View{
		Listings: map[string]reconcile.Listing{"local": {Known: true, Started: epoch, Instances: map[string]provider.Instance{}}},
		Presence: map[string]reconcile.Presence{}, Ensured: map[string]uint64{"local": 1}, DownSince: map[string]time.Time{},
		Unexplained: map[string]time.Time{}, LaunchEnded: map[string]time.Time{}, Terminated: map[string]time.Time{},
		Refused: map[string]uint32{}, Pruned: map[string]time.Time{}, Unauthorized: map[string]string{},
		Firewalls: map[string]reconcile.EnsuredFirewall{}, Groups: map[string]reconcile.Groups{},
		DesiredHash: func(string) string { return "h" },
	}
	s.tx.Put(&provisionrv1.Network{
		Metadata: &provisionrv1.Metadata{Name: "local", Generation: 1}, Spec: &provisionrv1.NetworkSpec{Cidr: "10.88.0.0/24", Provider: "local"},
	})
	pool := &provisionrv1.Pool{
		Metadata: &provisionrv1.Metadata{Name: "web", Generation: 1},
		Spec:     &provisionrv1.PoolSpec{Size: size, Os: debian, Safety: &provisionrv1.Safety{}},
	}
	if change != nil {
		change(pool)
	}
	if pool.Spec.Hardware != nil {
		pool.Metadata.Generation++
	}
	s.tx.PutCluster(&provisionrv1.Cluster{Id: "c", FeatureLevel: 2})
	s.tx.Put(pool)
	for i := range size {
		s.slot(i+1, "", "")
	}
	return s
}

// slot writes a slot.
func (s *scene) slot(index uint32, holder, heir string) {
	name := fmt.Sprintf("web-%d", index)
	s.tx.Put(&provisionrv1.Slot{Metadata: &provisionrv1.Metadata{Name: name}, Pool: "web", Index: index, Holder: holder, Heir: heir})
}

// machine adds one in a phase since the epoch, ten minutes before it is planned.
func (s *scene) machine(index uint32, phase provisionrv1.Phase, change func(*provisionrv1.Machine)) *scene {
	slot := fmt.Sprintf("web-%d", index)
	m := &provisionrv1.Machine{
		Metadata: &provisionrv1.Metadata{Name: "m-" + slot},
		Spec: &provisionrv1.MachineSpec{
			Pool: "web", Slot: slot, Index: index, Provider: "local", Network: "local", Zone: "default", PoolGeneration: 1, Os: debian,
		},
		Status: &provisionrv1.MachineStatus{Phase: phase, Since: timestamppb.New(epoch)},
	}
	if phase >= provisionrv1.Phase_PHASE_LAUNCHING {
		m.Status.Launch, m.Status.Attempt = &provisionrv1.LaunchRequest{MachineId: "m-" + slot, Attempt: 1}, 1
	}
	if phase >= provisionrv1.Phase_PHASE_BOOTING {
		m.Status.ProviderId = "i-" + slot
		if phase != provisionrv1.Phase_PHASE_GONE {
			s.view.Listings["local"].Instances["m-"+slot] = provider.Instance{MachineID: "m-" + slot, ProviderID: "i-" + slot, State: provider.Running}
		}
	}
	if phase >= provisionrv1.Phase_PHASE_CONVERGING && phase <= provisionrv1.Phase_PHASE_UNREACHABLE {
		m.Status.SessionSeen = true
		m.Status.Deadline = timestamppb.New(epoch.Add(time.Hour))
		m.Status.Agent = &provisionrv1.AgentStatus{Converged: true, DesiredHash: "h"}
		s.view.Presence["m-"+slot] = reconcile.Presence{Connected: true}
	}
	if change != nil {
		change(m)
	}
	s.tx.Put(m)
	if phase != provisionrv1.Phase_PHASE_GONE {
		s.slot(index, m.Metadata.Name, "")
	}
	return s
}

func (s *scene) proof(observer, machine uint32, outcome provisionrv1.ProofState) *scene {
	s.tx.Put(&provisionrv1.Proof{
		Machine: fmt.Sprintf("m-web-%d", machine), Observer: fmt.Sprintf("m-web-%d", observer), Assumption: "dns", State: outcome, DesiredHash: "h",
	})
	return s
}

// plan returns the actions as text.
func (s *scene) plan(t *testing.T, now time.Time) []string {
	t.Helper()
	if s.tx != nil {
		if err := s.tx.Commit(); err != nil {
			t.Fatal(err)
		}
		s.store.Publish()
		s.tx = nil
	}
	s.view.Snapshot = s.store.Read()
	var out []string
	for _, a := range reconcile.Plan(s.view, now) {
		out = append(out, a.String())
	}
	return out
}

// silent makes an agent silent since so long before now.
func (s *scene) silent(index uint32, since time.Time) *scene {
	s.view.Presence[fmt.Sprintf("m-web-%d", index)] = reconcile.Presence{SilentSince: since}
	return s
}

// down makes the provider say that the machine does not run.
func (s *scene) down(index uint32) *scene {
	id := fmt.Sprintf("m-web-%d", index)
	delete(s.view.Listings["local"].Instances, id)
	s.view.DownSince[id] = epoch.Add(time.Minute)
	return s.listed(epoch.Add(9 * time.Minute))
}

func (s *scene) listed(at time.Time) *scene {
	l := s.view.Listings["local"]
	l.Started = at
	s.view.Listings["local"] = l
	return s
}

func TestPlan(t *testing.T) {
	const (
		pending     = provisionrv1.Phase_PHASE_PENDING
		launching   = provisionrv1.Phase_PHASE_LAUNCHING
		booting     = provisionrv1.Phase_PHASE_BOOTING
		joining     = provisionrv1.Phase_PHASE_JOINING
		converging  = provisionrv1.Phase_PHASE_CONVERGING
		ready       = provisionrv1.Phase_PHASE_READY
		degraded    = provisionrv1.Phase_PHASE_DEGRADED
		unreachable = provisionrv1.Phase_PHASE_UNREACHABLE
		terminating = provisionrv1.Phase_PHASE_TERMINATING
		gone        = provisionrv1.Phase_PHASE_GONE
		failed      = provisionrv1.Phase_PHASE_FAILED
		proven      = provisionrv1.ProofState_PROOF_STATE_PROVEN
		refuted     = provisionrv1.ProofState_PROOF_STATE_FAILED
		unprovable  = provisionrv1.ProofState_PROOF_STATE_UNPROVABLE
	)
	now := epoch.Add(10 * time.Minute)
	deleted := func(p *provisionrv1.Pool) { p.Metadata.Deleted = timestamppb.New(epoch) }
	unlaunched := func(m *provisionrv1.Machine) { m.Status.Launch = nil; m.Status.ProviderId = "" }
	unanswered := func(m *provisionrv1.Machine) { m.Status.ProviderId = "" }
	for name, test := range map[string]struct {
		scene *scene
		want  []string
	}{
		"free slots":        {newScene(2, nil).machine(1, ready, nil), []string{"create web-2"}},
		"held slot":         {newScene(1, nil).machine(1, terminating, unanswered).listed(epoch), []string{"terminate m-web-1"}},
		"gone frees a slot": {newScene(1, nil).machine(1, gone, nil), []string{"create web-1"}},
		"gone is forgotten": {newScene(0, nil).machine(1, gone, func(m *provisionrv1.Machine) { m.Status.Since = timestamppb.New(epoch.Add(-time.Hour)) }),
			[]string{"forget m-web-1"}},
		"pending begins":            {newScene(1, nil).machine(1, pending, nil), []string{"begin m-web-1"}},
		"pending waits for network": {func() *scene { s := newScene(1, nil).machine(1, pending, nil); clear(s.view.Ensured); return s }(), []string{"ensure local"}},
		"pending waits for the provider": {func() *scene {
			s := newScene(1, nil).machine(1, pending, nil)
			s.view.Listings["local"] = reconcile.Listing{}
			return s
		}(), nil},
		"launching is repeated": {newScene(1, nil).machine(1, launching, func(m *provisionrv1.Machine) { m.Status.Deadline = timestamppb.New(now.Add(1)) }), []string{"launch m-web-1"}},
		"launching too long": {newScene(1, nil).machine(1, launching, func(m *provisionrv1.Machine) { m.Status.Deadline = timestamppb.New(now) }),
			[]string{"fail m-web-1 to failed: the provider did not launch it in time"}},
		"beacon":  {newScene(1, nil).machine(1, booting, func(m *provisionrv1.Machine) { m.Status.BootStage = "started" }), []string{"move m-web-1 to joining: cloud-init has called"}},
		"key":     {newScene(1, nil).machine(1, booting, func(m *provisionrv1.Machine) { m.Status.KeyFingerprint = "k" }), []string{"move m-web-1 to joining: cloud-init has called"}},
		"session": {newScene(1, nil).machine(1, booting, func(m *provisionrv1.Machine) { m.Status.SessionSeen = true }), []string{"move m-web-1 to converging: the agent is at work"}},
		"boot deadline": {newScene(1, nil).machine(1, booting, func(m *provisionrv1.Machine) { m.Status.Deadline = timestamppb.New(now) }),
			[]string{"fail m-web-1 to failed: no sign of life within the boot deadline"}},
		"stopped while booting": {newScene(1, nil).machine(1, booting, nil).down(1), []string{"fail m-web-1 to failed: the machine stopped while booting"}},
		"join deadline": {newScene(1, nil).machine(1, joining, func(m *provisionrv1.Machine) { m.Status.Deadline = timestamppb.New(now); m.Status.BootStage = "x" }),
			[]string{`fail m-web-1 to failed: the agent has not connected in time; the last sign of life was "x"`}},

		"ready alone":             {newScene(1, nil).machine(1, converging, nil).proof(1, 1, proven), []string{"move m-web-1 to ready: every assumption is proven"}},
		"not ready without proof": {newScene(1, nil).machine(1, converging, nil), nil},
		"not ready with old hash": {newScene(1, nil).machine(1, converging, func(m *provisionrv1.Machine) { m.Status.Agent.DesiredHash = "old" }).proof(1, 1, proven), nil},
		"not ready unconverged":   {newScene(1, nil).machine(1, converging, func(m *provisionrv1.Machine) { m.Status.Agent.Converged = false }).proof(1, 1, proven), nil},
		"not ready unprovable":    {newScene(1, nil).machine(1, converging, nil).proof(1, 1, unprovable), nil},
		"ready where unprovable is allowed": {newScene(1, func(p *provisionrv1.Pool) { p.Spec.Verify = &provisionrv1.VerifyPolicy{Unprovable: []string{"dns"}} }).
			machine(1, converging, nil).proof(1, 1, unprovable), []string{"move m-web-1 to ready: every assumption is proven"}},
		"waits for a peer": {newScene(2, nil).machine(1, converging, nil).proof(1, 1, proven).machine(2, ready, nil), nil},
		"peer refutes":     {newScene(2, nil).machine(1, converging, nil).proof(1, 1, proven).machine(2, ready, nil).proof(2, 1, refuted), nil},
		"one peer is enough": {newScene(3, nil).machine(1, converging, nil).proof(1, 1, proven).machine(2, ready, nil).proof(2, 1, proven).
			machine(3, ready, nil).proof(3, 1, refuted), []string{"move m-web-1 to ready: every assumption is proven"}},
		"silent peers do not count": {newScene(2, nil).machine(1, converging, nil).proof(1, 1, proven).machine(2, ready, nil).silent(2, now),
			[]string{"move m-web-1 to ready: every assumption is proven"}},
		"proof fails":                         {newScene(1, nil).machine(1, ready, nil).proof(1, 1, refuted), []string{"move m-web-1 to degraded: dns: expected , found "}},
		"proof is back":                       {newScene(1, nil).machine(1, degraded, nil).proof(1, 1, proven), []string{"move m-web-1 to ready: every assumption is proven again"}},
		"ready stays while it converges anew": {newScene(1, nil).machine(1, ready, func(m *provisionrv1.Machine) { m.Status.Agent.DesiredHash = "old" }).proof(1, 1, proven), nil},

		"silent":                           {newScene(1, nil).machine(1, ready, nil).silent(1, now.Add(-30*time.Second)), []string{"move m-web-1 to unreachable: the agent is silent"}},
		"not yet silent":                   {newScene(1, nil).machine(1, ready, nil).silent(1, now.Add(-29*time.Second)), nil},
		"unknown presence":                 {func() *scene { s := newScene(1, nil).machine(1, ready, nil); clear(s.view.Presence); return s }(), nil},
		"agent is back":                    {newScene(1, nil).machine(1, unreachable, nil).proof(1, 1, proven), []string{"move m-web-1 to ready: the agent is back"}},
		"back, not proven":                 {newScene(1, nil).machine(1, unreachable, nil), []string{"move m-web-1 to converging: the agent is back"}},
		"lost":                             {newScene(1, nil).machine(1, unreachable, nil).silent(1, now.Add(-120*time.Second)).down(1), []string{"move m-web-1 to terminating: replaced: the agent is silent and the provider says that it does not run"}},
		"silent but not for the full time": {newScene(1, nil).machine(1, unreachable, nil).silent(1, now.Add(-119*time.Second)).down(1), nil},
		"silent but running":               {newScene(1, nil).machine(1, unreachable, nil).silent(1, now.Add(-5*time.Minute)).listed(now), nil},
		"silent, provider unknown": {func() *scene {
			s := newScene(1, nil).machine(1, unreachable, nil).silent(1, now.Add(-5*time.Minute)).down(1)
			s.view.Listings["local"] = reconcile.Listing{}
			return s
		}(), nil},
		"repair disabled": {newScene(1, func(p *provisionrv1.Pool) { p.Spec.Safety.RepairDisabled = true }).machine(1, unreachable, nil).silent(1, epoch).down(1), nil},
		"hard deadline": {newScene(1, func(p *provisionrv1.Pool) { p.Spec.Safety.SilentAfter = durationpb.New(30 * time.Second) }).
			machine(1, unreachable, func(m *provisionrv1.Machine) { m.Status.Deadline = timestamppb.New(now) }).silent(1, now.Add(-5*time.Minute)),
			[]string{"move m-web-1 to terminating: replaced: the agent has been silent for too long"}},
		"brake on repair": {newScene(3, nil).machine(1, unreachable, nil).silent(1, epoch).down(1).machine(2, unreachable, nil).silent(2, epoch).down(2).machine(3, ready, nil),
			[]string{"move m-web-1 to terminating: replaced: the agent is silent and the provider says that it does not run",
				"say RepairHeld: more machines must be replaced than max_unavailable (1) allows at once: the others wait"}},
		"brake while one is replaced": {newScene(2, nil).machine(1, unreachable, nil).silent(1, epoch).down(1).machine(2, terminating, unlaunched),
			[]string{"move m-web-2 to gone: ", "say RepairHeld: more machines must be replaced than max_unavailable (1) allows at once: the others wait"}},

		"failed waits": {newScene(1, nil).machine(1, failed, func(m *provisionrv1.Machine) {
			m.Status.Since = timestamppb.New(now.Add(-9 * time.Second))
			m.Status.Evidence = &provisionrv1.BootEvidence{}
		}), nil},
		"failed is replaced": {newScene(1, nil).machine(1, failed, func(m *provisionrv1.Machine) { m.Status.Reason = "x" }), []string{"move m-web-1 to terminating: replaced after a failure: x"}},
		"failed of an older generation is replaced at once": {newScene(1, func(p *provisionrv1.Pool) { p.Metadata.Generation = 2 }).
			machine(1, failed, func(m *provisionrv1.Machine) { m.Status.Since = timestamppb.New(now) }), []string{"move m-web-1 to terminating: replaced after a failure: "}},

		"scale down, highest first": {newScene(1, nil).machine(1, ready, nil).machine(2, ready, nil).machine(3, booting, nil),
			[]string{"move m-web-3 to terminating: the pool was scaled to 1", "move m-web-2 to terminating: the pool was scaled to 1"}},
		"pool deleted":    {newScene(2, deleted).machine(1, ready, nil).machine(2, gone, nil), []string{"move m-web-1 to terminating: the pool was deleted"}},
		"machine deleted": {newScene(1, nil).machine(1, ready, func(m *provisionrv1.Machine) { m.Metadata.Deleted = timestamppb.New(epoch) }), []string{"move m-web-1 to terminating: the machine was deleted"}},
		"rollout one by one": {newScene(3, func(p *provisionrv1.Pool) { p.Spec.Hardware = &provisionrv1.Hardware{Cpus: 2} }).machine(1, ready, nil).machine(2, ready, nil).machine(3, ready, nil),
			[]string{"move m-web-1 to terminating: replaced: the pool has other hardware"}},
		"rollout waits": {newScene(3, func(p *provisionrv1.Pool) { p.Spec.Hardware = &provisionrv1.Hardware{Cpus: 2} }).machine(1, ready, nil).machine(2, ready, nil).
			machine(3, converging, func(m *provisionrv1.Machine) { m.Spec.Hardware = &provisionrv1.Hardware{Cpus: 2} }), nil},

		"terminate":                 {newScene(0, deleted).machine(1, terminating, nil), []string{"terminate m-web-1"}},
		"terminate although absent": {newScene(0, deleted).machine(1, terminating, nil).down(1), []string{"terminate m-web-1"}},
		"terminate, unknown list": {func() *scene {
			s := newScene(0, deleted).machine(1, terminating, nil)
			s.view.Listings["local"] = reconcile.Listing{}
			return s
		}(), nil},
		"never launched":           {newScene(0, deleted).machine(1, terminating, unlaunched), []string{"move m-web-1 to gone: "}},
		"terminated, old list":     {newScene(0, deleted).machine(1, terminating, nil).down(1).terminated(1, now).listed(now), nil},
		"terminated, absent":       {newScene(0, deleted).machine(1, terminating, nil).down(1).terminated(1, now.Add(-2)).listed(now.Add(-1)), []string{"move m-web-1 to gone: "}},
		"terminated, still listed": {newScene(0, deleted).machine(1, terminating, nil).terminated(1, now.Add(-2)).listed(now.Add(-1)), []string{"terminate m-web-1"}},
		"launch may be in flight": {newScene(0, deleted).machine(1, terminating, func(m *provisionrv1.Machine) {
			unanswered(m)
			m.Status.Since = timestamppb.New(now.Add(-9 * time.Minute))
		}).down(1).terminated(1, now.Add(-2)).listed(now.Add(-1)), nil},
		"launch is over": {newScene(0, deleted).machine(1, terminating, unanswered).down(1).terminated(1, epoch).listed(now), []string{"move m-web-1 to gone: "}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, test.scene.plan(t, now)); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func (s *scene) terminated(index uint32, at time.Time) *scene {
	s.view.Terminated[fmt.Sprintf("m-web-%d", index)] = at
	return s
}

// TestPlanProperties checks what must hold of every plan, however odd the view.
func TestPlanProperties(t *testing.T) {
	phases := []provisionrv1.Phase{
		provisionrv1.Phase_PHASE_PENDING, provisionrv1.Phase_PHASE_LAUNCHING, provisionrv1.Phase_PHASE_BOOTING, provisionrv1.Phase_PHASE_JOINING,
		provisionrv1.Phase_PHASE_CONVERGING, provisionrv1.Phase_PHASE_READY, provisionrv1.Phase_PHASE_DEGRADED, provisionrv1.Phase_PHASE_UNREACHABLE,
		provisionrv1.Phase_PHASE_TERMINATING, provisionrv1.Phase_PHASE_GONE, provisionrv1.Phase_PHASE_FAILED,
	}
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.Uint32Range(0, 8).Draw(rt, "size")
		limit := rapid.Uint32Range(0, 4).Draw(rt, "max_unavailable")
		changed := rapid.Bool().Draw(rt, "hardware changed")
		s := newScene(size, func(p *provisionrv1.Pool) {
			p.Spec.Safety.MaxUnavailable = &limit
			if changed {
				p.Spec.Hardware = &provisionrv1.Hardware{Cpus: 2}
			}
		})
		known := rapid.Bool().Draw(rt, "listing known")
		now := epoch.Add(time.Duration(rapid.IntRange(0, 7200).Draw(rt, "now")) * time.Second)
		past := func(name string) time.Time {
			return now.Add(-time.Duration(rapid.IntRange(0, 3600).Draw(rt, name)) * time.Second)
		}
		phaseOf, indexOf := map[string]provisionrv1.Phase{}, map[string]uint32{}
		for i := uint32(1); i <= 10; i++ {
			if rapid.Bool().Draw(rt, "free") {
				continue
			}
			phase := rapid.SampledFrom(phases).Draw(rt, "phase")
			id := fmt.Sprintf("m-web-%d", i)
			phaseOf[id], indexOf[id] = phase, i
			s.machine(i, phase, func(m *provisionrv1.Machine) {
				m.Status.Since, m.Status.Deadline = timestamppb.New(past("since")), timestamppb.New(past("deadline").Add(30*time.Minute))
				if rapid.Bool().Draw(rt, "new hardware") {
					m.Spec.Hardware = &provisionrv1.Hardware{Cpus: 2}
				}
			})
			if rapid.Bool().Draw(rt, "silent") {
				s.silent(i, past("silence"))
			}
			if rapid.Bool().Draw(rt, "down") {
				s.down(i)
			}
			if rapid.Bool().Draw(rt, "terminated") {
				s.terminated(i, past("terminated at"))
			}
			if rapid.Bool().Draw(rt, "proof") {
				s.proof(i, i, provisionrv1.ProofState(rapid.IntRange(1, 3).Draw(rt, "outcome")))
			}
		}
		if rapid.Bool().Draw(rt, "orphan") {
			s.view.Listings["local"].Instances["m-orphan"] = provider.Instance{MachineID: "m-orphan", State: provider.Running}
			s.view.Unexplained["local/m-orphan"] = past("orphan")
		}
		s.listed(past("listed"))
		if !known {
			s.view.Listings["local"] = reconcile.Listing{}
		}
		s.plan(t, now)
		checkPlan(rt, s, now, known, int(size), int(limit), phaseOf, indexOf)
	})
}

func checkPlan(t *rapid.T, s *scene, now time.Time, known bool, size, limit int, phaseOf map[string]provisionrv1.Phase, indexOf map[string]uint32) {
	actions := reconcile.Plan(s.view, now)
	again := reconcile.Plan(s.view, now)
	if !slices.EqualFunc(actions, again, func(a, b reconcile.Action) bool { return a.String() == b.String() }) {
		t.Fatalf("two plans of one view differ: %v and %v", actions, again)
	}
	held := map[uint32]bool{}
	replacing, ready := 0, 0
	for id, phase := range phaseOf {
		if phase != provisionrv1.Phase_PHASE_GONE {
			held[indexOf[id]] = true
		}
		if int(indexOf[id]) > size {
			continue
		}
		switch phase {
		case provisionrv1.Phase_PHASE_TERMINATING:
			replacing++
		case provisionrv1.Phase_PHASE_READY:
			ready++
		}
	}
	keys := map[string]bool{}
	taken, served := 0, 0
	for _, a := range actions {
		if keys[a.Key()] {
			t.Fatalf("two actions at once for %s in %v", a.Key(), actions)
		}
		keys[a.Key()] = true
		if !known && (a.Op == reconcile.Terminate || a.Op == reconcile.Reap || a.Op == reconcile.Begin || a.Op == reconcile.Ensure) {
			t.Fatalf("%v although the provider is unknown", a)
		}
		if a.Op == reconcile.Create && (held[a.Index] || int(a.Index) > size) {
			t.Fatalf("%v although the slot is held or not wanted", a)
		}
		if a.Op == reconcile.Reap && now.Sub(s.view.Unexplained["local/m-orphan"]) < reconcile.DefaultOrphanGrace {
			t.Fatalf("%v within the grace period", a)
		}
		if a.Op != reconcile.Move || a.Phase.GetTo() != provisionrv1.Phase_PHASE_TERMINATING || int(indexOf[a.Machine]) > size {
			continue
		}
		switch phaseOf[a.Machine] {
		case provisionrv1.Phase_PHASE_READY:
			taken++
			served++
		case provisionrv1.Phase_PHASE_DEGRADED, provisionrv1.Phase_PHASE_UNREACHABLE:
			taken++
		}
	}
	if taken > 0 && taken+replacing > limit {
		t.Fatalf("%d machines are taken away and %d are being replaced: more than %d: %v", taken, replacing, limit, actions)
	}
	if served > 0 && size-ready+served > limit {
		t.Fatalf("%d of %d ready machines are taken away: more than %d are unready then: %v", served, ready, limit, actions)
	}
}
