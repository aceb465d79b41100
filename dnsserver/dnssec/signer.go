package dnssec

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// KeyState is a key of a zone and its state.
type KeyState struct {
	Key   *Key
	State State
}

// Config of a Signer.
type Config struct {
	// Keys of the zone, all with their private part: exactly one is active.
	Keys []KeyState
	// Signed is the signing time: what all servers have agreed on, not a clock. See [Tick].
	Signed time.Time
	// Progress, if set, is told how many names of a zone are signed, from several goroutines, when a run signs more than
	// a few thousand of them.
	Progress func(done, total int)
}

// Signer signs the versions of one zone. It is immutable and safe for use by several goroutines.
type Signer struct {
	origin []byte
	active *Key
	keys   []*Key
	// records are those of the keys.
	records  []zone.Record
	schedule schedule
	progress func(done, total int)
}

// New makes a signer. It refuses keys of several zones, two of one tag, keys without a private part, and anything but
// exactly one active key.
func New(cfg Config) (*Signer, error) {
	keys, active, err := checkKeys(cfg.Keys)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot sign: %w", err)
	case cfg.Signed.Unix() < int64((Interval+Backdating)/time.Second):
		return nil, errors.New("cannot sign: no signing time")
	}
	s := &Signer{
		origin: active.owner, active: active, keys: keys, records: keyRecords(cfg.Keys),
		schedule: schedule{tick: tickOf(cfg.Signed)}, progress: cfg.Progress,
	}
	if s.progress == nil {
		s.progress = func(int, int) {}
	}
	return s, nil
}

// checkKeys returns the keys in order of tag, and which is active.
func checkKeys(states []KeyState) (keys []*Key, active *Key, err error) {
	for _, ks := range states {
		switch {
		case ks.Key == nil || ks.Key.private == nil:
			return nil, nil, errors.New("a key has no private part")
		case ks.State < Published || ks.State > Retired:
			return nil, nil, fmt.Errorf("key %s: %s", ks.Key, ks.State)
		case ks.State == Active && active != nil:
			return nil, nil, fmt.Errorf("keys %s and %s are both active", active, ks.Key)
		case ks.State == Active:
			active = ks.Key
		}
		keys = append(keys, ks.Key)
	}
	if active == nil {
		return nil, nil, errors.New("no key is active")
	}
	slices.SortFunc(keys, func(a, b *Key) int { return cmp.Compare(a.tag, b.tag) })
	for i, k := range keys {
		switch {
		case k.origin != active.origin:
			return nil, nil, fmt.Errorf("key %s is not of zone %s", k, active.origin)
		case i > 0 && keys[i-1].tag == k.tag:
			return nil, nil, fmt.Errorf("two keys %s", k)
		}
	}
	return keys, active, nil
}

// Origin returns the zone's name in lower case, with final dot.
func (s *Signer) Origin() string { return s.active.origin }

// Sign returns the changes that turn base into its next version, signed: the plain changes given, and what follows for
// signatures and the NSEC chain. The caller passes them, with the same serial, to base.With. Records that signing makes -
// RRSIG, NSEC, DNSKEY, CDS, CDNSKEY - are left out where the given changes have them. A version without changes has an SOA of
// its own, and signatures whose turn came.
//
// Where base is not signed, or not with these keys, or the last signing time is [Interval] away, all of it is signed, until
// ctx ends: a large one by half of the processors, as the others have to answer.
func (s *Signer) Sign(ctx context.Context, base *zone.Zone, serial uint32, changes []zone.Change) ([]zone.Change, error) {
	r, err := s.newRun(base, base, serial)
	if err != nil {
		return nil, err
	}
	if tick, ok := s.signedAt(base); ok {
		err = r.incremental(tick, changes)
	} else {
		err = r.everything(changes)
	}
	return r.finish(ctx, err)
}

// SignAll returns the changes that sign a zone that was built from plain records. What a former version of the zone has
// signed in the same way is taken over; former may be nil. The caller passes them, with the zone's serial, to base.With.
func (s *Signer) SignAll(ctx context.Context, base, former *zone.Zone) ([]zone.Change, error) {
	r, err := s.newRun(base, former, base.Serial())
	if err != nil {
		return nil, err
	}
	return r.finish(ctx, r.everything(nil))
}

// knows reports whether a zone has the active key. Its signatures of that key's tag are then that key's.
func (s *Signer) knows(former *zone.Zone) bool {
	own := s.active.data()
	for r := range former.Records(s.Origin()) {
		if r.Type == zone.TypeDNSKEY && bytes.Equal(r.Data, own) {
			return true
		}
	}
	return false
}

// signedAt returns the tick at which a zone was last signed, and whether that was with the same keys in the same roles.
func (s *Signer) signedAt(base *zone.Zone) (tick int64, ok bool) {
	own := 0
	for r := range base.Records(base.Origin()) {
		switch {
		case r.Type == zone.TypeDNSKEY:
			if !slices.ContainsFunc(s.keys, func(k *Key) bool { return bytes.Equal(k.data(), r.Data) }) {
				return 0, false
			}
			own++
		case r.Type == zone.TypeRRSIG && coveredBy(r.Data) == zone.TypeSOA:
			if tagIn(r.Data) != s.active.tag {
				return 0, false
			}
			tick, ok = validityIn(r.Data).tick(), true
		}
	}
	return tick, ok && own == len(s.keys)
}
