package zone_test

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// generator draws zones from few labels, so that names meet.
type generator struct {
	origins []string
	name    *rapid.Generator[string]
	address *rapid.Generator[netip.Addr]
}

func newGenerator(t *rapid.T) *generator {
	g := &generator{}
	all := []string{"z.test", "sub.z.test", "c-1.z.test", "a.sub.z.test", "2.1.in-addr.arpa"}
	g.origins = rapid.SliceOfNDistinct(rapid.SampledFrom(all), 1, 5, rapid.ID).Draw(t, "origins")
	g.name = rapid.Custom(func(t *rapid.T) string {
		parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "B", "c-1", "x", "_s"}), 0, 3).Draw(t, "labels")
		return strings.Join(append(parts, rapid.SampledFrom(g.origins).Draw(t, "origin")), ".")
	})
	g.address = rapid.Custom(func(t *rapid.T) netip.Addr {
		last := rapid.ByteRange(1, 5).Draw(t, "last")
		if rapid.Bool().Draw(t, "six") {
			return netip.AddrFrom16([16]byte{0: 0xfd, 15: last})
		}
		return netip.AddrFrom4([4]byte{10, 0, 0, last})
	})
	return g
}

// asked draws a name to ask for, sometimes the parent of one or one outside.
func (g *generator) asked(t *rapid.T) string {
	name := g.name.Draw(t, "ask")
	if rapid.Bool().Draw(t, "parent") {
		_, name, _ = strings.Cut(name, ".")
	}
	return name
}

func (g *generator) typ(t *rapid.T) uint16 {
	return rapid.SampledFrom([]uint16{
		dns.TypeA, dns.TypeA, dns.TypeAAAA, dns.TypePTR, dns.TypeNS, dns.TypeSOA, dns.TypeTXT, dns.TypeSRV, dns.TypeSSHFP, dns.TypeCNAME,
		dns.TypeCAA, dns.TypeMX, dns.TypeANY,
	}).Draw(t, "type")
}

// record draws a record of a name.
func (g *generator) record(t *rapid.T, name string) zone.Record {
	text := rapid.StringMatching("[a-z=]{0,9}")
	switch rapid.SampledFrom([]zone.Type{zone.TypeA, zone.TypeA, zone.TypePTR, zone.TypeCNAME, zone.TypeSRV, zone.TypeTXT, zone.TypeSSHFP, zone.TypeCAA}).Draw(t, "kind") {
	case zone.TypePTR:
		return named(name, zone.TypePTR, g.name.Draw(t, "target"))
	case zone.TypeCNAME:
		return named(name, zone.TypeCNAME, g.name.Draw(t, "target"))
	case zone.TypeSRV:
		return service(name, 0, rapid.Uint16Max(2).Draw(t, "weight"), 80, g.name.Draw(t, "target"))
	case zone.TypeTXT:
		return zone.Text(name, rapid.SliceOfN(text, 0, 2).Draw(t, "texts")...)
	case zone.TypeSSHFP:
		return zone.SSHFingerprint(name, 4, [32]byte{rapid.ByteMax(2).Draw(t, "print")})
	case zone.TypeCAA:
		return zone.CAA(name, 0, "issue", text.Draw(t, "value"))
	}
	return zone.Address(name, g.address.Draw(t, "address"))
}

// records draws what one name may have.
func (g *generator) records(t *rapid.T, name string, most int) (records []zone.Record) {
	for range rapid.IntRange(0, most).Draw(t, "records") {
		if r := g.record(t, name); fits(records, r) {
			records = append(records, r)
		}
	}
	return records
}

// fits reports whether a record may stand beside others of its name.
func fits(records []zone.Record, r zone.Record) bool {
	has := func(typ zone.Type) bool {
		return slices.ContainsFunc(records, func(r zone.Record) bool { return r.Type == typ })
	}
	return !has(zone.TypeCNAME) && (r.Type != zone.TypePTR || !has(zone.TypePTR)) && (r.Type != zone.TypeCNAME || len(records) == 0)
}

// config draws a zone.
func (g *generator) config(t *rapid.T, origin string) zone.Config {
	cfg := zone.Config{Origin: origin, Serial: rapid.Uint32().Draw(t, "serial"), TTL: 30}
	owners := map[string][]zone.Record{dns.CanonicalName(origin): {zone.Text(origin, "here")}}
	for range rapid.IntRange(1, 3).Draw(t, "servers") {
		ns := zone.NameServer{Name: g.name.Draw(t, "server"), Addresses: rapid.SliceOfN(g.address, 0, 2).Draw(t, "addresses")}
		cfg.NS = append(cfg.NS, ns)
		owners[dns.CanonicalName(ns.Name)] = append(owners[dns.CanonicalName(ns.Name)], zone.Text(ns.Name, "server"))
	}
	for range rapid.IntRange(0, 8).Draw(t, "names") {
		name := g.name.Draw(t, "name")
		if !dns.IsSubDomain(dns.Fqdn(origin), dns.CanonicalName(name)) {
			continue
		}
		for _, r := range g.records(t, name, 3) {
			if owner := dns.CanonicalName(name); fits(owners[owner], r) {
				owners[owner] = append(owners[owner], r)
				cfg.Records = append(cfg.Records, r)
			}
		}
	}
	return cfg
}
