//go:build machine

package interop

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/miekg/dns"
)

// probe is a message that all servers get.
type probe struct {
	// kind says what is special about it.
	kind string
	msg  []byte
}

// String describes a probe for people.
func (p probe) String() string {
	m := new(dns.Msg)
	if err := m.Unpack(p.msg); err != nil || len(m.Question) != 1 {
		return fmt.Sprintf("%s %x", p.kind, p.msg)
	}
	text := fmt.Sprintf("%s %s", p.kind, strings.TrimPrefix(m.Question[0].String(), ";"))
	if opt := m.IsEdns0(); opt != nil {
		text += fmt.Sprintf(" edns %d size %d do %t", opt.Version(), opt.UDPSize(), opt.Do())
	}
	return fmt.Sprintf("%s [%x]", text, p.msg)
}

// generator makes probes, the same ones each time.
type generator struct {
	*rand.Rand
	probes []probe
}

func (g *generator) add(kind string, msg []byte) { g.probes = append(g.probes, probe{kind, msg}) }

func pick[T any](g *generator, of ...T) T { return of[g.IntN(len(of))] }

// origin returns one of the zones, the plain one more often.
func (g *generator) origin() string {
	return pick(g, plainOrigin, plainOrigin, signedOrigin, signedOrigin, reverseOrigin, nibbleOrigin)
}

// name returns a name to ask for.
func (g *generator) name() string {
	origin := g.origin()
	if origin == reverseOrigin || origin == nibbleOrigin {
		return g.reverseName(origin)
	}
	host := fmt.Sprintf("web-%d.%s", 1+g.IntN(hosts), origin)
	odd := []string{
		"alias", "alias2", "dangling", "elsewhere", "deep-alias", "ring1", "ring2", "self", "neighbour", "chain0", "chain1", "chain5",
		"a.b.c.deep", "b.c.deep", "c.deep", "deep", "x.c.deep", "long", "longer", "empty", strings.Repeat("l", 63), "web",
		"_http._tcp.web", "_ssh._tcp.web", "_far._tcp.web", "_tcp.web", "_udp.web", "*", "*.web", "web-1.web-1", "x.alias", "x.dangling",
		"0", "zzz", "web-1000", "\\000", "\\255", "a\\.b", strings.Repeat("a.", 60) + "b", strings.Repeat("m", 63) + "." + strings.Repeat("n", 63),
	}
	outside := []string{".", "example.", "net.", "other.example.", "x.other.example.", "www.elsewhere.test.", "version.bind.", "192.in-addr.arpa.", "arpa.", "x" + origin}
	switch n := g.IntN(20); {
	case n < 8:
		return host
	case n < 9:
		return origin
	case n < 17:
		return pick(g, odd...) + "." + origin
	case n < 18:
		return pick(g, "x.", "a.b.c.", "_tcp.") + host
	}
	return pick(g, outside...)
}

func (g *generator) reverseName(origin string) string {
	v4, v6 := hostAddresses(g.IntN(hosts + 20))
	name, _ := dns.ReverseAddr(v4.String())
	if origin == nibbleOrigin {
		name, _ = dns.ReverseAddr(v6.String())
	}
	switch g.IntN(8) {
	case 0:
		return origin
	case 1:
		return "x." + name
	case 2: // An empty non-terminal, or nothing.
		labels := dns.SplitDomainName(name)
		return dns.Fqdn(strings.Join(labels[g.IntN(len(labels)):], "."))
	}
	return name
}

// qtype returns a type to ask for.
func (g *generator) qtype() uint16 {
	common := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypePTR, dns.TypeCNAME, dns.TypeSRV, dns.TypeTXT, dns.TypeSSHFP, dns.TypeNS, dns.TypeSOA}
	rare := []uint16{
		dns.TypeANY, dns.TypeMX, dns.TypeDS, dns.TypeDNSKEY, dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeHINFO, dns.TypeCAA, dns.TypeHTTPS,
		dns.TypeCDS, 65280, dns.TypeDNAME, dns.TypeNAPTR,
	}
	if g.IntN(3) > 0 {
		return pick(g, common...)
	}
	return pick(g, rare...)
}

// spell changes the case of letters at random (as 0x20 does).
func (g *generator) spell(name string) string {
	if g.IntN(2) == 0 {
		return name
	}
	out := []byte(name)
	for i, c := range out {
		if (c|0x20) >= 'a' && (c|0x20) <= 'z' && g.IntN(2) == 0 {
			out[i] ^= 0x20
		}
	}
	return string(out)
}

// question makes a well-formed query.
func (g *generator) question() *dns.Msg {
	m := new(dns.Msg)
	m.Id = uint16(g.Uint32())
	m.Question = []dns.Question{{Name: g.spell(g.name()), Qtype: g.qtype(), Qclass: dns.ClassINET}}
	m.RecursionDesired, m.CheckingDisabled = g.IntN(2) == 0, g.IntN(4) == 0
	m.AuthenticatedData = g.IntN(4) == 0
	if g.IntN(4) > 0 {
		g.edns(m)
	}
	return m
}

// edns adds an OPT record to a query.
func (g *generator) edns(m *dns.Msg) *dns.OPT {
	m.SetEdns0(pick[uint16](g, 0, 511, 512, 513, 1220, 1232, 1400, 4096, 65535), g.IntN(2) == 0)
	opt := m.IsEdns0()
	switch g.IntN(6) {
	case 0:
		opt.Option = append(opt.Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	case 1:
		opt.Option = append(opt.Option, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("unknown")})
	case 2:
		opt.Option = append(opt.Option, &dns.EDNS0_PADDING{Padding: make([]byte, g.IntN(100))})
	}
	return opt
}

// wire packs a message that the library can pack.
func wire(m *dns.Msg) []byte {
	msg, err := m.Pack()
	if err != nil {
		panic(fmt.Sprintf("%v: %v", m, err)) // The names are spelt in this file.
	}
	return msg
}

// questions adds n well-formed queries.
func (g *generator) questions(n int) {
	for range n {
		g.add("question", wire(g.question()))
	}
	for range n / 20 {
		m := g.question()
		m.Authoritative, m.Truncated, m.RecursionAvailable, m.Zero = g.IntN(2) == 0, g.IntN(2) == 0, g.IntN(2) == 0, g.IntN(2) == 0
		m.Rcode = g.IntN(16)
		g.add("stray flags", wire(m))

		m = g.question()
		m.Question[0].Qclass = pick[uint16](g, dns.ClassCHAOS, dns.ClassHESIOD, dns.ClassNONE, dns.ClassANY, 0, 65280)
		g.add("class "+fmt.Sprint(m.Question[0].Qclass), wire(m))

		m.Question[0] = dns.Question{Name: pick(g, "version.bind.", "id.server.", "hostname.bind."), Qtype: dns.TypeTXT, Qclass: dns.ClassCHAOS}
		g.add("who are you", wire(m))

		m = g.question()
		m.Question[0].Qtype = pick[uint16](g, 0, dns.TypeOPT, 128, dns.TypeTKEY, dns.TypeTSIG, dns.TypeMAILB, dns.TypeMAILA, 3, 4)
		g.add("meta type "+fmt.Sprint(m.Question[0].Qtype), wire(m))

		m = g.question()
		m.Question[0].Name = pick(g, "alias.", "dangling.", "elsewhere.", "neighbour.") + pick(g, plainOrigin, signedOrigin)
		m.Question[0].Qtype = pick(g, dns.TypeA, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeRRSIG, dns.TypeDS, dns.TypeCNAME)
		g.add("alias", wire(m))

		m = g.question()
		m.Question[0].Name, m.Question[0].Qtype = "_http._tcp.web."+signedOrigin, dns.TypeSRV
		g.add("services", wire(m))

		m = g.question()
		m.Question[0].Qtype = pick(g, dns.TypeAXFR, dns.TypeIXFR)
		g.add("unsigned transfer", wire(m))
	}
}
