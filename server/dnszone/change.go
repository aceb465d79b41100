package dnszone

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// tracker finds the names that changed rows may have changed.
type tracker struct {
	*view
	// slots and pools are to be looked at, each once; pools as they were first, which is nil for new ones.
	slots map[string]*provisionrv1.Slot
	pools map[string]*provisionrv1.Pool
	// names are by zone object and name, addrs those whose pointers may have changed.
	names map[nameKey]bool
	addrs map[netip.Addr]bool
	// statics says that static records changed.
	statics bool
}

type nameKey struct{ object, rel string }

// track turns the view to a snapshot and returns what the rows between may have changed; false means that the layout is
// another one, so that the view does not hold for the snapshot.
func (v *view) track(s *state.Snapshot, rows []state.Row) (*tracker, bool) {
	if !v.layout.holds(s, v.cfg) {
		return nil, false
	}
	v.at(s)
	t := &tracker{
		view: v, slots: map[string]*provisionrv1.Slot{}, pools: map[string]*provisionrv1.Pool{},
		names: map[nameKey]bool{}, addrs: map[netip.Addr]bool{},
	}
	for _, row := range rows {
		if !t.row(row) {
			return nil, false
		}
	}
	// Pools first: they decide which groups there are.
	for name, before := range t.pools {
		t.pool(name, before, s.Pool(name))
	}
	for name, before := range t.slots {
		t.slot(name, before)
	}
	if t.statics {
		before := v.layout.statics
		v.layout.statics = newStatics(s)
		for addr := range before.moved(v.layout.statics) {
			t.addrs[addr] = true
		}
	}
	return t, true
}

func (t *tracker) row(row state.Row) bool {
	switch row.Table {
	case state.TableZones:
		before, _ := row.Before.(*state.ZoneRow)
		return t.zone(before, t.s.Zone(row.Name))
	case state.TableNetworks:
		before, _ := row.Before.(*provisionrv1.Network)
		after := t.s.Network(row.Name)
		return before != nil && after != nil && before.GetSpec().GetCidr() == after.GetSpec().GetCidr() &&
			before.GetSpec().GetReverse() == after.GetSpec().GetReverse() && before.GetSpec().GetManaged() == after.GetSpec().GetManaged()
	case state.TableMembers:
		before, _ := row.Before.(*provisionrv1.Member)
		after := t.s.Member(row.Name)
		return before != nil && after != nil && slices.Equal(t.cfg.hosts(before), t.cfg.hosts(after))
	case state.TablePools:
		if _, known := t.pools[row.Name]; !known {
			t.pools[row.Name], _ = row.Before.(*provisionrv1.Pool)
		}
	case state.TableSlots:
		before, _ := row.Before.(*provisionrv1.Slot)
		t.touch(row.Name, before)
		t.machine(before.GetHolder())
	case state.TableMachines:
		t.machine(row.Name)
	case state.TableClaims:
		before, _ := row.Before.(*provisionrv1.AddressClaim)
		network, address, _ := strings.Cut(row.Name, "/")
		return t.claim(network, address, before)
	}
	return true
}

// zone reports false where more changed than records. Whom a zone is transferred to is no part of it.
func (t *tracker) zone(before *state.ZoneRow, after *provisionrv1.Zone) bool {
	if before == nil || after == nil {
		return false
	}
	b, a := before.Zone.GetSpec(), after.GetSpec()
	if b.GetDomain() != a.GetDomain() || b.GetTtl() != a.GetTtl() || b.GetDnssec() != a.GetDnssec() {
		return false
	}
	object := after.GetMetadata().GetName()
	for name := range before.Records.Changed(t.s.Records(object)) {
		t.names[nameKey{object, name}] = true
	}
	// Their order, too, decides what an address points to.
	t.statics = t.statics || before.Records != t.s.Records(object)
	return true
}

// touch has a slot looked at.
func (t *tracker) touch(slot string, before *provisionrv1.Slot) {
	if known := t.slots[slot]; known == nil {
		t.slots[slot] = before
	}
}

// machine has the slot of a machine looked at, and its addresses.
func (t *tracker) machine(id string) {
	m := t.s.Machine(id)
	if m == nil {
		return
	}
	t.touch(m.GetSpec().GetSlot(), nil)
	for _, addr := range Addresses(t.s, m) {
		t.addrs[addr] = true
	}
}

// claim reports false where a range of addresses beside all networks comes or goes.
func (t *tracker) claim(network, address string, before *provisionrv1.AddressClaim) bool {
	after := t.s.Claim(network, address)
	t.machine(before.GetMachine())
	t.machine(after.GetMachine())
	if addr, err := netip.ParseAddr(address); err == nil {
		t.addrs[addr.Unmap()] = true
	}
	claim := after
	if after == nil {
		claim = before
	}
	prefix, ok := besideOf(t.layout.networks, claim)
	if !ok || after != nil && t.layout.beside[prefix] {
		return true
	}
	for name := range loose(t.s) {
		for range t.s.ClaimsIn(name, prefix) {
			return t.layout.beside[prefix]
		}
	}
	return !t.layout.beside[prefix]
}

// pool notes what a changed pool changes: its names, and where it has other roles those of its roles and machines.
func (t *tracker) pool(name string, before, after *provisionrv1.Pool) {
	for _, p := range []*provisionrv1.Pool{before, after} {
		if p == nil {
			continue
		}
		for n := range t.s.PoolNames(p) {
			t.names[nameKey{n.Zone, n.Name}] = true
		}
	}
	moved := before != nil && after != nil && t.s.ZoneName(before) != t.s.ZoneName(after)
	switch {
	case after == nil:
		delete(t.view.pools, name)
	case before == nil || moved || t.view.pools[name] == nil:
		t.fillPool(after)
	}
	if len(before.GetSpec().GetRecords())+len(after.GetSpec().GetRecords()) > 0 && t.layout.mark.names {
		t.statics = true
	}
	if before != nil && after != nil && !moved && slices.Equal(before.GetSpec().GetRoles(), after.GetSpec().GetRoles()) {
		return
	}
	for _, p := range []*provisionrv1.Pool{before, after} {
		for _, role := range rolesOf(p) {
			key := roleKey{t.s.ZoneName(p), role}
			t.fillRole(key)
			t.names[nameKey{key.zone, role + roleSuffix}] = true
		}
	}
	for slot := range t.s.SlotsOf(name) {
		t.touch(slot.GetMetadata().GetName(), nil)
	}
}

// slot notes what a slot that was looked at changes: its name, its holder's pointers, and the names that it shares.
func (t *tracker) slot(name string, before *provisionrv1.Slot) {
	slot := t.s.Slot(name)
	for _, s := range []*provisionrv1.Slot{before, slot} {
		if z := t.zoneOf(s); z != nil {
			t.names[nameKey{z.object, name}] = true
		}
	}
	holder := t.s.Machine(slot.GetHolder())
	for _, addr := range Addresses(t.s, holder) {
		t.addrs[addr] = true
	}
	poolName := before.GetPool()
	if slot != nil {
		poolName = slot.GetPool()
	}
	pool := t.s.Pool(poolName)
	if pool == nil {
		return
	}
	ready := Ready(holder)
	g := t.view.pools[poolName]
	touched, unknown := g.set(name, ready)
	if unknown {
		t.fillPool(pool)
	}
	if touched || unknown {
		for n := range t.s.PoolNames(pool) {
			t.names[nameKey{n.Zone, n.Name}] = true
		}
	}
	for _, role := range rolesOf(pool) {
		key := roleKey{t.s.ZoneName(pool), role}
		touched, unknown := t.roles[key].set(name, ready)
		if unknown {
			t.fillRole(key)
		}
		if touched || unknown {
			t.names[nameKey{key.zone, role + roleSuffix}] = true
		}
	}
}

// changes returns what of the zones is different now, by origin. Names that turn out to be as they were are left out.
func (t *tracker) changes(zones map[string]*zone.Zone) map[string][]zone.Change {
	objects := map[string]*origin{}
	for _, z := range t.layout.zones {
		if z.object != "" {
			objects[z.object] = z
		}
	}
	out := map[string][]zone.Change{}
	add := func(z *origin, name string, records []zone.Record) {
		// What is left out is built when it comes.
		if present := zones[z.name]; present != nil && !holds(present, name, records) {
			out[z.name] = append(out[z.name], zone.Change{Name: name, Records: records})
		}
	}
	for _, z := range t.layout.zones {
		// Keys change beside the rows.
		if z.signing == zone.Online {
			delete(t.names, nameKey{z.object, apexName})
			add(z, z.name, t.apex(z))
		}
	}
	for key := range t.names {
		if z := objects[key.object]; z != nil {
			add(z, absoluteName(key.rel, z.name), t.view.records(z, key.rel))
		}
	}
	for addr := range t.addrs {
		if z, name := t.layout.pointerName(addr); z != nil {
			add(z, name, t.pointer(addr, name))
		}
	}
	for _, changes := range out {
		slices.SortFunc(changes, func(a, b zone.Change) int { return strings.Compare(a.Name, b.Name) })
	}
	return out
}

// holds reports whether a name has exactly these records in a zone, apart from what the zone and its signatures add.
func holds(z *zone.Zone, name string, records []zone.Record) bool {
	left := slices.Clone(records)
	for r := range z.Records(name) {
		switch r.Type {
		case zone.TypeSOA, zone.TypeNS:
			continue
		case zone.TypeRRSIG, zone.TypeNSEC, zone.TypeDNSKEY, zone.TypeCDS, zone.TypeCDNSKEY:
			if z.Mode() == zone.Presigned {
				continue
			}
		}
		before := len(left)
		// Equal records count once.
		left = slices.DeleteFunc(left, func(l zone.Record) bool { return l.Type == r.Type && string(l.Data) == string(r.Data) })
		if len(left) == before {
			return false
		}
	}
	return len(left) == 0
}
