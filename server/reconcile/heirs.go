package reconcile

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// Times of heirs.
const (
	// noticeAhead is how long before its announced end a machine gets an heir.
	noticeAhead = 10 * time.Minute
	// maxDrain bounds how long a machine that has handed its name over goes on, for those that have its address still; it is
	// the time to live of its records, where that is less.
	maxDrain   = time.Minute
	defaultTTL = 30
)

// nameProofs are what an heir cannot prove of itself before it has the name. What a machine proves of its peers is none of
// its own proofs.
var nameProofs = []string{"dns.forward", "dns.reverse"}

// manages says whether all members understand heirs, notices and second addresses.
func manages(s *state.Snapshot) bool { return s.Cluster().GetFeatureLevel() >= 2 }

// slot is an index of a pool as it is now.
type slot struct {
	// holder has the name, heir is to have it; nil where there is none.
	holder, heir *provisionrv1.Machine
	// former says that another machine of the slot is gone or on its way out; leaving counts those that still exist.
	former  bool
	leaving int
	// noticed and outdated say why the holder is to have an heir; see planner.succession.
	noticed, outdated string
	// prepared says that the heir has nothing left to prove but the name.
	prepared bool
}

// living says that the heir may still come up.
func (s *slot) living() bool {
	switch s.heir.GetStatus().GetPhase() {
	case pending, launching, booting, joining, converging:
		return s.heir.GetMetadata().GetDeleted() == nil && s.heir.GetStatus().GetQuarantined() == ""
	}
	return false
}

// succession says why the holder of a slot is to be replaced by an heir, if it is.
func (p *planner) succession(b *budget, s *slot) {
	if s.holder == nil || !p.manages {
		return
	}
	if notice := s.holder.GetStatus().GetNotice(); notice != nil && b.safety.repair {
		if at := notice.GetAt(); at == nil || p.due(at.AsTime().Add(-noticeAhead)) {
			s.noticed = "the provider announces " + notice.GetKind()
		}
	}
	if b.safety.maxSurge > 0 {
		// An heir that is there stays while its holder comes and goes.
		if phase := s.holder.GetStatus().GetPhase(); phase == ready || phase == degraded || s.heir != nil {
			s.outdated = p.outdated(b, s.holder)
		}
	}
}

// serves says that the holder does its work, or might again by itself.
func (s *slot) serves() bool {
	switch s.holder.GetStatus().GetPhase() {
	case failed, draining, terminating:
		return false
	}
	return s.holder.GetMetadata().GetDeleted() == nil
}

// handOver plans that the heir of a slot becomes its holder.
func (p *planner) handOver(s *slot, reason string) {
	spec := s.holder.GetSpec()
	p.add(Action{
		Op: HandOver, Pool: spec.GetPool(), Index: spec.GetIndex(), Machine: s.holder.GetMetadata().GetName(),
		Heir: s.heir.GetMetadata().GetName(), Reason: reason,
	})
}

// heir plans the next step of an heir; it has not been judged unwanted.
func (p *planner) heir(b *budget, s *slot) {
	m, status := s.heir, s.heir.GetStatus()
	if s.serves() && s.noticed == "" && s.outdated == "" {
		p.move(m, terminating, "no heir is needed any more", time.Time{})
		return
	}
	if !s.serves() && s.living() {
		why := "its machine is " + state.PhaseName(s.holder.GetStatus().GetPhase())
		if s.holder.GetMetadata().GetDeleted() != nil {
			why = "its machine was deleted"
		}
		p.handOver(s, why)
	}
	switch status.GetPhase() {
	case pending:
		p.begin(b, m)
	case launching:
		p.launch(b, m)
	case booting, joining:
		p.comingUp(b, m)
	case converging:
		if p.prepared(b, m) {
			s.prepared = true
			return
		}
		p.comingUp(b, m)
	case unreachable:
		seen, known := p.Presence[m.GetMetadata().GetName()]
		switch {
		case seen.Connected:
			p.move(m, converging, "the agent is back", p.now.Add(b.safety.convergeDeadline))
		case known && p.due(seen.SilentSince.Add(b.safety.silentAfter)):
			p.move(m, terminating, "an heir whose agent is silent", time.Time{})
		}
	case failed:
		b.consider(p, m)
	default:
		p.move(m, terminating, "an heir cannot be "+state.PhaseName(status.GetPhase()), time.Time{})
	}
}

// prepared says that an heir lacks nothing but the name: its agent is connected and has converged to what it would be given
// now, and all that it has proven of itself holds, but for what depends on who has the name.
func (p *planner) prepared(b *budget, m *provisionrv1.Machine) bool {
	id := m.GetMetadata().GetName()
	if !p.Presence[id].Connected || p.outdated(b, m) != "" || p.duplicated(m) || !p.converged(m) {
		return false
	}
	own := 0
	for proof := range p.Snapshot.Proofs(id) {
		if proof.GetObserver() != id || slices.Contains(nameProofs, proof.GetAssumption()) {
			continue
		}
		if objection(proof, b.pool.GetSpec().GetVerify().GetUnprovable()) != "" {
			return false
		}
		own++
	}
	return own > 0
}

// inherit plans the heirs of a pool and their succession. Those of machines whose end is announced come first: they count
// with all others that are being replaced against what may be away at once, but one is always made.
func (b *budget) inherit(p *planner) {
	limit := max(1, b.safety.maxUnavailable)
	announced, surge := 0, 0
	for _, s := range b.slots {
		surge += s.leaving
		switch {
		case s.heir == nil:
		case s.noticed != "":
			announced++
		default:
			surge++
		}
	}
	b.replacing += announced
	held := 0
	for i := range b.pool.GetSpec().GetSize() {
		s := b.slots[i+1]
		switch {
		case s == nil || s.holder == nil || !s.serves():
		case s.heir != nil:
			b.succeed(p, s, limit)
		case s.noticed != "" && announced > 0 && b.replacing >= limit:
			held++
		case s.noticed != "":
			announced++
			b.replacing++
			b.makeHeir(p, i+1)
		case s.outdated != "" && surge < b.safety.maxSurge:
			surge++
			b.makeHeir(p, i+1)
		}
	}
	if held > 0 {
		p.say("RepairHeld", b.pool.GetMetadata().GetName(), nil, fmt.Sprintf(
			"the end of more machines is announced than max_unavailable (%d) allows to replace at once: the others wait", b.safety.maxUnavailable))
	}
}

func (b *budget) makeHeir(p *planner, index uint32) {
	p.add(Action{
		Op: Create, Pool: b.pool.GetMetadata().GetName(), Index: index, Generation: b.pool.GetMetadata().GetGeneration(), AsHeir: true,
	})
}

// succeed has an heir that is prepared take over: at once where the holder's end is announced or it serves badly, else as
// far as the pool can do without the moment that the name takes to be proven.
func (b *budget) succeed(p *planner, s *slot, limit int) {
	if !s.prepared {
		return
	}
	switch {
	case s.noticed != "":
		p.handOver(s, s.noticed)
	case s.holder.GetStatus().GetPhase() != ready:
		p.handOver(s, s.outdated)
	case b.unready < limit:
		b.unready++
		p.handOver(s, s.outdated)
	}
}

// drain lets a machine go on for a while after it has handed its name over.
func (p *planner) drain(m *provisionrv1.Machine) {
	status := m.GetStatus()
	ttl := p.Snapshot.Zone(m.GetSpec().GetZone()).GetSpec().GetTtl()
	if ttl == 0 {
		ttl = defaultTTL
	}
	if rest := min(time.Duration(ttl)*time.Second, maxDrain); p.due(status.GetSince().AsTime().Add(rest)) {
		p.move(m, terminating, status.GetReason(), time.Time{})
	}
}

// notices has recorded what a provider announces of a machine, and what it does not announce any more.
func (p *planner) notice(m *provisionrv1.Machine) {
	listing := p.Listings[m.GetSpec().GetProvider()]
	instance, listed := listing.Instances[m.GetMetadata().GetName()]
	if !listing.Known || !listed || !live(instance) || !p.manages || sameNotice(instance.Notice, m.GetStatus().GetNotice()) {
		return
	}
	p.add(Action{Op: Notice, Machine: m.GetMetadata().GetName(), Notice: instance.Notice})
}

// sameNotice compares notices as they are recorded, which is without what does not fit.
func sameNotice(listed, recorded *provisionrv1.Notice) bool {
	if listed == nil || recorded == nil {
		return listed == recorded
	}
	return listed.GetKind() == recorded.GetKind() && proto.Equal(listed.GetAt(), recorded.GetAt())
}
