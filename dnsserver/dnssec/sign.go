package dnssec

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// Bounds of one signing run.
const (
	// perWorker is how many names are worth a goroutine.
	perWorker = 16
	// progressStep is after how many names progress is told; fewer are done before anyone could look.
	progressStep = 2048
)

// signAll makes the changes of all names, by as many processors as are of use. A long run leaves half of them to others.
func (r *run) signAll(ctx context.Context, names []*name) ([]zone.Change, error) {
	changes := make([]zone.Change, len(names))
	var next, done atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range workers(len(names)) {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(names) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				change, err := r.sign(names[i])
				if err != nil {
					return err
				}
				changes[i] = change
				if n := int(done.Add(1)); len(names) > progressStep && (n%progressStep == 0 || n == len(names)) {
					r.progress(n, len(names))
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("cannot sign zone %s: %w", r.Origin(), err)
	}
	return changes, nil
}

// workers is how many goroutines sign a number of names.
func workers(names int) int {
	most := runtime.GOMAXPROCS(0)
	if names > progressStep {
		most = max(1, most/2)
	}
	return min(most, 1+names/perWorker)
}

// sign makes the change of one name.
func (r *run) sign(n *name) (zone.Change, error) {
	owner := zone.TextName(n.wire)
	change := zone.Change{Name: owner}
	if len(n.plain) == 0 {
		return change, nil
	}
	had := r.signed(owner)
	wire, valid := []byte(n.wire), r.schedule.of(n.wire)
	apex := len(wire) == len(r.origin)
	for _, set := range append(n.plain, nsec(n.next, n.plain, r.negative)) {
		v, keys := valid, []*Key{r.active}
		switch {
		case apex && set.typ == zone.TypeSOA:
			v = r.schedule.now()
		case apex && isOfKeys(set.typ):
			// A parent takes only what was signed after that by which it has its DS records (RFC 7344 section 6.2).
			v, keys = r.schedule.now(), r.keys
		}
		for _, k := range keys {
			signature, err := had.reuse(k, wire, set, v)
			if err != nil {
				return change, err
			}
			change.Records = append(change.Records, zone.Record{Name: owner, Type: zone.TypeRRSIG, TTL: set.ttl, Data: signature})
		}
		// The zone makes these two itself.
		if !apex || set.typ != zone.TypeSOA && set.typ != zone.TypeNS {
			change.Records = append(change.Records, set.records(owner)...)
		}
	}
	return change, nil
}

// signed is what a name has in a former version: its sets, and the data of their signatures.
type signed struct {
	sets       []rrset
	signatures [][]byte
}

func (r *run) signed(owner string) (had signed) {
	if r.former == nil {
		return had
	}
	var plain []zone.Record
	for record := range r.former.Records(owner) {
		if record.Type == zone.TypeRRSIG {
			had.signatures = append(had.signatures, record.Data)
		} else {
			plain = append(plain, record)
		}
	}
	had.sets = group(plain, r.soa.TTL)
	return had
}

// reuse returns the signature of a set: the former one, where the set is the same and the signature says what a new one
// would. Then it is what signing would make, octet for octet.
func (had signed) reuse(k *Key, owner []byte, set rrset, v validity) ([]byte, error) {
	for _, s := range had.sets {
		if !s.equal(set) {
			continue
		}
		prefix := k.appendPrefix(nil, owner, set, v)
		for _, signature := range had.signatures {
			if bytes.HasPrefix(signature, prefix) {
				return signature, nil
			}
		}
	}
	return k.sign(owner, set, v)
}

func coveredBy(rrsig []byte) zone.Type { return zone.Type(binary.BigEndian.Uint16(rrsig)) }

func tagIn(rrsig []byte) uint16 { return binary.BigEndian.Uint16(rrsig[rrsigTag:]) }

func validityIn(rrsig []byte) validity {
	return validity{
		inception:  binary.BigEndian.Uint32(rrsig[rrsigInception:]),
		expiration: binary.BigEndian.Uint32(rrsig[rrsigExpiration:]),
	}
}
