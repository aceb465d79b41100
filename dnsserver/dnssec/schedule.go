package dnssec

import (
	"hash/fnv"
	"time"
)

// Times of pre-made signatures. The signing time of a zone is replicated state: every server must sign with the same. It
// should move every [Tick]: then a signature is valid for at least Lifetime - Interval (10 days) when it is replaced, which is
// longer than the time after which a secondary that lost us stops to answer (the SOA's expire). As long as it moves at least
// every [Interval], that is Lifetime - 2*Interval (6 days).
const (
	// Tick is the step of the signing time: smaller differences make no difference.
	Tick = time.Hour
	// Lifetime is how long a signature is valid from the tick in which its name's turn was.
	Lifetime = 14 * 24 * time.Hour
	// Interval is after how long each signature is made anew, provided that the signing time moves.
	Interval = turns * Tick
	// Backdating covers the clocks of resolvers that are late.
	Backdating = time.Hour

	turns = 96
)

func tickOf(t time.Time) int64 { return t.Unix() / int64(Tick/time.Second) }

// schedule says when each name's signatures are made. The tick is at least turns.
type schedule struct {
	tick int64
}

// turn returns the tick, at most the present one, at which the name's signatures were last due.
func (s schedule) turn(owner string) int64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(owner)) // A hash takes everything.
	return s.tick - (s.tick-int64(h.Sum32()%turns))%turns
}

// of returns the validity of a name's signatures. Owner is in wire form.
func (s schedule) of(owner string) validity { return validityAt(s.turn(owner)) }

// now returns the validity of what is signed anew at each tick.
func (s schedule) now() validity { return validityAt(s.tick) }

func validityAt(tick int64) validity {
	at := tick * int64(Tick/time.Second)
	return validity{
		inception:  uint32(at - int64(Backdating/time.Second)),
		expiration: uint32(at + int64(Lifetime/time.Second)),
	}
}

// tickAt returns the tick that validityAt was given, for times before 2106.
func (v validity) tick() int64 {
	return (int64(v.inception) + int64(Backdating/time.Second)) / int64(Tick/time.Second)
}
