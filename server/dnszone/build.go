package dnszone

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/dnsserver/zone"
	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// defaultTTL is the TTL of zones that give none, and of reverse zones, in seconds.
const defaultTTL = 30

// Config says what the state does not.
type Config struct {
	// Hosts returns the addresses at which a member answers DNS. Nil means [MemberHosts].
	Hosts func(*provisionrv1.Member) []netip.Addr
	// Signing knows the keys of zones. Nil means that no zone is signed.
	Signing Signing
}

func (c Config) hosts(m *provisionrv1.Member) []netip.Addr {
	if c.Hosts != nil {
		return c.Hosts(m)
	}
	return MemberHosts(m)
}

// MemberHosts returns the addresses of a member's own record at which others may reach it: those that it has in the
// networks of machines, else that of its DNS address, else that of its agent address. Names and unspecified addresses
// are left out.
func MemberHosts(m *provisionrv1.Member) []netip.Addr {
	var hosts []netip.Addr
	for _, network := range slices.Sorted(maps.Keys(m.NetworkHosts)) {
		hosts = appendHost(hosts, m.NetworkHosts[network])
	}
	for _, address := range []string{m.DnsAddress, m.AgentAddress} {
		if len(hosts) > 0 {
			break
		}
		if host, _, err := net.SplitHostPort(address); err == nil {
			hosts = appendHost(hosts, host)
		}
	}
	return hosts
}

func appendHost(hosts []netip.Addr, host string) []netip.Addr {
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.IsUnspecified() || slices.Contains(hosts, addr.Unmap()) {
		return hosts
	}
	return append(hosts, addr.Unmap())
}

// Build makes the zones of a snapshot in order of origin, without signatures: one for each domain, and the reverse zones of
// every network. Before the cluster exists there are none.
func Build(s *state.Snapshot, cfg Config) ([]*zone.Zone, error) {
	var zones []*zone.Zone
	for _, c := range plan(s, cfg) {
		z, err := zone.Build(c)
		if err != nil {
			return nil, errs.New(errs.Internal, "cannot build the dns zones: %w", err)
		}
		zones = append(zones, z)
	}
	return zones, nil
}

// plan returns what the zones are built from, in order of origin.
func plan(s *state.Snapshot, cfg Config) []zone.Config {
	if s.Cluster() == nil {
		return nil
	}
	return newView(s, cfg).plan()
}

// newView reads a snapshot whole, but for its records.
func newView(s *state.Snapshot, cfg Config) *view {
	v := &view{cfg: cfg, layout: newLayout(s, cfg), pools: map[string]*group{}, roles: map[roleKey]*group{}}
	v.at(s)
	for pool := range s.Pools() {
		v.fillPool(pool)
		for _, role := range rolesOf(pool) {
			key := roleKey{s.ZoneName(pool), role}
			if v.roles[key] == nil {
				v.roles[key] = &group{}
			}
			v.addReady(v.roles[key], pool)
		}
	}
	return v
}

// at turns the view to a snapshot.
func (v *view) at(s *state.Snapshot) {
	v.s, v.static = s, map[*provisionrv1.Pool]map[string]*provisionrv1.StaticRecord{}
}

// rest lets go of the snapshot, which would keep every row alive that has changed since.
func (v *view) rest() { v.s, v.static = nil, nil }

func (v *view) fillPool(pool *provisionrv1.Pool) {
	g := &group{}
	v.addReady(g, pool)
	v.pools[pool.GetMetadata().GetName()] = g
}

func (v *view) fillRole(key roleKey) {
	g := &group{}
	for pool := range v.s.Pools() {
		if v.s.ZoneName(pool) == key.zone && slices.Contains(rolesOf(pool), key.role) {
			v.addReady(g, pool)
		}
	}
	v.roles[key] = g
}

func (v *view) addReady(g *group, pool *provisionrv1.Pool) {
	for slot := range v.s.SlotsOf(pool.GetMetadata().GetName()) {
		if Ready(v.s.Machine(slot.GetHolder())) {
			g.set(slot.GetMetadata().GetName(), true)
		}
	}
}

// rolesOf returns the roles of a pool that have names.
func rolesOf(pool *provisionrv1.Pool) []string {
	return slices.DeleteFunc(slices.Clone(pool.GetSpec().GetRoles()), func(role string) bool { return !isLabel(role) })
}

// isLabel reports whether a text is a label of a host name in lower case (RFC 1123 section 2.1).
func isLabel(s string) bool {
	valid := len(s) > 0 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-'
	for i := range len(s) {
		c := s[i]
		valid = valid && (c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z')
	}
	return valid
}

// plan makes the records of all names.
func (v *view) plan() []zone.Config {
	configs := make(map[string]*zone.Config, len(v.layout.zones))
	objects := make(map[string]*origin, len(v.layout.zones))
	for name, z := range v.layout.zones {
		c := z.config(Serial(v.s.Cluster()))
		if configs[name] = &c; z.object != "" {
			objects[z.object] = z
		}
		c.Records = v.apex(z)
	}
	add := func(object string, make func(*origin) []zone.Record) {
		if z := objects[object]; z != nil {
			c := configs[z.name]
			c.Records = append(c.Records, make(z)...)
		}
	}
	for z := range v.s.Zones() {
		object := z.GetMetadata().GetName()
		for r := range v.s.Records(object).All() {
			if r.GetName() != apexName {
				add(object, func(z *origin) []zone.Record { return staticData(z.name, r) })
			}
		}
	}
	machines := map[string]int{}
	for pool := range v.s.Pools() {
		machines[v.s.ZoneName(pool)] += int(pool.GetSpec().GetSize())
		for n := range v.s.PoolNames(pool) {
			add(n.Zone, func(z *origin) []zone.Record { return v.pool(z, pool, n.Name) })
		}
	}
	for object, n := range machines {
		if z := objects[object]; z != nil {
			// An address and a text each, mostly.
			configs[z.name].Records = slices.Grow(configs[z.name].Records, 2*n)
		}
	}
	for key := range v.roles {
		add(key.zone, func(z *origin) []zone.Record { return v.role(z, key.role) })
	}
	pointers := v.planSlots(configs)
	point := func(addr netip.Addr, target string) {
		if z, name := v.layout.pointerName(addr); z != nil {
			if r, err := zone.Named(name, zone.TypePTR, target); err == nil {
				configs[z.name].Records = append(configs[z.name].Records, r)
			}
		}
	}
	for addr, target := range pointers {
		point(addr, target)
	}
	for addr, target := range v.layout.statics.all() {
		if _, machine := pointers[addr]; !machine {
			point(addr, target)
		}
	}
	out := make([]zone.Config, 0, len(configs))
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		out = append(out, *configs[name])
	}
	return out
}

// planSlots adds the records of all machines' own names. It returns what their addresses point to: of several names the first.
func (v *view) planSlots(configs map[string]*zone.Config) map[netip.Addr]string {
	pointers := make(map[netip.Addr]string, v.s.MachineCount())
	for slot := range v.s.Slots() {
		z := v.zoneOf(slot)
		if z == nil {
			continue
		}
		c := configs[z.name]
		first := len(c.Records)
		c.Records = v.appendSlot(c.Records, slot)
		for _, r := range c.Records[first:] {
			addr, ok := netip.AddrFromSlice(r.Data)
			if !ok || r.Type != zone.TypeA && r.Type != zone.TypeAAAA {
				continue
			}
			if _, taken := pointers[addr]; !taken {
				pointers[addr] = slot.GetFqdn()
			}
		}
	}
	return pointers
}

// zoneOf returns the zone that a slot is named in, nil where that was deleted.
func (v *view) zoneOf(slot *provisionrv1.Slot) *origin {
	_, domain, _ := strings.Cut(slot.GetFqdn(), ".")
	if z := v.layout.zones[domain]; z != nil && z.object != "" {
		return z
	}
	return nil
}

// Serial is the SOA serial of a cluster's zones: uint32 arithmetic, which RFC 1982 compares.
func Serial(c *provisionrv1.Cluster) uint32 { return c.GetSerialBase() + uint32(c.GetZoneIndex()) }

// Addresses returns what a machine has claimed, else what its provider reports; nothing once it is gone or where m is nil.
func Addresses(s *state.Snapshot, m *provisionrv1.Machine) []netip.Addr {
	if m == nil || m.GetStatus().GetPhase() == provisionrv1.Phase_PHASE_GONE {
		return nil
	}
	var addrs []netip.Addr
	for claim := range s.ClaimsOf(m.GetMetadata().GetName()) {
		addrs = appendHost(addrs, claim.GetAddress())
	}
	if len(addrs) == 0 {
		addrs = appendHost(addrs, m.GetStatus().GetAddress())
	}
	return addrs
}

// Ready reports whether a machine is answered under its pool's aliases. A nil machine is not.
func Ready(m *provisionrv1.Machine) bool {
	return m.GetStatus().GetPhase() == provisionrv1.Phase_PHASE_READY && m.GetStatus().GetQuarantined() == ""
}
