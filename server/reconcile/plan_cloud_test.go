package reconcile_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/reconcile"
)

// heir adds an heir to the slot of an index, whose holder must have been added: m-web-1-heir.
func (s *scene) heir(index uint32, phase provisionrv1.Phase, change func(*provisionrv1.Machine)) *scene {
	slot := fmt.Sprintf("web-%d", index)
	id := "m-" + slot + "-heir"
	instance, listed := s.view.Listings["local"].Instances["m-"+slot]
	presence, seen := s.view.Presence["m-"+slot]
	defer func() {
		delete(s.view.Presence, "m-"+slot)
		if delete(s.view.Listings["local"].Instances, "m-"+slot); listed {
			s.view.Listings["local"].Instances["m-"+slot] = instance
		}
		if seen {
			s.view.Presence["m-"+slot] = presence
		}
	}()
	s.machine(index, phase, func(m *provisionrv1.Machine) {
		old := m.Metadata.Name
		m.Metadata.Name = id
		if i, ok := s.view.Listings["local"].Instances[old]; ok && phase >= provisionrv1.Phase_PHASE_BOOTING {
			i.MachineID = id
			s.view.Listings["local"].Instances[id] = i
		}
		if seen, ok := s.view.Presence[old]; ok && m.Status.SessionSeen {
			s.view.Presence[id] = seen
		}
		if change != nil {
			change(m)
		}
	})
	s.slot(index, "m-"+slot, id)
	return s
}

// former adds a machine that handed its slot over.
func (s *scene) former(index uint32, phase provisionrv1.Phase, change func(*provisionrv1.Machine)) *scene {
	s.heir(index, phase, change)
	s.slot(index, fmt.Sprintf("m-web-%d", index), "")
	return s
}

// evidence records a proof of the heir of an index about itself.
func (s *scene) evidence(index uint32, assumption string, outcome provisionrv1.ProofState) *scene {
	id := fmt.Sprintf("m-web-%d-heir", index)
	s.tx.Put(&provisionrv1.Proof{Machine: id, Observer: id, Assumption: assumption, State: outcome, DesiredHash: "h"})
	return s
}

// with changes the view.
func (s *scene) with(change func(*reconcile.View)) *scene {
	change(&s.view)
	return s
}

// local changes the listing.
func (s *scene) local(change func(*reconcile.Listing)) *scene {
	l := s.view.Listings["local"]
	change(&l)
	s.view.Listings["local"] = l
	return s
}

func TestPlanForClouds(t *testing.T) {
	const (
		pending     = provisionrv1.Phase_PHASE_PENDING
		launching   = provisionrv1.Phase_PHASE_LAUNCHING
		booting     = provisionrv1.Phase_PHASE_BOOTING
		converging  = provisionrv1.Phase_PHASE_CONVERGING
		ready       = provisionrv1.Phase_PHASE_READY
		unreachable = provisionrv1.Phase_PHASE_UNREACHABLE
		draining    = provisionrv1.Phase_PHASE_DRAINING
		terminating = provisionrv1.Phase_PHASE_TERMINATING
		gone        = provisionrv1.Phase_PHASE_GONE
		failed      = provisionrv1.Phase_PHASE_FAILED
		proven      = provisionrv1.ProofState_PROOF_STATE_PROVEN
		refuted     = provisionrv1.ProofState_PROOF_STATE_FAILED
	)
	now := epoch.Add(10 * time.Minute)
	deleted := func(p *provisionrv1.Pool) { p.Metadata.Deleted = timestamppb.New(epoch) }
	spot := &provisionrv1.Notice{Kind: "spot"}
	announced := func(n *provisionrv1.Notice) func(*provisionrv1.Machine) {
		return func(m *provisionrv1.Machine) { m.Status.Notice = n }
	}
	// noticed is a machine of which the provider says what the record says.
	noticed := func(s *scene, index uint32, n *provisionrv1.Notice) *scene {
		s.machine(index, ready, announced(n))
		id := fmt.Sprintf("m-web-%d", index)
		i := s.view.Listings["local"].Instances[id]
		i.Notice = n
		s.view.Listings["local"].Instances[id] = i
		return s
	}
	surge := func(n uint32) func(*provisionrv1.Pool) {
		return func(p *provisionrv1.Pool) {
			p.Spec.Safety.MaxSurge, p.Spec.Hardware = &n, &provisionrv1.Hardware{Cpus: 2}
		}
	}
	fresh := func(m *provisionrv1.Machine) {
		m.Spec.Hardware, m.Spec.PoolGeneration = &provisionrv1.Hardware{Cpus: 2}, 2
	}
	old := timestamppb.New(now.Add(-time.Hour))
	grouped := func(l *reconcile.Listing) { l.Grouped = true }
	ensured := func(generation uint64, at time.Time) func(*reconcile.View) {
		return func(v *reconcile.View) {
			v.Firewalls["web"] = reconcile.EnsuredFirewall{Generation: generation, At: at, Hash: "of other rules"}
		}
	}
	groups := func(v *reconcile.View) { v.Groups["local"] = reconcile.Groups{Known: true, Pools: []string{"web"}} }
	adopted := func(l *reconcile.Listing) { l.Capabilities.Adopted = true }
	twice := func(id, first, second string) func(*reconcile.Listing) {
		return func(l *reconcile.Listing) { l.Duplicates = map[string][]string{id: {first, second}} }
	}
	for name, test := range map[string]struct {
		scene *scene
		want  []string
	}{
		"refused takes the next choice": {newScene(1, nil).machine(1, launching, func(m *provisionrv1.Machine) { m.Status.Deadline = old }).
			with(func(v *reconcile.View) { v.Refused["m-web-1"] = 1 }), []string{"begin m-web-1"}},
		"another attempt was refused": {newScene(1, nil).machine(1, launching, func(m *provisionrv1.Machine) {
			m.Status.Attempt, m.Status.Deadline = 2, timestamppb.New(now.Add(1))
		}).with(func(v *reconcile.View) { v.Refused["m-web-1"] = 1 }), []string{"launch m-web-1"}},
		"refused and outdated": {newScene(1, func(p *provisionrv1.Pool) { p.Spec.Hardware = &provisionrv1.Hardware{Cpus: 2} }).machine(1, launching, nil).
			with(func(v *reconcile.View) { v.Refused["m-web-1"] = 1 }), []string{"move m-web-1 to terminating: the pool has other hardware"}},
		"no more begin than launches keep up with": {newScene(3, nil).machine(1, pending, nil).machine(2, pending, nil).
			machine(3, launching, func(m *provisionrv1.Machine) { m.Status.Deadline = timestamppb.New(now.Add(1)) }).
			with(func(v *reconcile.View) { v.LaunchAhead = 2 }), []string{"launch m-web-3", "begin m-web-2"}},
		"credentials are refused": {newScene(1, nil).machine(1, pending, nil).local(func(l *reconcile.Listing) { *l = reconcile.Listing{} }).
			with(func(v *reconcile.View) { v.Unauthorized["local"] = "bad key" }), []string{"move m-web-1 to pending: waiting: bad key"}},
		"credentials are still refused": {newScene(1, nil).machine(1, pending, func(m *provisionrv1.Machine) { m.Status.Reason = "waiting: bad key" }).
			local(func(l *reconcile.Listing) { *l = reconcile.Listing{} }).with(func(v *reconcile.View) { v.Unauthorized["local"] = "bad key" }), nil},

		"firewall first": {newScene(1, nil).machine(1, pending, nil).local(grouped), []string{"ensure firewall web"}},
		"firewall of an older generation": {newScene(1, nil).machine(1, pending, nil).local(grouped).with(ensured(0, now)),
			[]string{"ensure firewall web"}},
		"firewall rests":     {newScene(1, nil).machine(1, pending, nil).local(grouped).with(ensured(1, now.Add(-time.Second))), []string{"begin m-web-1"}},
		"firewall follows":   {newScene(1, nil).machine(1, pending, nil).local(grouped).with(ensured(1, now.Add(-2*time.Second))), []string{"ensure firewall web", "begin m-web-1"}},
		"no firewall groups": {newScene(1, nil).machine(1, pending, nil), []string{"begin m-web-1"}},
		"deleted pool keeps its group while it has machines": {newScene(1, deleted).machine(1, terminating, nil).local(grouped).with(groups).
			listed(epoch), []string{"terminate m-web-1"}},
		"group without pool": {newScene(0, nil).local(grouped).with(func(v *reconcile.View) {
			v.Groups["local"] = reconcile.Groups{Known: true, Pools: []string{"db"}}
		}), []string{"ensure firewall web", "delete firewall db"}},
		"group without pool, unknown list": {newScene(0, nil).with(func(v *reconcile.View) {
			v.Groups["local"] = reconcile.Groups{Pools: []string{"db"}}
		}), nil},
		"group of a pool elsewhere": {newScene(0, func(p *provisionrv1.Pool) { p.Spec.Provider = "other" }).local(grouped).with(groups),
			[]string{"delete firewall web"}},
		"group of a pool elsewhere whose machine is hardly gone": {newScene(0, func(p *provisionrv1.Pool) { p.Spec.Provider = "other" }).
			machine(1, gone, func(m *provisionrv1.Machine) { m.Status.Since = timestamppb.New(now.Add(-time.Second)) }).
			local(grouped).local(func(l *reconcile.Listing) { l.Capabilities.SettleWindow = time.Minute }).with(groups), nil},

		"duplicates are pruned": {newScene(1, nil).machine(1, converging, nil).proof(1, 1, proven).local(twice("m-web-1", "i-a", "i-web-1")),
			[]string{"prune m-web-1 to i-web-1"}},
		"duplicates of an unrecorded instance": {newScene(1, nil).machine(1, ready, nil).proof(1, 1, proven).local(twice("m-web-1", "i-a", "i-b")),
			[]string{"prune m-web-1 to i-a"}},
		"pruned, old list": {newScene(1, nil).machine(1, converging, nil).proof(1, 1, proven).local(twice("m-web-1", "i-a", "i-web-1")).
			with(func(v *reconcile.View) { v.Pruned["m-web-1"] = now }), nil},
		"duplicates of what is launching": {newScene(1, nil).machine(1, launching, func(m *provisionrv1.Machine) { m.Status.Deadline = timestamppb.New(now.Add(1)) }).
			local(twice("m-web-1", "i-a", "i-b")), []string{"launch m-web-1"}},

		"adopted may be absent": {newScene(1, nil).machine(1, booting, func(m *provisionrv1.Machine) { m.Status.Deadline = nil }).down(1).local(adopted), nil},
		"adopted is not repaired": {newScene(1, nil).machine(1, unreachable, func(m *provisionrv1.Machine) { m.Status.Deadline = old }).silent(1, epoch.Add(-24*time.Hour)).down(1).
			local(adopted), nil},

		"notice is recorded": {newScene(1, nil).machine(1, ready, nil).proof(1, 1, proven).local(func(l *reconcile.Listing) {
			l.Instances["m-web-1"] = provider.Instance{MachineID: "m-web-1", State: provider.Running, Notice: spot}
		}), []string{"notice m-web-1"}},
		"notice is withdrawn": {newScene(1, nil).machine(1, ready, announced(&provisionrv1.Notice{Kind: "maintenance", At: timestamppb.New(now.Add(time.Hour))})).proof(1, 1, proven), []string{"notice m-web-1"}},
		"heir for a notice":   {noticed(newScene(2, nil), 1, spot).machine(2, ready, nil), []string{"create heir of web-1"}},
		"no heir before its time": {noticed(newScene(2, nil), 1, &provisionrv1.Notice{Kind: "maintenance", At: timestamppb.New(now.Add(11 * time.Minute))}).
			machine(2, ready, nil), nil},
		"heir in time": {noticed(newScene(2, nil), 1, &provisionrv1.Notice{Kind: "maintenance", At: timestamppb.New(now.Add(10 * time.Minute))}).
			machine(2, ready, nil), []string{"create heir of web-1"}},
		"heirs within the budget": {noticed(noticed(newScene(2, nil), 1, spot), 2, spot), []string{"create heir of web-1",
			"say RepairHeld: the end of more machines is announced than max_unavailable (1) allows to replace at once: the others wait"}},
		"no heir for who does not repair": {noticed(newScene(1, func(p *provisionrv1.Pool) { p.Spec.Safety.RepairDisabled = true }), 1, spot), nil},
		"no heir in an old cluster": {func() *scene {
			s := noticed(newScene(1, nil), 1, spot)
			s.tx.PutCluster(&provisionrv1.Cluster{FeatureLevel: 1})
			return s
		}(), nil},
		"heir begins":  {noticed(newScene(1, nil), 1, spot).heir(1, pending, nil), []string{"begin m-web-1-heir"}},
		"heir is late": {noticed(newScene(1, nil), 1, spot).heir(1, booting, func(m *provisionrv1.Machine) { m.Status.Deadline = old }), []string{"fail m-web-1-heir to failed: no sign of life within the boot deadline"}},
		"heir is never ready": {noticed(newScene(1, nil), 1, spot).heir(1, converging, func(m *provisionrv1.Machine) { m.Status.Agent.Converged = false }).
			evidence(1, "clock", proven), nil},
		"heir lacks a proof": {noticed(newScene(1, nil), 1, spot).heir(1, converging, nil).evidence(1, "clock", refuted), nil},
		"heir has no proof":  {noticed(newScene(1, nil), 1, spot).heir(1, converging, nil).evidence(1, "dns.forward", refuted), nil},
		"heir takes over": {noticed(newScene(1, nil), 1, spot).heir(1, converging, nil).evidence(1, "clock", proven).evidence(1, "dns.forward", refuted),
			[]string{"hand over web-1 to m-web-1-heir: the provider announces spot"}},
		"prepared heir does not fail": {newScene(2, surge(1)).machine(2, converging, fresh).machine(1, ready, nil).
			heir(1, converging, func(m *provisionrv1.Machine) { fresh(m); m.Status.Deadline = old }).evidence(1, "clock", proven), nil},
		"heir of a lost machine": {noticed(newScene(1, nil), 1, spot).machine(1, failed, announced(spot)).heir(1, booting, nil),
			[]string{"notice m-web-1", "move m-web-1 to terminating: replaced after a failure: ", "hand over web-1 to m-web-1-heir: its machine is failed"}},
		"heir of a terminating machine": {newScene(1, nil).machine(1, terminating, nil).heir(1, launching, func(m *provisionrv1.Machine) { m.Status.Deadline = timestamppb.New(now.Add(1)) }).listed(epoch),
			[]string{"terminate m-web-1", "hand over web-1 to m-web-1-heir: its machine is terminating", "launch m-web-1-heir"}},
		"heir of a silent machine": {newScene(1, nil).machine(1, unreachable, announced(spot)).heir(1, booting, nil).silent(1, epoch).down(1),
			[]string{"hand over web-1 to m-web-1-heir: the agent is silent and the provider says that it does not run"}},
		"heir is not needed": {newScene(1, nil).machine(1, ready, nil).proof(1, 1, proven).heir(1, converging, nil),
			[]string{"move m-web-1-heir to terminating: no heir is needed any more"}},
		"heir of a deleted pool": {newScene(1, deleted).machine(1, ready, nil).heir(1, converging, nil),
			[]string{"move m-web-1 to terminating: the pool was deleted", "move m-web-1-heir to terminating: the pool was deleted"}},
		"silent heir": {noticed(newScene(1, nil), 1, spot).heir(1, unreachable, nil).with(func(v *reconcile.View) {
			v.Presence["m-web-1-heir"] = reconcile.Presence{SilentSince: epoch}
		}), []string{"move m-web-1-heir to terminating: an heir whose agent is silent"}},
		"heir is back":             {noticed(newScene(1, nil), 1, spot).heir(1, unreachable, nil), []string{"move m-web-1-heir to converging: the agent is back"}},
		"nobody waits for heirs":   {newScene(2, nil).machine(1, converging, nil).proof(1, 1, proven).machine(2, terminating, nil).heir(2, converging, nil).local(func(l *reconcile.Listing) { *l = reconcile.Listing{} }), []string{"hand over web-2 to m-web-2-heir: its machine is terminating", "move m-web-1 to ready: every assumption is proven"}},
		"former drains":            {newScene(1, nil).machine(1, ready, nil).former(1, draining, func(m *provisionrv1.Machine) { m.Status.Since = timestamppb.New(now.Add(-29 * time.Second)) }), nil},
		"former has drained":       {newScene(1, nil).machine(1, ready, nil).former(1, draining, nil), []string{"move m-web-1-heir to terminating: "}},
		"former of a deleted pool": {newScene(1, deleted).former(1, draining, func(m *provisionrv1.Machine) { m.Status.Since = timestamppb.New(now) }), []string{"move m-web-1-heir to terminating: the pool was deleted"}},
		"has taken over, no deadline": {newScene(1, nil).machine(1, converging, func(m *provisionrv1.Machine) { m.Status.Deadline = nil }),
			[]string{"move m-web-1 to converging: "}},

		"surge makes one heir":     {newScene(3, surge(1)).machine(1, ready, nil).machine(2, ready, nil).machine(3, ready, nil), []string{"create heir of web-1"}},
		"surge makes two heirs":    {newScene(3, surge(2)).machine(1, ready, nil).machine(2, ready, nil).machine(3, ready, nil), []string{"create heir of web-1", "create heir of web-2"}},
		"surge waits for the last": {newScene(3, surge(1)).machine(1, ready, fresh).former(1, draining, func(m *provisionrv1.Machine) { m.Status.Since = timestamppb.New(now) }).machine(2, ready, nil).machine(3, ready, nil), nil},
		"surge hands over":         {newScene(2, surge(1)).machine(2, ready, nil).machine(1, ready, nil).heir(1, converging, fresh).evidence(1, "clock", proven), []string{"hand over web-1 to m-web-1-heir: the pool has other hardware"}},
		"heir is outdated": {newScene(1, surge(1)).machine(1, ready, nil).heir(1, booting, nil),
			[]string{"move m-web-1-heir to terminating: the pool has other hardware"}},
		"takes over, one by one": {newScene(8, surge(8)).machine(3, ready, nil).machine(4, ready, nil).machine(5, ready, nil).machine(6, ready, nil).machine(7, ready, nil).machine(8, ready, nil).
			machine(1, ready, nil).heir(1, converging, fresh).evidence(1, "clock", proven).machine(2, ready, nil).heir(2, converging, fresh).evidence(2, "clock", proven),
			[]string{"hand over web-1 to m-web-1-heir: the pool has other hardware", "hand over web-2 to m-web-2-heir: the pool has other hardware",
				"create heir of web-3", "create heir of web-4", "create heir of web-5", "create heir of web-6", "create heir of web-7", "create heir of web-8"}},

		"heir of a machine that is silent for a while": {newScene(2, surge(1)).machine(2, ready, fresh).machine(1, unreachable, nil).silent(1, now.Add(-time.Minute)).
			heir(1, booting, func(m *provisionrv1.Machine) { fresh(m); m.Status.Deadline = timestamppb.New(now.Add(1)) }), nil},
		"heir of a deleted machine": {newScene(1, nil).machine(1, ready, func(m *provisionrv1.Machine) { m.Metadata.Deleted = timestamppb.New(epoch) }).
			heir(1, booting, func(m *provisionrv1.Machine) { m.Status.Deadline = timestamppb.New(now.Add(1)) }),
			[]string{"move m-web-1 to terminating: the machine was deleted", "hand over web-1 to m-web-1-heir: its machine was deleted"}},
		"heirs of a storm count with what is being replaced": {noticed(noticed(newScene(8, nil).machine(1, converging, nil).former(1, terminating, nil).machine(2, converging, nil).former(2, terminating, nil), 3, spot), 4, spot).
			machine(5, ready, nil).machine(6, ready, nil).machine(7, ready, nil).machine(8, ready, nil).local(func(l *reconcile.Listing) { l.Started = now }).
			with(func(v *reconcile.View) {
				v.Terminated["m-web-1-heir"], v.Terminated["m-web-2-heir"] = now.Add(time.Second), now.Add(time.Second)
			}), []string{"create heir of web-3",
			"say RepairHeld: the end of more machines is announced than max_unavailable (2) allows to replace at once: the others wait"}},

		"refused, and yet there": {newScene(1, nil).machine(1, launching, func(m *provisionrv1.Machine) { m.Status.Deadline = timestamppb.New(now.Add(1)) }).
			with(func(v *reconcile.View) { v.Refused["m-web-1"] = 1 }).local(func(l *reconcile.Listing) {
			l.Instances["m-web-1"] = provider.Instance{MachineID: "m-web-1", ProviderID: "i-late", State: provider.Running}
		}), []string{"launch m-web-1"}},
		"refused, and yet it calls": {newScene(1, nil).machine(1, launching, func(m *provisionrv1.Machine) {
			m.Status.Deadline, m.Status.BootStage = timestamppb.New(now.Add(1)), "started"
		}).with(func(v *reconcile.View) { v.Refused["m-web-1"] = 1 }), []string{"launch m-web-1"}},
		"another instance is left": {newScene(1, nil).machine(1, ready, nil).proof(1, 1, proven).local(func(l *reconcile.Listing) {
			l.Instances["m-web-1"] = provider.Instance{MachineID: "m-web-1", ProviderID: "i-kept", State: provider.Running}
		}), []string{"identify m-web-1 as i-kept"}},
		"another instance is left, old list": {newScene(1, nil).machine(1, ready, nil).proof(1, 1, proven).local(func(l *reconcile.Listing) {
			l.Instances["m-web-1"] = provider.Instance{MachineID: "m-web-1", ProviderID: "i-a", State: provider.Running}
		}).with(func(v *reconcile.View) { v.Pruned["m-web-1"] = now }), nil},

		"attempts of another leader": {newScene(0, deleted).machine(1, terminating, func(m *provisionrv1.Machine) {
			m.Status.Attempt, m.Status.LaunchedAt = 2, timestamppb.New(now.Add(-9*time.Minute))
		}).down(1).terminated(1, now.Add(-2)).listed(now.Add(-1)), nil},
		"attempts of this leader": {newScene(0, deleted).machine(1, terminating, func(m *provisionrv1.Machine) {
			m.Status.Attempt, m.Status.LaunchedAt = 2, timestamppb.New(now.Add(-9*time.Minute))
		}).down(1).terminated(1, now.Add(-2)).listed(now.Add(-1)).with(func(v *reconcile.View) { v.LaunchEnded["m-web-1"] = epoch }),
			[]string{"move m-web-1 to gone: "}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, test.scene.plan(t, now)); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}
