package dnszone

import (
	"cmp"
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

// Build makes the zones of a snapshot: one for each domain, and the reverse zones of every network. Before the cluster
// exists there are none.
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

// planner collects the records of all zones.
type planner struct {
	s   *state.Snapshot
	cfg Config
	// zones are by origin, without final dot.
	zones map[string]*zone.Config
	// pointers are the names that addresses point to.
	pointers map[netip.Addr]string
}

// plan returns what the zones are built from, in order of origin.
func plan(s *state.Snapshot, cfg Config) []zone.Config {
	if s.Cluster() == nil {
		return nil
	}
	if cfg.Hosts == nil {
		cfg.Hosts = MemberHosts
	}
	p := &planner{s: s, cfg: cfg, zones: map[string]*zone.Config{}, pointers: map[netip.Addr]string{}}
	p.addZones()
	p.addSlots()
	p.addAliases()
	p.addStatic()
	p.addReverse()
	configs := make([]zone.Config, 0, len(p.zones))
	for _, origin := range slices.Sorted(maps.Keys(p.zones)) {
		configs = append(configs, *p.zones[origin])
	}
	return configs
}

// Serial is the SOA serial of a cluster's zones: uint32 arithmetic, which RFC 1982 compares.
func Serial(c *provisionrv1.Cluster) uint32 { return c.GetSerialBase() + uint32(c.GetZoneIndex()) }

func (p *planner) addZones() {
	for z := range p.s.Zones() {
		domain := z.GetSpec().GetDomain()
		p.zones[domain] = &zone.Config{
			Origin: domain, Serial: Serial(p.s.Cluster()), TTL: cmp.Or(z.GetSpec().GetTtl(), defaultTTL), NS: p.nameServers(domain),
		}
	}
}

// nameServers are all members, named in the domain. A cluster without members does not exist; its zones must have a
// name server all the same.
func (p *planner) nameServers(domain string) []zone.NameServer {
	var servers []zone.NameServer
	for m := range p.s.Members() {
		servers = append(servers, zone.NameServer{Name: state.NameServer(m.GetMetadata().GetName()) + "." + domain, Addresses: p.cfg.Hosts(m)})
	}
	if len(servers) == 0 {
		servers = append(servers, zone.NameServer{Name: "ns." + domain})
	}
	return servers
}

// add adds an address to a name in the zone of a domain. What has no zone has no records: its zone was deleted.
func (p *planner) add(domain, name string, addr netip.Addr) {
	if z := p.zones[domain]; z != nil {
		z.Records = append(z.Records, zone.Record{Name: name, Address: addr})
	}
}

func (p *planner) point(addr netip.Addr, name string) {
	if _, taken := p.pointers[addr]; !taken {
		p.pointers[addr] = name
	}
}

func (p *planner) addSlots() {
	for slot := range p.s.Slots() {
		m := p.s.Machine(slot.GetHolder())
		_, domain, ok := strings.Cut(slot.GetFqdn(), ".")
		if m == nil || !ok {
			continue
		}
		for _, addr := range Addresses(p.s, m) {
			p.add(domain, slot.GetFqdn(), addr)
			p.point(addr, slot.GetFqdn())
		}
	}
}

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

// addAliases adds the ready machines of each pool under its own name and its aliases, as many as fit an answer.
func (p *planner) addAliases() {
	for pool := range p.s.Pools() {
		domain := p.s.Zone(p.s.ZoneName(pool)).GetSpec().GetDomain()
		var ready []netip.Addr
		for slot := range p.s.SlotsOf(pool.GetMetadata().GetName()) {
			m := p.s.Machine(slot.GetHolder())
			if Ready(m) {
				ready = append(ready, Addresses(p.s, m)...)
			}
		}
		ready = ready[:min(len(ready), zone.MaxAddresses)]
		for name := range p.s.PoolNames(pool) {
			for _, addr := range ready {
				p.add(domain, name.Name+"."+domain, addr)
			}
		}
	}
}

func (p *planner) addStatic() {
	for z := range p.s.Zones() {
		domain := z.GetSpec().GetDomain()
		for _, r := range z.GetSpec().GetRecords() {
			for _, address := range r.GetAddresses() {
				// Admission has checked the address.
				if addr, err := netip.ParseAddr(address); err == nil {
					name := r.GetName() + "." + domain
					p.add(domain, name, addr.Unmap())
					p.point(addr.Unmap(), name)
				}
			}
		}
	}
}

// addReverse adds the reverse zones of every network and the pointers of all addresses within them. Their name servers
// are named in the default zone.
func (p *planner) addReverse() {
	domain := p.s.Zone(p.s.DefaultZoneName()).GetSpec().GetDomain()
	if domain == "" {
		return
	}
	servers := p.nameServers(domain)
	prefixes := ranges(p.s)
	for _, prefix := range prefixes {
		for _, origin := range zone.ReverseZones(prefix) {
			origin = strings.TrimSuffix(origin, ".")
			if p.zones[origin] == nil {
				p.zones[origin] = &zone.Config{Origin: origin, Serial: Serial(p.s.Cluster()), TTL: defaultTTL, NS: servers}
			}
		}
	}
	for addr, target := range p.pointers {
		if !slices.ContainsFunc(prefixes, func(prefix netip.Prefix) bool { return prefix.Contains(addr) }) {
			continue
		}
		name := zone.ReverseName(addr)
		if z := p.zones[reverseOrigin(p.zones, name)]; z != nil {
			z.Records = append(z.Records, zone.Record{Name: name, Target: target})
		}
	}
}

// ranges returns the ranges whose reverse zones are ours: those of all networks, and the 64 bits long ones (RFC 4291 section
// 2.5.1) of the IPv6 addresses that machines have beside. A network whose range its provider has not said yet has none, and
// no machines.
func ranges(s *state.Snapshot) []netip.Prefix {
	var prefixes []netip.Prefix
	for n := range s.Networks() {
		if prefix, err := netip.ParsePrefix(n.GetSpec().GetCidr()); err == nil {
			prefixes = append(prefixes, prefix)
		}
	}
	beside := map[netip.Prefix]bool{}
	for n := range s.Networks() {
		if n.GetSpec().GetManaged() {
			continue
		}
		for claim := range s.Claims(n.GetMetadata().GetName()) {
			addr, err := netip.ParseAddr(claim.GetAddress())
			if err != nil || !addr.Is6() || slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				continue
			}
			if prefix, err := addr.Prefix(64); err == nil {
				beside[prefix] = true
			}
		}
	}
	return slices.AppendSeq(prefixes, maps.Keys(beside))
}

// Origins returns the names of the zones that Build makes, sorted, without final dots.
func Origins(s *state.Snapshot) []string {
	var origins []string
	for z := range s.Zones() {
		origins = append(origins, z.GetSpec().GetDomain())
	}
	for _, prefix := range ranges(s) {
		for _, origin := range zone.ReverseZones(prefix) {
			origins = append(origins, strings.TrimSuffix(origin, "."))
		}
	}
	slices.Sort(origins)
	return slices.Compact(origins)
}

// reverseOrigin returns the longest origin that a reverse name lies in.
func reverseOrigin(zones map[string]*zone.Config, name string) string {
	for origin := strings.TrimSuffix(name, "."); origin != ""; {
		if zones[origin] != nil {
			return origin
		}
		_, origin, _ = strings.Cut(origin, ".")
	}
	return ""
}
