package reconciletest

import (
	"context"
	"fmt"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// Bounds of what an agent looks at, as the real one's: all peers of a small pool, else its next ones.
const (
	allPeers  = 20
	ringPeers = 4
)

// DesiredHash is the hash of the desired state of a world's machine: it changes with the pool's generation and with who holds
// the machine's slot.
func DesiredHash(s *state.Snapshot, id string) string {
	spec := s.Machine(id).GetSpec()
	return fmt.Sprintf("g%d/%s", s.Pool(spec.GetPool()).GetMetadata().GetGeneration(), s.Slot(spec.GetSlot()).GetHolder())
}

// recorded is what exists where every provider does what it was asked.
func (w *World) recorded() []Instance {
	var out []Instance
	for m := range w.Read().Machines() {
		phase := m.GetStatus().GetPhase()
		if id := m.GetStatus().GetProviderId(); id != "" && phase != provisionrv1.Phase_PHASE_GONE {
			running := phase != provisionrv1.Phase_PHASE_TERMINATING
			out = append(out, Instance{MachineID: m.GetMetadata().GetName(), ProviderID: id, Slot: m.GetSpec().GetSlot(), Running: running})
		}
	}
	return out
}

// Connected implements reconcile.Sessions for every server.
func (w *World) Connected() (map[string]bool, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[string]bool, len(w.sessions))
	for id := range w.sessions {
		out[id] = true
	}
	return out, true
}

// Changed implements reconcile.Sessions for every server.
func (w *World) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// Connect begins or ends the session of a machine's agent.
func (w *World) Connect(id string, connected bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sessions[id] == connected {
		return
	}
	if connected {
		w.sessions[id] = true
	} else {
		delete(w.sessions, id)
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// Break sets which slots' agents do nothing but boot, and lose their session.
func (w *World) Break(broken func(slot string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = broken
}

func (w *World) isBroken(slot string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken(slot)
}

// RunAgents plays every machine until ctx ends: it boots, calls, joins, converges, proves itself and its peers, and falls
// silent when its instance stops.
func (w *World) RunAgents(ctx context.Context) {
	tick := time.NewTicker(w.Tick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		running := map[string]bool{}
		for _, i := range w.Instances() {
			if i.Running && !running[i.MachineID] && !w.away(i.MachineID) {
				running[i.MachineID] = true
				w.agent(i.MachineID)
			}
		}
		connected, _ := w.Connected()
		for id := range connected {
			if !running[id] || w.isBroken(w.Read().Machine(id).GetSpec().GetSlot()) {
				w.Connect(id, false)
			}
		}
	}
}

// agent does the next thing of one machine. What the state refuses is tried again.
func (w *World) agent(id string) {
	s := w.Read()
	m := s.Machine(id)
	status := m.GetStatus()
	switch status.GetPhase() {
	case provisionrv1.Phase_PHASE_UNSPECIFIED, provisionrv1.Phase_PHASE_TERMINATING, provisionrv1.Phase_PHASE_GONE:
		return
	}
	now := time.Now()
	if _, seen := w.appeared[id]; !seen {
		w.appeared[id] = now
	}
	key := "key-" + id
	switch {
	case now.Before(w.appeared[id].Add(w.Boot)):
	case status.GetBootStage() == "":
		_ = w.Do(&raftlogv1.Command{Kind: &raftlogv1.Command_BootStage{BootStage: &raftlogv1.BootStage{Id: id, Stage: "started"}}})
	case w.isBroken(m.GetSpec().GetSlot()):
	case status.GetKeyFingerprint() == "":
		_ = w.Do(&raftlogv1.Command{Kind: &raftlogv1.Command_BindKey{BindKey: &raftlogv1.BindKey{Id: id, Attempt: status.GetAttempt(), KeyFingerprint: key}}})
	case !status.GetSessionSeen():
		w.Connect(id, true)
		_ = w.Do(&raftlogv1.Command{Kind: &raftlogv1.Command_SessionSeen{SessionSeen: &raftlogv1.SessionSeen{Id: id, KeyFingerprint: key}}})
	default:
		w.Connect(id, true)
		w.report(s, m)
	}
}

// report commits what has changed of a machine and of what it sees.
func (w *World) report(s *state.Snapshot, m *provisionrv1.Machine) {
	id := m.GetMetadata().GetName()
	hash := DesiredHash(s, id)
	report := &raftlogv1.ReportMachine{Id: id}
	boot := w.bootID(id)
	if agent := m.GetStatus().GetAgent(); agent.GetDesiredHash() != hash || agent.GetBootId() != boot {
		generation := s.Pool(m.GetSpec().GetPool()).GetMetadata().GetGeneration()
		report.Agent = &provisionrv1.AgentStatus{Version: "1", BootId: boot, DesiredHash: hash, Converged: true, PoolGeneration: generation}
	}
	if why := w.rebootRequired(id, m.GetSpec().GetSlot()); why != m.GetStatus().GetFacts().GetRebootRequired() {
		report.Facts = &provisionrv1.Facts{RebootRequired: why}
	}
	prove := func(subject, assumption string, holds bool) {
		outcome := provisionrv1.ProofState_PROOF_STATE_PROVEN
		if !holds {
			outcome = provisionrv1.ProofState_PROOF_STATE_FAILED
		}
		if s.Proof(subject, assumption, id).GetState() != outcome {
			report.Proofs = append(report.Proofs, &provisionrv1.Proof{Machine: subject, Assumption: assumption, State: outcome, DesiredHash: hash})
		}
	}
	named := s.Slot(m.GetSpec().GetSlot()).GetHolder() == id
	prove(id, "clock", true)
	prove(id, "dns.forward", named)
	prove(id, "dns.reverse", named)
	for peer := range peersOf(s, m) {
		prove(peer, "peer.dns", true)
	}
	if report.Agent != nil || report.Facts != nil || len(report.Proofs) > 0 {
		_ = w.Do(&raftlogv1.Command{Kind: &raftlogv1.Command_ReportMachine{ReportMachine: report}})
	}
}

// peersOf returns the connected holders of other slots that a machine looks at.
func peersOf(s *state.Snapshot, m *provisionrv1.Machine) map[string]bool {
	size := s.Pool(m.GetSpec().GetPool()).GetSpec().GetSize()
	looks := min(size, allPeers)
	if size > allPeers {
		looks = ringPeers
	}
	out := map[string]bool{}
	for n := range looks {
		index := (m.GetSpec().GetIndex()+n)%max(size, 1) + 1
		holder := s.Slot(fmt.Sprintf("%s-%d", m.GetSpec().GetPool(), index)).GetHolder()
		if holder != "" && holder != m.GetMetadata().GetName() && s.Machine(holder).GetStatus().GetSessionSeen() {
			out[holder] = true
		}
	}
	return out
}
