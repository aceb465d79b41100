package session

import (
	"context"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// Bounds of what is gathered of one machine before it is committed; more is dropped, and counted in the log.
const (
	maxProofs = 4096
	maxEvents = 64
	// maxCommits is how many reports are committed at a time; they share log entries.
	maxCommits = 64
	// maxText bounds an event's text, in octets.
	maxText = 1024
	// maxFact bounds a text among the facts, in octets.
	maxFact = 255
)

// retryReports is how long to wait after reports could not be committed.
const retryReports = time.Second

// reports gathers what agents say until it is committed: the newest status of each machine and all that changed. It
// holds at most one report for each session.
type reports struct {
	mu      sync.Mutex
	pending map[string]*report
	wake    chan struct{}
}

// report is what is to be committed of one machine.
type report struct {
	session  *session
	sequence uint64
	status   *provisionrv1.AgentStatus
	proofs   map[proofKey]*provisionrv1.Proof
	events   []*provisionrv1.Event
	dropped  int
	// facts are the newest that the agent has told in its session, or nil.
	facts *provisionrv1.Facts
}

// factsLevel is the feature level from which on facts are kept.
const factsLevel = 3

type proofKey struct{ machine, assumption string }

// add merges a report of an agent.
func (r *reports) add(s *session, in *agentv1.Report, events *pace) {
	fresh := &report{session: s, sequence: in.GetSequence(), status: statusOf(s, in), proofs: map[proofKey]*provisionrv1.Proof{}}
	for _, p := range in.GetProofs() {
		fresh.addProof(proofOf(p, fresh.status.GetDesiredHash()))
	}
	for _, c := range in.GetChanges() {
		switch e := eventOf(s, c); {
		case e == nil:
		case len(fresh.events) < maxEvents && events.allow(s.machine):
			fresh.addEvent(e)
		default:
			fresh.dropped++
		}
	}
	if in.GetFacts() != nil {
		s.facts = factsOf(in.GetFacts())
	}
	fresh.facts = s.facts
	r.mu.Lock()
	if old := r.pending[s.machine]; old != nil {
		fresh = merge(old, fresh)
	}
	r.pending[s.machine] = fresh
	r.mu.Unlock()
	r.again()
}

// merge puts a newer report over an older one. Both are consumed.
func merge(older, newer *report) *report {
	events := newer.events
	newer.events = older.events
	newer.dropped += older.dropped
	for _, e := range events {
		newer.addEvent(e)
	}
	for key, p := range older.proofs {
		if newer.proofs[key] == nil {
			newer.addProof(p)
		}
	}
	return newer
}

func (r *report) addProof(p *provisionrv1.Proof) {
	key := proofKey{p.Machine, p.Assumption}
	if _, known := r.proofs[key]; !known && len(r.proofs) >= maxProofs {
		r.dropped++
		return
	}
	r.proofs[key] = p
}

func (r *report) addEvent(e *provisionrv1.Event) {
	if len(r.events) >= maxEvents {
		r.dropped++
		return
	}
	r.events = append(r.events, e)
}

// take takes the pending reports of machines within their pace; the others wait for more of theirs to be merged.
func (r *reports) take(within *pace) (taken map[string]*report, left bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken = r.pending
	r.pending = map[string]*report{}
	for id, pending := range taken {
		if !within.allow(id) {
			r.pending[id] = pending
			delete(taken, id)
		}
	}
	return taken, len(r.pending) > 0
}

// putBack returns a report that could not be committed, below what came since. A session that ended takes its report
// along: the agent says it again.
func (r *reports) putBack(old *report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if newer := r.pending[old.session.machine]; newer != nil {
		if newer.session == old.session {
			r.pending[old.session.machine] = merge(old, newer)
		}
		return
	}
	r.pending[old.session.machine] = old
}

// commitReports commits what was gathered, in rounds, until ctx ends.
func (h *Hub) commitReports(ctx context.Context) {
	wait := h.cfg.ReportInterval
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.reports.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = h.cfg.ReportInterval
		round, left := h.reports.take(h.told)
		if !h.commitRound(ctx, round) {
			wait = retryReports
			h.reports.again()
		} else if left {
			// The others need not wait with those that say too much.
			time.AfterFunc(retryReports, h.reports.again)
		}
	}
}

// again has the pending reports looked at.
func (r *reports) again() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// commitRound commits reports side by side, so that they share log entries, and says whether all got through.
func (h *Hub) commitRound(ctx context.Context, round map[string]*report) (complete bool) {
	var (
		group  sync.WaitGroup
		mu     sync.Mutex
		failed error
	)
	slots := make(chan struct{}, maxCommits)
	for _, r := range round {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := h.commitReport(ctx, r); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = err
			}
		})
	}
	group.Wait()
	if failed != nil && ctx.Err() == nil {
		h.cfg.Logger.Warn("cannot commit reports of agents; trying again", "error", failed)
	}
	return failed == nil
}

// commitReport commits and acknowledges one report. What the state refuses for good is acknowledged as well: it would be
// refused again. It returns an error for what is worth another attempt.
func (h *Hub) commitReport(ctx context.Context, r *report) error {
	s := r.session
	if present, err := h.session(s.machine); err != nil || present != s {
		return nil // The agent reconnected and says it again.
	}
	c := &raftlogv1.ReportMachine{Id: s.machine, Agent: r.status, Events: r.events}
	for _, p := range r.proofs {
		c.Proofs = append(c.Proofs, p)
	}
	if snapshot := h.cfg.State.Read(); r.facts != nil && snapshot.Cluster().GetFeatureLevel() >= factsLevel &&
		!proto.Equal(r.facts, snapshot.Machine(s.machine).GetStatus().GetFacts()) && h.knows.allow(s.machine) {
		c.Facts = r.facts
	}
	if r.dropped > 0 {
		h.cfg.Logger.Warn("part of an agent's report dropped", "machine", s.machine, "dropped", r.dropped)
		r.dropped = 0
	}
	err := h.do(ctx, s.machine, &raftlogv1.Command{Kind: &raftlogv1.Command_ReportMachine{ReportMachine: c}})
	switch errs.KindOf(err) {
	case "":
	case errs.Invalid, errs.NotFound, errs.Conflict, errs.Denied, errs.Unsupported:
		h.cfg.Logger.Warn("agent's report refused", "machine", s.machine, "error", err)
	default:
		h.reports.putBack(r)
		return err
	}
	s.out.add(&agentv1.ServerMessage{Kind: &agentv1.ServerMessage_ReportAck{ReportAck: &agentv1.ReportAck{Sequence: r.sequence}}})
	return nil
}

func statusOf(s *session, in *agentv1.Report) *provisionrv1.AgentStatus {
	status := &provisionrv1.AgentStatus{
		Version: s.version, BootId: s.boot, DesiredHash: hex.EncodeToString(in.GetDesiredHash()), PoolGeneration: in.GetPoolGeneration(),
		Converged: in.GetConverged(), Message: in.GetMessage(), Reported: timestamppb.Now(),
		Program: s.program,
	}
	if in.GetAgentVersion() != "" {
		status.Version = in.GetAgentVersion()
	}
	return status
}

// proofOf maps a proof; the states have the same numbers on both sides.
func proofOf(p *agentv1.Proof, desiredHash string) *provisionrv1.Proof {
	return &provisionrv1.Proof{
		Machine: p.GetMachine(), Assumption: p.GetAssumption(), State: provisionrv1.ProofState(p.GetState()),
		Expected: p.GetExpected(), Found: p.GetFound(), Remedy: p.GetRemedy(), DesiredHash: desiredHash,
	}
}

// factsOf maps facts, each within bounds.
func factsOf(f *agentv1.Facts) *provisionrv1.Facts {
	facts := &provisionrv1.Facts{
		OsRelease: cut(f.GetOsRelease(), maxFact), Kernel: cut(f.GetKernel(), maxFact), Architecture: cut(f.GetArchitecture(), maxFact),
		VpnPublicKey: cut(f.GetVpnPublicKey(), maxFact), RebootRequired: cut(f.GetRebootRequired(), maxFact),
		Cpus: f.GetCpus(), MemoryMib: f.GetMemoryMib(),
	}
	for _, key := range f.GetSshHostKeys()[:min(len(f.GetSshHostKeys()), maxHostKeys)] {
		// Half a key is none.
		if len(key) <= maxKey {
			facts.SshHostKeys = append(facts.SshHostKeys, cut(key, maxKey))
		}
	}
	return facts
}

// eventOf makes an event of a change that a person should know of: an error, or a repair of what had been right.
func eventOf(s *session, c *agentv1.ResourceChange) *provisionrv1.Event {
	e := &provisionrv1.Event{Time: c.GetAt(), Machine: s.machine, Slot: s.slot}
	switch {
	case c.GetError() != "":
		e.Reason, e.Warning = "ResourceFailed", true
		e.Message = fmt.Sprintf("%s cannot be brought to its desired state: %s", c.GetResource(), c.GetError())
	case c.GetAudit():
		e.Reason, e.Warning = "AuditDifference", true
		e.Message = fmt.Sprintf("%s is not as it should be, and was left as it is: %s", c.GetResource(), c.GetDiff())
	case c.GetDrift():
		e.Reason = "DriftRepaired"
		e.Message = fmt.Sprintf("%s had drifted and was repaired: %s", c.GetResource(), c.GetDiff())
	default:
		return nil
	}
	e.Message = cut(e.Message, maxText)
	return e
}
