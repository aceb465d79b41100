package state

import (
	"bytes"
	"errors"
	"fmt"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// Put inserts or replaces a row of any table that has a message type of its own. The row belongs to the store then. A zone is
// whole, and has the names of its records from then on: whether they are another's is for [Tx.ClaimName] to say before.
// Events, applied requests, names, the cluster and its key have methods of their own.
func (tx *Tx) Put(row any) {
	t, ok := tableOf(row)
	if !ok {
		tx.err = fmt.Errorf("no table holds rows of type %T", row)
		return
	}
	if z, zone := row.(*provisionrv1.Zone); zone {
		packed, err := packZone(z)
		if err != nil {
			tx.err = errors.Join(tx.err, err)
			return
		}
		// Who looks whether they are others sees at once that they are not.
		if present := tx.Records(packed.GetMetadata().GetName()); present != nil && packed.Records != nil && bytes.Equal(present.wire, packed.Records.wire) {
			packed.Records = present
		}
		row = packed
	}
	if t == TableMachines && tx.Machine(row.(*provisionrv1.Machine).GetMetadata().GetName()) == nil {
		tx.countMachines(1)
	}
	tx.insert(t, row)
}

// Delete removes a row that a read of this transaction returned.
func (tx *Tx) Delete(row any) {
	t, ok := tableOf(row)
	if !ok {
		tx.err = fmt.Errorf("no table holds rows of type %T", row)
		return
	}
	if t == TableMachines {
		tx.countMachines(-1)
	}
	if z, zone := row.(*provisionrv1.Zone); zone {
		row = &ZoneRow{Zone: z}
	}
	tx.remove(t, row)
}

func (tx *Tx) countMachines(by int) {
	m := tx.meta()
	m.machines += by
	tx.putMeta(m)
}

func tableOf(row any) (Table, bool) {
	switch row.(type) {
	case *provisionrv1.Pool:
		return TablePools, true
	case *provisionrv1.Machine:
		return TableMachines, true
	case *provisionrv1.Slot:
		return TableSlots, true
	case *provisionrv1.AddressClaim:
		return TableClaims, true
	case *provisionrv1.Zone:
		return TableZones, true
	case *provisionrv1.Network:
		return TableNetworks, true
	case *provisionrv1.Provider:
		return TableProviders, true
	case *provisionrv1.User:
		return TableUsers, true
	case *provisionrv1.Token:
		return TableTokens, true
	case *provisionrv1.Member:
		return TableMembers, true
	case *provisionrv1.Proof:
		return TableProofs, true
	case *raftlogv1.Authority:
		return TableAuthorities, true
	case *raftlogv1.JoinToken:
		return TableJoinTokens, true
	case *provisionrv1.Vpn:
		return TableVpns, true
	case *provisionrv1.VpnPeer:
		return TableVpnPeers, true
	case *provisionrv1.Secret:
		return TableSecrets, true
	case *provisionrv1.ZoneKey:
		return TableZoneKeys, true
	}
	return 0, false
}

// PutCluster replaces the cluster record. It holds the index of the last change of names: what else the transaction writes is
// remembered for [Store.Changes].
func (tx *Tx) PutCluster(c *provisionrv1.Cluster) {
	tx.named = true
	tx.insert(TableCluster, &singleton{"cluster", c})
}

// PutSealedKey replaces the cluster's sealed key.
func (tx *Tx) PutSealedKey(k *raftlogv1.SealedKey) { tx.insert(TableCluster, &singleton{"sealed", k}) }

// AddEvent appends an event, whose version is set so that it is unique and ordered: Sub counts the events of one log
// index. The oldest event above MaxEvents is dropped.
func (tx *Tx) AddEvent(e *provisionrv1.Event, at *provisionrv1.Version) {
	m := tx.meta()
	if m.eventIndex != at.GetIndex() {
		m.eventIndex, m.eventSub = at.GetIndex(), 0
	}
	e.Version = &provisionrv1.Version{Incarnation: at.GetIncarnation(), Index: at.GetIndex(), Sub: m.eventSub}
	m.eventSub++
	tx.insert(TableEvents, e)
	if m.events++; m.events > MaxEvents {
		if oldest := first[*provisionrv1.Event](&tx.Snapshot, TableEvents, idIndex, nil); oldest != nil {
			tx.remove(TableEvents, oldest)
			m.events--
		}
	}
	tx.putMeta(m)
}

// RememberRequest keeps the result of a request. The oldest above MaxApplied is dropped.
func (tx *Tx) RememberRequest(a *raftlogv1.AppliedRequest) {
	m := tx.meta()
	tx.insert(tableApplied, a)
	if m.applied++; m.applied > MaxApplied {
		if oldest := first[*raftlogv1.AppliedRequest](&tx.Snapshot, tableApplied, "version", nil); oldest != nil {
			tx.remove(tableApplied, oldest)
			m.applied--
		}
	}
	tx.putMeta(m)
}

// ClaimName registers a name; it returns who has it already, or nil where the claim succeeded or was the owner's before. The
// name of a static record is only looked up: its zone's row has it, once it is put.
func (tx *Tx) ClaimName(n NameOwner) *NameOwner {
	if held := tx.NameOwner(n.Zone, n.Name); held != nil {
		if *held == n {
			return nil
		}
		return held
	}
	if n.Kind != OwnerZone {
		tx.insert(tableNames, &n)
	}
	return nil
}

// ReleaseName gives a name back if it is the owner's. Those of static records go with them.
func (tx *Tx) ReleaseName(n NameOwner) {
	if held := tx.claimedName(n.Zone, n.Name); held != nil && *held == n {
		tx.remove(tableNames, held)
	}
}
