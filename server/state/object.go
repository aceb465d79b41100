package state

import (
	"cmp"
	"fmt"
	"iter"
	"slices"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// RowOf returns the row within an object, or nil where it holds none.
func RowOf(o *provisionrv1.Object) any {
	switch kind := o.GetKind().(type) {
	case *provisionrv1.Object_Pool:
		return kind.Pool
	case *provisionrv1.Object_Zone:
		return kind.Zone
	case *provisionrv1.Object_Network:
		return kind.Network
	case *provisionrv1.Object_Provider:
		return kind.Provider
	case *provisionrv1.Object_User:
		return kind.User
	case *provisionrv1.Object_Token:
		return kind.Token
	case *provisionrv1.Object_Machine:
		return kind.Machine
	case *provisionrv1.Object_Slot:
		return kind.Slot
	case *provisionrv1.Object_AddressClaim:
		return kind.AddressClaim
	case *provisionrv1.Object_Event:
		return kind.Event
	case *provisionrv1.Object_Member:
		return kind.Member
	case *provisionrv1.Object_Vpn:
		return kind.Vpn
	case *provisionrv1.Object_VpnPeer:
		return kind.VpnPeer
	case *provisionrv1.Object_Secret:
		return kind.Secret
	case *provisionrv1.Object_ZoneKey:
		return kind.ZoneKey
	}
	return nil
}

// ObjectOf wraps a row as an object, or returns nil where no object can hold it.
func ObjectOf(row any) *provisionrv1.Object {
	switch row := row.(type) {
	case *provisionrv1.Pool:
		return &provisionrv1.Object{Kind: &provisionrv1.Object_Pool{Pool: row}}
	case *provisionrv1.Zone:
		return &provisionrv1.Object{Kind: &provisionrv1.Object_Zone{Zone: row}}
	case *provisionrv1.Network:
		return &provisionrv1.Object{Kind: &provisionrv1.Object_Network{Network: row}}
	case *provisionrv1.Provider:
		return &provisionrv1.Object{Kind: &provisionrv1.Object_Provider{Provider: row}}
	case *provisionrv1.User:
		return &provisionrv1.Object{Kind: &provisionrv1.Object_User{User: row}}
	case *provisionrv1.Token:
		return &provisionrv1.Object{Kind: &provisionrv1.Object_Token{Token: row}}
	case *provisionrv1.Machine:
		return &provisionrv1.Object{Kind: &provisionrv1.Object_Machine{Machine: row}}
	case *provisionrv1.Slot:
		return &provisionrv1.Object{Kind: &provisionrv1.Object_Slot{Slot: row}}
	case *provisionrv1.AddressClaim:
		return &provisionrv1.Object{Kind: &provisionrv1.Object_AddressClaim{AddressClaim: row}}
	case *provisionrv1.Event:
		return &provisionrv1.Object{Kind: &provisionrv1.Object_Event{Event: row}}
	case *provisionrv1.Member:
		return &provisionrv1.Object{Kind: &provisionrv1.Object_Member{Member: row}}
	case *provisionrv1.Vpn:
		return &provisionrv1.Object{Kind: &provisionrv1.Object_Vpn{Vpn: row}}
	case *provisionrv1.VpnPeer:
		return &provisionrv1.Object{Kind: &provisionrv1.Object_VpnPeer{VpnPeer: row}}
	case *provisionrv1.Secret:
		return &provisionrv1.Object{Kind: &provisionrv1.Object_Secret{Secret: row}}
	case *provisionrv1.ZoneKey:
		return &provisionrv1.Object{Kind: &provisionrv1.Object_ZoneKey{ZoneKey: row}}
	}
	return nil
}

// The kinds of name owners.
const (
	OwnerPool   = "pool"
	OwnerSlot   = "slot"
	OwnerZone   = "zone"
	OwnerMember = "server"
)

// LevelNames is the feature level from which on pools have records and endpoints, names more than one label, and records
// the facts of machines.
const LevelNames = 4

// NamesLevel reports whether the cluster is at [LevelNames].
func (s *Snapshot) NamesLevel() bool { return s.Cluster().GetFeatureLevel() >= LevelNames }

// PoolNames yields the names that a pool has for itself in its zone: its own, its aliases, and those of its endpoints and
// records. Those of its slots are the slots'.
func (s *Snapshot) PoolNames(p *provisionrv1.Pool) iter.Seq[NameOwner] {
	zone, pool := s.ZoneName(p), p.GetMetadata().GetName()
	names := slices.Concat([]string{pool}, p.GetSpec().GetAliases())
	if len(p.GetSpec().GetEndpoints())+len(p.GetSpec().GetRecords()) > 0 && s.NamesLevel() {
		for _, e := range p.GetSpec().GetEndpoints() {
			names = append(names, EndpointName(pool, e))
		}
		for _, r := range p.GetSpec().GetRecords() {
			names = append(names, r.GetName())
		}
	}
	return func(yield func(NameOwner) bool) {
		for _, name := range names {
			if !yield(NameOwner{Zone: zone, Name: name, Kind: OwnerPool, Owner: pool}) {
				return
			}
		}
	}
}

// EndpointName returns the name of a service that a pool offers (RFC 2782), within its zone.
func EndpointName(pool string, e *provisionrv1.PoolEndpoint) string {
	return "_" + e.GetService() + "._" + cmp.Or(e.GetProtocol(), "tcp") + "." + pool
}

// SlotName returns the registry entry of a slot of the pool.
func (s *Snapshot) SlotName(p *provisionrv1.Pool, slot string) NameOwner {
	return NameOwner{Zone: s.ZoneName(p), Name: slot, Kind: OwnerSlot, Owner: p.GetMetadata().GetName()}
}

// ZoneNames yields the names of a whole zone's static records.
func ZoneNames(z *provisionrv1.Zone) iter.Seq[NameOwner] {
	zone := z.GetMetadata().GetName()
	return func(yield func(NameOwner) bool) {
		for _, r := range z.GetSpec().GetRecords() {
			if !yield(NameOwner{Zone: zone, Name: r.GetName(), Kind: OwnerZone, Owner: zone}) {
				return
			}
		}
	}
}

// NameServer returns the name, within each zone, of a member as a name server.
func NameServer(member string) string { return "ns-" + member }

// MemberName returns the registry entry of a member in a zone.
func MemberName(zone, member string) NameOwner {
	return NameOwner{Zone: zone, Name: NameServer(member), Kind: OwnerMember, Owner: member}
}

// rebuildNames fills the name registry from the tables that it is derived from. Zones have their records' names by themselves.
func (tx *Tx) rebuildNames() error {
	claim := func(n NameOwner) error {
		if held := tx.ClaimName(n); held != nil {
			return fmt.Errorf("%w: the name %s of zone %s has two owners, %s and %s", ErrTorn, n.Name, n.Zone, held.Owner, n.Owner)
		}
		return nil
	}
	// Nobody has a name yet but static records.
	for z := range tx.Zones() {
		for m := range tx.Members() {
			if err := claim(MemberName(z.GetMetadata().GetName(), m.GetMetadata().GetName())); err != nil {
				return err
			}
		}
	}
	for p := range tx.Pools() {
		for n := range tx.PoolNames(p) {
			if err := claim(n); err != nil {
				return err
			}
		}
		for slot := range tx.SlotsOf(p.GetMetadata().GetName()) {
			if err := claim(tx.SlotName(p, slot.GetMetadata().GetName())); err != nil {
				return err
			}
		}
	}
	return tx.err
}
