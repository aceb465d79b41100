package dnszone

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// layout is which zones there are and what all their versions have in common. It follows from few rows: those of zones,
// networks and members, the cluster's, and the claims of addresses beside all networks.
type layout struct {
	// mark identifies what the cluster record has to do with the layout.
	mark mark
	// zones are by origin, without final dot.
	zones map[string]*origin
	// networks are the ranges of networks in order of address; they are disjoint. classless are those of them with a zone of
	// their own (RFC 2317), and its origin.
	networks  []netip.Prefix
	classless map[netip.Prefix]string
	// beside are the ranges around addresses that machines have beside all networks.
	beside map[netip.Prefix]bool
	// statics are what addresses of static records point to while no machine has them.
	statics *statics
}

// mark is what of the cluster record the records depend on beside the serial.
type mark struct {
	incarnation uint64
	names       bool
	defaultZone string
}

// origin is one zone but for its records.
type origin struct {
	name string
	// object is the name of the zone object; reverse zones have none.
	object string
	ttl    uint32
	// wanted is the way of signing that the zone object, for reverse zones that of the default zone, asks for; signing the
	// one that there is.
	wanted, signing zone.Signing
	servers         []zone.NameServer
}

func (o *origin) config(serial uint32) zone.Config {
	return zone.Config{Origin: o.name, Serial: serial, TTL: o.ttl, NS: o.servers, Mode: o.signing}
}

// newLayout reads the layout from a snapshot.
func newLayout(s *state.Snapshot, cfg Config) *layout {
	l := &layout{mark: markOf(s), zones: map[string]*origin{}, classless: map[netip.Prefix]string{}, statics: newStatics(s)}
	for z := range s.Zones() {
		domain := z.GetSpec().GetDomain()
		l.zones[domain] = &origin{
			name: domain, object: z.GetMetadata().GetName(), ttl: cmp.Or(z.GetSpec().GetTtl(), defaultTTL),
			wanted: wanted(z), signing: cfg.mode(s, domain, wanted(z)), servers: nameServers(s, cfg, domain),
		}
	}
	standard := s.Zone(s.DefaultZoneName())
	domain := standard.GetSpec().GetDomain()
	if domain == "" {
		return l
	}
	servers := nameServers(s, cfg, domain)
	for _, r := range ranges(s) {
		if l.networks = append(l.networks, r.prefix); r.classless != "" {
			l.classless[r.prefix] = r.classless
		}
	}
	l.beside = beside(s, l.networks)
	for _, name := range reverseOrigins(l.networks, l.classless, l.beside) {
		if l.zones[name] == nil {
			l.zones[name] = &origin{
				name: name, ttl: defaultTTL, wanted: wanted(standard), signing: cfg.mode(s, name, wanted(standard)), servers: servers,
			}
		}
	}
	return l
}

func markOf(s *state.Snapshot) mark {
	return mark{incarnation: s.Cluster().GetIncarnation(), names: s.NamesLevel(), defaultZone: s.DefaultZoneName()}
}

// holds reports whether the layout is that of another snapshot as far as no rows tell.
func (l *layout) holds(s *state.Snapshot, cfg Config) bool {
	if markOf(s) != l.mark {
		return false
	}
	for name, z := range l.zones {
		if cfg.Signing != nil && cfg.mode(s, name, z.wanted) != z.signing {
			return false
		}
	}
	return true
}

// nameServers are all members, named in the domain. A cluster without members does not exist; its zones must have a
// name server all the same.
func nameServers(s *state.Snapshot, cfg Config, domain string) []zone.NameServer {
	var servers []zone.NameServer
	for m := range s.Members() {
		servers = append(servers, zone.NameServer{Name: state.NameServer(m.GetMetadata().GetName()) + "." + domain, Addresses: cfg.hosts(m)})
	}
	if len(servers) == 0 {
		servers = append(servers, zone.NameServer{Name: "ns." + domain})
	}
	return servers
}

// network is a range whose reverse zones are ours; classless is the origin of its own zone, where it has one.
type network struct {
	prefix    netip.Prefix
	classless string
}

// ranges returns the ranges of all networks in order of address. A network whose range its provider has not said yet has
// none, and no machines. A classless range within an octet that another network's range makes ours is part of that.
func ranges(s *state.Snapshot) []network {
	var out []network
	for n := range s.Networks() {
		prefix, err := netip.ParsePrefix(n.GetSpec().GetCidr())
		if err != nil {
			continue
		}
		r := network{prefix: prefix.Masked()}
		if n.GetSpec().GetReverse() == "classless" && prefix.Addr().Is4() && prefix.Bits() > 24 {
			octets := prefix.Masked().Addr().As4()
			r.classless = fmt.Sprintf("%d/%d.%d.%d.%d.in-addr.arpa", octets[3], prefix.Bits(), octets[2], octets[1], octets[0])
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b network) int { return a.prefix.Addr().Compare(b.prefix.Addr()) })
	for i := range out {
		if out[i].classless == "" {
			continue
		}
		octet := netip.PrefixFrom(out[i].prefix.Addr(), 24).Masked()
		if slices.ContainsFunc(out, func(n network) bool { return n.classless == "" && n.prefix.Overlaps(octet) }) {
			out[i].classless = ""
		}
	}
	return out
}

// beside returns the 64 bits long ranges (RFC 4291 section 2.5.1) of the IPv6 addresses that machines have beside all
// networks' ranges.
func beside(s *state.Snapshot, networks []netip.Prefix) map[netip.Prefix]bool {
	found := map[netip.Prefix]bool{}
	for n := range loose(s) {
		for claim := range s.Claims(n) {
			if prefix, ok := besideOf(networks, claim); ok {
				found[prefix] = true
			}
		}
	}
	return found
}

// loose yields the networks whose addresses their provider gives: only their machines have addresses beside.
func loose(s *state.Snapshot) iter.Seq[string] {
	return func(yield func(string) bool) {
		for n := range s.Networks() {
			if !n.GetSpec().GetManaged() && !yield(n.GetMetadata().GetName()) {
				return
			}
		}
	}
}

// besideOf returns the range around a claim beside all networks.
func besideOf(networks []netip.Prefix, claim *provisionrv1.AddressClaim) (netip.Prefix, bool) {
	addr, err := netip.ParseAddr(claim.GetAddress())
	if err != nil || !addr.Is6() || contains(networks, addr) {
		return netip.Prefix{}, false
	}
	prefix, err := addr.Prefix(64)
	return prefix, err == nil
}

// contains reports whether one of the ranges, which are disjoint and in order of address, has an address in it.
func contains(ranges []netip.Prefix, addr netip.Addr) bool {
	_, ok := find(ranges, addr)
	return ok
}

func find(ranges []netip.Prefix, addr netip.Addr) (netip.Prefix, bool) {
	i, found := slices.BinarySearchFunc(ranges, addr, func(p netip.Prefix, addr netip.Addr) int { return p.Addr().Compare(addr) })
	if !found {
		i--
	}
	if i < 0 || !ranges[i].Contains(addr) {
		return netip.Prefix{}, false
	}
	return ranges[i], true
}

// reverseOrigins returns the names of the reverse zones of ranges, without final dots, each once.
func reverseOrigins(networks []netip.Prefix, classless map[netip.Prefix]string, beside map[netip.Prefix]bool) []string {
	var origins []string
	add := func(prefix netip.Prefix) {
		if own, ok := classless[prefix]; ok {
			origins = append(origins, own)
			return
		}
		for _, origin := range zone.ReverseZones(prefix) {
			origins = append(origins, strings.TrimSuffix(origin, "."))
		}
	}
	for _, prefix := range networks {
		add(prefix)
	}
	for prefix := range beside {
		add(prefix)
	}
	slices.Sort(origins)
	return slices.Compact(origins)
}

// Origins returns the names of the zones that machines are to ask the servers for, sorted, without final dots. These are all
// zones but the classless ones: what asks for an address' name asks for a name in the octet's zone, which is somebody else's.
func Origins(s *state.Snapshot) []string {
	var origins []string
	for z := range s.Zones() {
		origins = append(origins, z.GetSpec().GetDomain())
	}
	var networks, octets []netip.Prefix
	for _, r := range ranges(s) {
		if networks = append(networks, r.prefix); r.classless == "" {
			octets = append(octets, r.prefix)
		}
	}
	origins = append(origins, reverseOrigins(octets, nil, beside(s, networks))...)
	slices.Sort(origins)
	return slices.Compact(origins)
}

// pointerName returns the zone and the name, without final dot, of an address' pointer. There is none for an address outside
// all ranges.
func (l *layout) pointerName(addr netip.Addr) (*origin, string) {
	within, ok := find(l.networks, addr)
	if own, classless := l.classless[within]; ok && classless {
		octets := addr.As4()
		return l.zones[own], fmt.Sprintf("%d.%s", octets[3], own)
	}
	if !ok {
		if prefix, err := addr.Prefix(64); err != nil || !addr.Is6() || !l.beside[prefix] {
			return nil, ""
		}
	}
	name := strings.TrimSuffix(zone.ReverseName(addr), ".")
	for rest := name; rest != ""; {
		// A domain that someone gave to a zone object is not for pointers.
		if z := l.zones[rest]; z != nil && z.object == "" {
			return z, name
		}
		_, rest, _ = strings.Cut(rest, ".")
	}
	return nil, ""
}
