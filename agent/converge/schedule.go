package converge

import (
	"errors"
	"time"
)

const (
	// settleTime is what an event waits for the ones that come with it: an editor makes several.
	settleTime = 100 * time.Millisecond
	// Something that drifts again within fightWindow after it was repaired may be in a fight with another program. From
	// fightStrikes repairs in a row on, events about it wait: fightFirst, doubling up to fightLast.
	fightWindow  = 30 * time.Second
	fightStrikes = 5
	fightFirst   = time.Second
	fightLast    = time.Minute
	// Something of which events come stormSize times with less than calm between, drift or not, is looked at every stormPace
	// from then on.
	stormSize = 20
	stormPace = 2 * time.Second
	calm      = 5 * time.Second
)

// schedule says when each resource of a plan is due. It only decides; its owner holds a lock.
type schedule struct {
	first, last time.Duration // bounds of the back-off
	places      []place
	// full is when all are due, missed when that was last so because events were lost.
	full, missed time.Time
}

// place is the schedule of one resource. Zero times mean never.
type place struct {
	// touched is when the newest event came that no check has seen; due is when to look.
	touched, due time.Time
	// heard is when the newest event came at all.
	heard time.Time
	// retry is when a failed resource is tried again, wait how long that was since it failed.
	retry time.Time
	wait  time.Duration
	// repaired is when drift was last repaired, strikes how often in a row, and slow what events wait for since.
	repaired time.Time
	strikes  int
	slow     time.Duration
	// storm is how often in a row there were events.
	storm int
}

// touch notes an event.
func (s *schedule) touch(i int, now time.Time) {
	p := &s.places[i]
	if p.touched.IsZero() {
		if now.Sub(p.heard) > calm {
			p.storm = 0
		}
		p.due = now.Add(settleTime)
		if p.storm++; p.storm > stormSize {
			p.due = now.Add(stormPace)
		}
	}
	p.touched, p.heard = now, now
}

// lost notes that events may have been missed: all that is right is due soon. What failed keeps its pace, and so does a source
// that loses events again and again.
func (s *schedule) lost(now time.Time) {
	soon := now.Add(settleTime)
	if pace := s.missed.Add(calm); pace.After(soon) {
		soon = pace
	}
	if soon.Before(s.full) {
		s.full, s.missed = soon, soon
	}
}

// at is when a resource is due by itself.
func (p *place) at() time.Time {
	if p.touched.IsZero() {
		return p.retry
	}
	// What fails keeps its pace: its own attempts may make events.
	if !p.retry.IsZero() {
		return p.retry
	}
	if slow := p.repaired.Add(p.slow); p.slow > 0 && slow.After(p.due) {
		return slow
	}
	return p.due
}

// next is when something is due.
func (s *schedule) next() time.Time {
	next := s.full
	for i := range s.places {
		if at := s.places[i].at(); !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	return next
}

// pick returns what is due, or nil where nothing is. What failed waits for its own time also where all are due.
func (s *schedule) pick(now time.Time) []bool {
	full := !now.Before(s.full)
	var picked []bool
	for i := range s.places {
		p := &s.places[i]
		at := p.at()
		if (at.IsZero() || now.Before(at)) && (!full || !p.retry.IsZero()) {
			continue
		}
		if picked == nil {
			picked = make([]bool, len(s.places))
		}
		picked[i] = true
	}
	return picked
}

// began notes that a check begins, which sees whatever was touched before.
func (s *schedule) began(i int) {
	s.places[i].touched = time.Time{}
}

// ended notes the outcome. A resource that was not tried, because one before it failed, is looked at when that one is right.
// It reports how many repairs in a row there were, where their pace was just slowed down.
func (s *schedule) ended(i int, o *Outcome, blocked bool, now time.Time) (strikes int) {
	p := &s.places[i]
	switch {
	case blocked:
		p.touched, p.retry, p.wait = time.Time{}, time.Time{}, 0
	case errors.Is(o.Err, ErrAudit):
		p.retry, p.wait = time.Time{}, 0
	case o.Err != nil:
		p.wait = min(max(2*p.wait, s.first), s.last)
		p.retry = now.Add(p.wait)
	default:
		p.retry, p.wait = time.Time{}, 0
	}
	if !o.Changed || !o.Drift {
		return 0
	}
	if p.strikes > 0 && now.Sub(p.repaired) > fightWindow+2*p.slow {
		p.strikes, p.slow = 0, 0
	}
	p.repaired = now
	p.strikes++
	if p.strikes < fightStrikes || p.slow == fightLast {
		return 0
	}
	p.slow = min(max(2*p.slow, fightFirst), fightLast)
	return p.strikes
}
