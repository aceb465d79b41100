package dnssec

import (
	"fmt"
	"time"
)

// State is how far a key is. A key is published first, so that resolvers learn it before it signs; then active; then
// retired, while resolvers still remember what it signed. The first key of a zone is active at once.
type State uint8

const (
	// Published: the key is in the DNSKEY set, which it signs too.
	Published State = iota + 1
	// Active: the key signs the zone. Every zone has exactly one such key.
	Active
	// Retired: the key is still in the DNSKEY set, which it signs too.
	Retired
)

// String returns the state as resources spell it.
func (s State) String() string {
	switch s {
	case Published:
		return "published"
	case Active:
		return "active"
	case Retired:
		return "retired"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// ParseState reads what String wrote.
func ParseState(text string) (State, error) {
	for _, s := range []State{Published, Active, Retired} {
		if s.String() == text {
			return s, nil
		}
	}
	return 0, fmt.Errorf("unknown state of a key %q", text)
}

// Timing says how long the steps of a rollover must be apart (RFC 7583 section 3.3.1), so that a resolver validates
// whatever it still remembers. The steps are:
//
//  1. The new key is published. Its DS record joins the old one in the parent zone from then on, or replaces it Publish later.
//  2. The new key becomes active and the old one retired: Publish after the first step, when the parent has the new DS.
//  3. The retired key is removed: Retire after the second step, and DS after the parent has dropped its DS record.
type Timing struct {
	// TTL is the largest of the zone.
	TTL time.Duration
	// DS is the TTL of the parent's DS record; zero means a day, which is the longest that is usual.
	DS time.Duration
	// Propagation is how long a change takes to reach every server and secondary; zero means an hour: much longer than the
	// zone's refresh, for a secondary that was away.
	Propagation time.Duration
}

func (t Timing) propagation() time.Duration {
	if t.Propagation == 0 {
		return time.Hour
	}
	return t.Propagation
}

func (t Timing) ds() time.Duration {
	if t.DS == 0 {
		return 24 * time.Hour
	}
	return t.DS
}

// Publish is how long a key is published before it can become active, and before the parent may have its DS record
// alone: until no resolver remembers a DNSKEY set without it.
func (t Timing) Publish() time.Duration { return t.TTL + t.propagation() }

// Retire is how long a key stays retired before it is removed: until no resolver remembers a signature that only it can
// check, or a DS set that names only it, provided that the parent had the new DS record when the key was retired.
func (t Timing) Retire() time.Duration { return max(t.TTL, t.ds()) + t.propagation() }
