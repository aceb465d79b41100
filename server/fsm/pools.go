package fsm

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// MaxPoolSize bounds the machines of one pool.
const MaxPoolSize = 10000

func (a *applier) applyPool(wanted *provisionrv1.Pool, uid string) *errs.Error {
	name := wanted.GetMetadata().GetName()
	present := a.Pool(name)
	if wanted.GetSpec() == nil {
		return errs.New(errs.Invalid, "pool %s has no spec", clip(name, maxName))
	}
	what, m, err := a.merge("pool", wanted.GetMetadata(), present.GetMetadata(), uid, proto.Equal(wanted.GetSpec(), present.GetSpec()))
	if err != nil || what == unchanged {
		return err
	}
	pool := &provisionrv1.Pool{ApiVersion: wanted.GetApiVersion(), Kind: wanted.GetKind(), Metadata: m, Spec: wanted.GetSpec()}
	if err := a.replacePool(present, pool); err != nil {
		return err
	}
	a.changed(what, "Pool", name, name)
	return nil
}

// replacePool writes a pool, the slots that its size asks for, and its names.
func (a *applier) replacePool(present, pool *provisionrv1.Pool) *errs.Error {
	name, size := pool.GetMetadata().GetName(), pool.GetSpec().GetSize()
	if size > MaxPoolSize {
		return errs.New(errs.Invalid, "pool %s has size %d: the most is %d", name, size, MaxPoolSize)
	}
	if len(slotName(name, max(1, size))) > maxName {
		return errs.New(errs.Invalid, "the name %s is too long for a pool of %d machines", name, size).
			WithHint("machine names are the pool's and a number, together at most %d characters", maxName)
	}
	for _, alias := range pool.GetSpec().GetAliases() {
		if err := checkName("alias", alias); err != nil {
			return err
		}
	}
	if a.NamesLevel() {
		if err := a.checkPoolNames(pool); err != nil {
			return err
		}
	}
	if present == nil && count(a.Pools(), maxObjects) >= maxObjects {
		return errs.New(errs.Exhausted, "there are %d pools: no more are kept", maxObjects)
	}
	if present != nil {
		if err := a.keepsPlace(present, pool); err != nil {
			return err
		}
		kept := slices.Collect(a.PoolNames(pool))
		for n := range a.PoolNames(present) {
			if !slices.Contains(kept, n) {
				a.ReleaseName(n)
			}
		}
		if a.ZoneName(present) != a.ZoneName(pool) {
			a.dropSlots(present, 0)
		}
	}
	a.Put(pool)
	for n := range a.PoolNames(pool) {
		if err := a.claimName(n); err != nil {
			return err
		}
	}
	a.names = true
	a.fitVpn(present, pool)
	return a.fitSlots(pool)
}

// keepsPlace refuses to move a pool that has machines to another provider, network or zone.
func (a *applier) keepsPlace(present, pool *provisionrv1.Pool) *errs.Error {
	network := func(p *provisionrv1.Pool) string { return a.NetworkOf(p).GetMetadata().GetName() }
	moved := state.ProviderName(present) != state.ProviderName(pool) || network(present) != network(pool) ||
		a.ZoneName(present) != a.ZoneName(pool)
	if !moved || !a.hasMachines(pool.GetMetadata().GetName()) {
		return nil
	}
	return errs.New(errs.Conflict, "pool %s has machines: its provider, network and zone cannot change", pool.GetMetadata().GetName()).
		WithHint("scale the pool to 0 first, or make another pool")
}

func (a *applier) hasMachines(pool string) bool {
	for m := range a.MachinesOf(pool) {
		if m.GetStatus().GetPhase() != provisionrv1.Phase_PHASE_GONE {
			return true
		}
	}
	return false
}

func slotName(pool string, index uint32) string { return fmt.Sprintf("%s-%d", pool, index) }

// fitSlots makes the slots up to the pool's size and drops free ones above it.
func (a *applier) fitSlots(pool *provisionrv1.Pool) *errs.Error {
	name := pool.GetMetadata().GetName()
	zone := a.Zone(a.ZoneName(pool))
	if zone == nil {
		return errs.New(errs.Invalid, "pool %s names zone %s, which does not exist", name, clip(a.ZoneName(pool), maxName))
	}
	for i := uint32(1); i <= pool.GetSpec().GetSize(); i++ {
		slot := slotName(name, i)
		if a.Slot(slot) != nil {
			continue
		}
		if err := a.claimName(a.SlotName(pool, slot)); err != nil {
			return err
		}
		a.Put(&provisionrv1.Slot{
			Metadata: &provisionrv1.Metadata{Name: slot, Generation: 1, Version: a.version, Created: a.now},
			Pool:     name, Index: i, Fqdn: slot + "." + zone.GetSpec().GetDomain(),
		})
		a.names = true
	}
	a.dropSlots(pool, pool.GetSpec().GetSize())
	return nil
}

// dropSlots removes the free slots of a pool above an index.
func (a *applier) dropSlots(pool *provisionrv1.Pool, above uint32) {
	for _, slot := range slices.Collect(a.SlotsOf(pool.GetMetadata().GetName())) {
		if slot.GetIndex() > above && slot.GetHolder() == "" {
			a.dropSlot(pool, slot)
		}
	}
}

func (a *applier) dropSlot(pool *provisionrv1.Pool, slot *provisionrv1.Slot) {
	a.Delete(slot)
	a.ReleaseName(a.SlotName(pool, slot.GetMetadata().GetName()))
	a.names = true
}

// claimName registers a name of the zone or says who has it.
func (a *applier) claimName(n state.NameOwner) *errs.Error {
	held := a.ClaimName(n)
	if held == nil {
		return nil
	}
	owner := held.Kind + " " + held.Owner
	switch held.Kind {
	case state.OwnerSlot:
		owner = "a machine of pool " + held.Owner
	case state.OwnerZone:
		owner = "a record of zone " + held.Owner
	case state.OwnerMember:
		owner = "server " + held.Owner + " as a name server"
	}
	return errs.New(errs.Conflict, "%s %s cannot have the name %s in zone %s: it is the name of %s", n.Kind, n.Owner, n.Name, n.Zone, owner).
		WithHint("names of machines, pools, aliases and records are unique within a zone")
}

func (a *applier) scalePool(name string, size uint32) *errs.Error {
	present := a.Pool(name)
	if present == nil {
		return notFound("pool", name)
	}
	if present.GetMetadata().GetDeleted() != nil {
		return errs.New(errs.Conflict, "pool %s is being deleted", name)
	}
	before := present.GetSpec().GetSize()
	if before == size {
		return nil
	}
	pool := proto.CloneOf(present)
	pool.Spec.Size = size
	pool.Metadata.Generation++
	pool.Metadata.Version = a.version
	if err := a.replacePool(present, pool); err != nil {
		return err
	}
	a.event("PoolScaled", fmt.Sprintf("pool %s was scaled from %d to %d", name, before, size), false, name, nil)
	return nil
}

func (a *applier) deletePool(name string) *errs.Error {
	present := a.Pool(name)
	if present == nil {
		return notFound("pool", name)
	}
	if present.GetMetadata().GetDeleted() != nil {
		return nil
	}
	pool := proto.CloneOf(present)
	pool.Metadata.Deleted, pool.Metadata.Version = a.now, a.version
	a.Put(pool)
	a.names = true
	a.event("PoolDeleting", fmt.Sprintf("pool %s is being deleted", name), false, name, nil)
	a.removeIfEmpty(pool)
	return nil
}

// removeIfEmpty ends a deleted pool when its last machine is gone.
func (a *applier) removeIfEmpty(pool *provisionrv1.Pool) {
	name := pool.GetMetadata().GetName()
	if pool.GetMetadata().GetDeleted() == nil || a.hasMachines(name) {
		return
	}
	a.dropSlots(pool, 0)
	for n := range a.PoolNames(pool) {
		a.ReleaseName(n)
	}
	a.Delete(pool)
	a.names = true
	a.event("PoolDeleted", fmt.Sprintf("pool %s is gone", name), false, name, nil)
}
