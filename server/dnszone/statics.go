package dnszone

import (
	"bytes"
	"cmp"
	"iter"
	"net/netip"
	"slices"

	"github.com/provisionr/provisionr/server/state"
)

// statics is what the addresses of static records point to: of several names the first, those of zones before those of pools.
// It refers to the records, because a cluster may have many.
type statics struct {
	owners []staticOwner
	// places are in order of address, each of which is there once.
	places []staticPlace
}

// staticOwner is a zone or a pool with static records, and the domain of their names.
type staticOwner struct {
	domain  string
	records *state.Records
}

// staticPlace says which record of which owner has an address, which is mapped if it is of IPv4.
type staticPlace struct {
	addr      [16]byte
	owner, at uint32
}

func newStatics(s *state.Snapshot) *statics {
	st := &statics{}
	size := 0
	add := func(domain string, records *state.Records) {
		if records.Len() > 0 {
			size += records.Len()
			st.owners = append(st.owners, staticOwner{domain, records})
		}
	}
	for z := range s.Zones() {
		add(z.GetSpec().GetDomain(), s.Records(z.GetMetadata().GetName()))
	}
	if s.NamesLevel() {
		for p := range s.Pools() {
			// Admitted records can be packed.
			if records, err := state.PackRecords(p.GetSpec().GetRecords()); err == nil {
				add(s.Zone(s.ZoneName(p)).GetSpec().GetDomain(), records)
			}
		}
	}
	st.places = make([]staticPlace, 0, size)
	for i, owner := range st.owners {
		for at, addr := range owner.records.Addresses() {
			st.places = append(st.places, staticPlace{addr.As16(), uint32(i), at})
		}
	}
	slices.SortFunc(st.places, func(a, b staticPlace) int {
		return cmp.Or(bytes.Compare(a.addr[:], b.addr[:]), cmp.Compare(a.owner, b.owner), cmp.Compare(a.at, b.at))
	})
	st.places = slices.Clip(slices.CompactFunc(st.places, func(a, b staticPlace) bool { return a.addr == b.addr }))
	return st
}

// all yields the addresses in order, and what they point to.
func (st *statics) all() iter.Seq2[netip.Addr, string] {
	return func(yield func(netip.Addr, string) bool) {
		for _, p := range st.places {
			if !yield(netip.AddrFrom16(p.addr).Unmap(), st.name(p)) {
				return
			}
		}
	}
}

// target returns what an address points to, or "".
func (st *statics) target(addr netip.Addr) string {
	wanted := addr.As16()
	i, found := slices.BinarySearchFunc(st.places, wanted, func(p staticPlace, wanted [16]byte) int {
		return bytes.Compare(p.addr[:], wanted[:])
	})
	if !found {
		return ""
	}
	return st.name(st.places[i])
}

func (st *statics) name(p staticPlace) string {
	owner := st.owners[p.owner]
	return absoluteName(owner.records.NameAt(p.at), owner.domain)
}

// moved yields the addresses that point elsewhere afterwards.
func (st *statics) moved(after *statics) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for b, a := st.places, after.places; len(b)+len(a) > 0; {
			var order int
			switch {
			case len(b) == 0:
				order = 1
			case len(a) == 0:
				order = -1
			default:
				order = bytes.Compare(b[0].addr[:], a[0].addr[:])
			}
			var addr [16]byte
			same := false
			if order <= 0 {
				addr = b[0].addr
				same = order == 0 && st.sameName(b[0], after, a[0])
				b = b[1:]
			}
			if order >= 0 {
				addr = a[0].addr
				a = a[1:]
			}
			if !same && !yield(netip.AddrFrom16(addr).Unmap()) {
				return
			}
		}
	}
}

func (st *statics) sameName(p staticPlace, after *statics, q staticPlace) bool {
	b, a := st.owners[p.owner], after.owners[q.owner]
	return b.records == a.records && b.domain == a.domain && p.at == q.at || st.name(p) == after.name(q)
}
