package dnssec

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// Times of signatures that are made when they are asked for.
const (
	// onlineStep is how long the same signature is made, so that it can be remembered.
	onlineStep = time.Hour
	// onlineLifetime is how long it is valid from the step's beginning: longer than any TTL, and than a resolver's clock
	// is likely to be wrong.
	onlineLifetime = 3 * 24 * time.Hour
)

// OnlineConfig of an Online.
type OnlineConfig struct {
	// CacheSize bounds the signatures that are remembered, about 150 octets each. Zero means 32768.
	CacheSize int
	// Workers bounds the signatures that are made at a time; further answers wait. Zero means one per processor.
	Workers int
}

// Online signs the answers of zones of mode [zone.Online] while they are asked for. It is safe for use by several
// goroutines.
type Online struct {
	keys    atomic.Pointer[map[string]onlineKeys]
	cache   cache
	workers chan struct{}
}

// onlineKeys are the keys of one zone: all of them in order of tag, the one that signs, and their records.
type onlineKeys struct {
	all     []*Key
	active  *Key
	records []zone.Record
}

// NewOnline makes an Online without keys: it answers SERVFAIL until it has those of a zone.
func NewOnline(cfg OnlineConfig) *Online {
	if cfg.CacheSize <= 0 {
		cfg.CacheSize = 32768
	}
	if cfg.Workers <= 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	o := &Online{cache: cache{size: max(cfg.CacheSize/2, 1)}, workers: make(chan struct{}, cfg.Workers)}
	o.keys.Store(&map[string]onlineKeys{})
	return o
}

// SetKeys replaces the keys of all zones at once. It refuses, for each zone, what [New] refuses, and then changes nothing.
func (o *Online) SetKeys(keys []KeyState) error {
	byOrigin := map[string][]KeyState{}
	for _, k := range keys {
		if k.Key == nil {
			return fmt.Errorf("cannot sign online: a key is missing")
		}
		byOrigin[k.Key.origin] = append(byOrigin[k.Key.origin], k)
	}
	zones := make(map[string]onlineKeys, len(byOrigin))
	for origin, states := range byOrigin {
		all, active, err := checkKeys(states)
		if err != nil {
			return fmt.Errorf("cannot sign zone %s online: %w", origin, err)
		}
		zones[origin] = onlineKeys{all: all, active: active, records: keyRecords(states)}
	}
	o.keys.Store(&zones)
	return nil
}

// KeyRecords returns the DNSKEY, CDS and CDNSKEY records of the keys of a zone, which belong to the origin of a zone that is
// signed online, for those who ask without DO. A [Signer] adds them by itself.
func KeyRecords(origin string, keys []KeyState) []zone.Record {
	owner, err := zone.AppendName(nil, origin)
	if err != nil {
		return nil
	}
	origin = zone.TextName(owner)
	return keyRecords(slices.DeleteFunc(slices.Clone(keys), func(k KeyState) bool { return k.Key.origin != origin }))
}

// Answer returns the answer to a query with DO about a zone that is signed online: what [zone.Set.Answer] leaves with the
// outcome [zone.Sign]. Its last record is an OPT without options. Nil means no answer: ctx ended, or the query is none.
// It never exceeds what the sender takes, at most [zone.MaxUDP] octets over UDP.
func (o *Online) Answer(ctx context.Context, set *zone.Set, query []byte, tcp bool) []byte {
	var q zone.Query
	if zone.Parse(query, &q) != zone.Ask {
		return nil
	}
	if q.Type() == typeNXNAME {
		return invalidType(&q, query) // RFC 9824 section 3.4: nobody has that type.
	}
	b := newReply(&q, query, tcp)
	code, err := o.answer(ctx, set, b)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return zone.Failure(nil, query, zone.ServerFailure)
	}
	return b.finish(code)
}

// era returns the validity of signatures made now.
func era(now time.Time) validity {
	at := now.Truncate(onlineStep)
	return validity{inception: uint32(at.Add(-Backdating).Unix()), expiration: uint32(at.Add(onlineLifetime).Unix())}
}

// sign returns the data of the set's RRSIG, from memory if it can.
func (o *Online) sign(ctx context.Context, k *Key, owner []byte, set rrset, v validity) ([]byte, error) {
	data := k.appendPrefix(make([]byte, 0, rrsigSigner+len(k.owner)+PublicSize), owner, set, v)
	d := digestOf{sum: digest(data, owner, set), key: k}
	made, ok := o.cache.get(d)
	if !ok {
		select {
		case o.workers <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		var err error
		made, err = k.signDigest(d.sum)
		<-o.workers
		if err != nil {
			return nil, err
		}
		o.cache.put(d, made)
	}
	return append(data, made[:]...), nil
}
