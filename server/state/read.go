package state

import (
	"iter"
	"net/netip"

	"github.com/hashicorp/go-memdb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// Snapshot is the state at one version. It is immutable and safe for concurrent use; so are its rows, which nobody may
// change.
type Snapshot struct {
	txn *memdb.Txn
	// publication counts the publications of the store: see [Store.Changes].
	publication uint64
}

// get returns the row with the key of a unique index, or nil.
func get[T any](s *Snapshot, t Table, k []byte) T {
	raw, err := s.txn.First(memTables[t], idIndex, k)
	row, _ := raw.(T)
	if err != nil {
		var none T
		return none
	}
	return row
}

// first returns the first row of an index at or below a prefix, or nil.
func first[T any](s *Snapshot, t Table, index string, prefix []byte) T {
	for row := range scan[T](s, t, index, prefix) {
		return row
	}
	var none T
	return none
}

// scan yields the rows of an index whose keys begin with the prefix, in the order of their keys.
func scan[T any](s *Snapshot, t Table, index string, prefix []byte) iter.Seq[T] {
	return func(yield func(T) bool) {
		it, err := s.txn.Get(memTables[t], index, prefix)
		if err != nil {
			return
		}
		drain(it, yield)
	}
}

// from yields the rows of an index from a key on.
func from[T any](s *Snapshot, t Table, index string, k []byte) iter.Seq[T] {
	return func(yield func(T) bool) {
		it, err := s.txn.LowerBound(memTables[t], index, k)
		if err != nil {
			return
		}
		drain(it, yield)
	}
}

func drain[T any](it memdb.ResultIterator, yield func(T) bool) {
	for raw := it.Next(); raw != nil; raw = it.Next() {
		if row, ok := raw.(T); ok && !yield(row) {
			return
		}
	}
}

func (s *Snapshot) readMeta() *meta {
	raw, err := s.txn.First(metaTable, idIndex, []byte{0})
	if err != nil {
		return nil
	}
	m, _ := raw.(*meta)
	return m
}

// Version returns the log position that the snapshot includes; it is zero before the first entry.
func (s *Snapshot) Version() *provisionrv1.Version {
	if m := s.readMeta(); m != nil && m.version != nil {
		return m.version
	}
	return &provisionrv1.Version{}
}

// MachineCount returns how many machine records there are, gone ones included.
func (s *Snapshot) MachineCount() int {
	if m := s.readMeta(); m != nil {
		return m.machines
	}
	return 0
}

// Cluster returns the cluster record, or nil before InitCluster.
func (s *Snapshot) Cluster() *provisionrv1.Cluster {
	one := get[*singleton](s, TableCluster, key("cluster"))
	if one == nil {
		return nil
	}
	c, _ := one.row.(*provisionrv1.Cluster)
	return c
}

// SealedKey returns the cluster's wrapped data key, or nil.
func (s *Snapshot) SealedKey() *raftlogv1.SealedKey {
	one := get[*singleton](s, TableCluster, key("sealed"))
	if one == nil {
		return nil
	}
	k, _ := one.row.(*raftlogv1.SealedKey)
	return k
}

// Pool returns the pool, or nil.
func (s *Snapshot) Pool(name string) *provisionrv1.Pool {
	return get[*provisionrv1.Pool](s, TablePools, key(name))
}

// Pools yields all pools by name.
func (s *Snapshot) Pools() iter.Seq[*provisionrv1.Pool] {
	return scan[*provisionrv1.Pool](s, TablePools, idIndex, nil)
}

// Machine returns the machine with the id, or nil.
func (s *Snapshot) Machine(id string) *provisionrv1.Machine {
	return get[*provisionrv1.Machine](s, TableMachines, key(id))
}

// MachineNamed returns the machine by its id, or the holder of the slot by its name or FQDN, or nil.
func (s *Snapshot) MachineNamed(name string) *provisionrv1.Machine {
	if m := s.Machine(name); m != nil {
		return m
	}
	slot := s.Slot(name)
	if slot == nil {
		slot = first[*provisionrv1.Slot](s, TableSlots, "fqdn", key(name))
	}
	if slot.GetHolder() == "" {
		return nil
	}
	return s.Machine(slot.GetHolder())
}

// Machines yields all machines by id, gone ones included.
func (s *Snapshot) Machines() iter.Seq[*provisionrv1.Machine] {
	return scan[*provisionrv1.Machine](s, TableMachines, idIndex, nil)
}

// MachinesOf yields the machines of a pool by slot index, gone ones included.
func (s *Snapshot) MachinesOf(pool string) iter.Seq[*provisionrv1.Machine] {
	return scan[*provisionrv1.Machine](s, TableMachines, "pool", key(pool))
}

// Slot returns the slot, or nil. A pool has a slot for every index up to its size, held or not.
func (s *Snapshot) Slot(name string) *provisionrv1.Slot {
	return get[*provisionrv1.Slot](s, TableSlots, key(name))
}

// Slots yields all slots by name.
func (s *Snapshot) Slots() iter.Seq[*provisionrv1.Slot] {
	return scan[*provisionrv1.Slot](s, TableSlots, idIndex, nil)
}

// SlotsOf yields the slots of a pool by index.
func (s *Snapshot) SlotsOf(pool string) iter.Seq[*provisionrv1.Slot] {
	return scan[*provisionrv1.Slot](s, TableSlots, "pool", key(pool))
}

// Claim returns the claim of an address of a network, or nil.
func (s *Snapshot) Claim(network, address string) *provisionrv1.AddressClaim {
	return get[*provisionrv1.AddressClaim](s, TableClaims, claimKey(network, address))
}

// Claims yields the claims of a network by address, released ones included.
func (s *Snapshot) Claims(network string) iter.Seq[*provisionrv1.AddressClaim] {
	return scan[*provisionrv1.AddressClaim](s, TableClaims, idIndex, key(network))
}

// ClaimsIn yields the claims of a network that lie in a range, by address, released ones included.
func (s *Snapshot) ClaimsIn(network string, in netip.Prefix) iter.Seq[*provisionrv1.AddressClaim] {
	first := in.Masked().Addr().As16()
	octets := (128 - in.Addr().BitLen() + in.Bits()) / 8
	return func(yield func(*provisionrv1.AddressClaim) bool) {
		for claim := range scan[*provisionrv1.AddressClaim](s, TableClaims, idIndex, append(key(network), first[:octets]...)) {
			if addr, err := netip.ParseAddr(claim.GetAddress()); err == nil && in.Contains(addr) && !yield(claim) {
				return
			}
		}
	}
}

// ClaimsOf yields the claims that a machine holds.
func (s *Snapshot) ClaimsOf(machineID string) iter.Seq[*provisionrv1.AddressClaim] {
	return scan[*provisionrv1.AddressClaim](s, TableClaims, "machine", key(machineID))
}

// LastClaim returns the claim of the highest address of a network, or nil.
func (s *Snapshot) LastClaim(network string) *provisionrv1.AddressClaim {
	it, err := s.txn.GetReverse(memTables[TableClaims], idIndex, key(network))
	if err != nil {
		return nil
	}
	c, _ := it.Next().(*provisionrv1.AddressClaim)
	return c
}

// LeastRecentlyReleased returns the claim whose address has been free for longest, or nil.
func (s *Snapshot) LeastRecentlyReleased(network string) *provisionrv1.AddressClaim {
	return first[*provisionrv1.AddressClaim](s, TableClaims, "released", key(network))
}

// Proofs yields the proofs about a machine by assumption, then observer.
func (s *Snapshot) Proofs(machineID string) iter.Seq[*provisionrv1.Proof] {
	return scan[*provisionrv1.Proof](s, TableProofs, idIndex, key(machineID))
}

// Proof returns one proof, or nil.
func (s *Snapshot) Proof(machineID, assumption, observer string) *provisionrv1.Proof {
	return get[*provisionrv1.Proof](s, TableProofs, key(machineID, assumption, observer))
}

// ProofsBy yields the proofs that a machine observed, about itself and others.
func (s *Snapshot) ProofsBy(observer string) iter.Seq[*provisionrv1.Proof] {
	return scan[*provisionrv1.Proof](s, TableProofs, "observer", key(observer))
}

// Events yields the events after a log index, oldest first. After 0 yields all; any other index is one of the present
// incarnation.
func (s *Snapshot) Events(after uint64) iter.Seq[*provisionrv1.Event] {
	if after == 0 {
		return scan[*provisionrv1.Event](s, TableEvents, idIndex, nil)
	}
	start := &provisionrv1.Version{Incarnation: s.Version().GetIncarnation(), Index: after + 1}
	if after+1 == 0 {
		return func(func(*provisionrv1.Event) bool) {}
	}
	return from[*provisionrv1.Event](s, TableEvents, idIndex, versionKey(start))
}

// NameOwner returns who has a name in a zone (by the zone's object name), or nil.
func (s *Snapshot) NameOwner(zone, name string) *NameOwner {
	if claimed := s.claimedName(zone, name); claimed != nil {
		return claimed
	}
	if s.Records(zone).Has(name) {
		return &NameOwner{Zone: zone, Name: name, Kind: OwnerZone, Owner: zone}
	}
	return nil
}

// claimedName returns who has a name in a zone, unless that is a static record of the zone.
func (s *Snapshot) claimedName(zone, name string) *NameOwner {
	return get[*NameOwner](s, tableNames, key(zone, name))
}

// AppliedRequest returns the remembered result of a request, or nil.
func (s *Snapshot) AppliedRequest(id string) *raftlogv1.AppliedRequest {
	return get[*raftlogv1.AppliedRequest](s, tableApplied, key(id))
}
