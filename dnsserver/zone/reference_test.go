package zone_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// reference answers by walking a list of records: what RFC 1034 section 4.3.2, RFC 2308 and RFC 6604 say, written naively.
type reference struct {
	origins []string
	records map[string][]dns.RR
}

func newReference(configs []zone.Config) *reference {
	ref := &reference{records: map[string][]dns.RR{}}
	for _, cfg := range configs {
		origin := dns.CanonicalName(cfg.Origin)
		ref.origins = append(ref.origins, origin)
		add := func(rr dns.RR) {
			if !slices.ContainsFunc(ref.records[origin], func(have dns.RR) bool { return have.String() == rr.String() }) {
				ref.records[origin] = append(ref.records[origin], rr)
			}
		}
		text := func(format string, args ...any) {
			rr, err := dns.NewRR(fmt.Sprintf(format, args...))
			if err != nil {
				panic(err)
			}
			add(rr)
		}
		text("%s %d IN SOA %s hostmaster.%s %d 60 10 604800 %d", origin, cfg.TTL, dns.Fqdn(cfg.NS[0].Name), origin, cfg.Serial, min(cfg.TTL, 10))
		for _, ns := range cfg.NS {
			text("%s %d IN NS %s", origin, cfg.TTL, dns.Fqdn(ns.Name))
			for _, a := range ns.Addresses {
				if dns.IsSubDomain(origin, dns.CanonicalName(ns.Name)) {
					add(parsed(zone.Address(ns.Name, a), cfg.TTL))
				}
			}
		}
		for _, r := range cfg.Records {
			add(parsed(r, cfg.TTL))
		}
	}
	return ref
}

// parsed is a record as the reference's library reads it from the wire.
func parsed(r zone.Record, ttl uint32) dns.RR {
	wire := make([]byte, 255)
	end, err := dns.PackDomainName(dns.CanonicalName(r.Name), wire, 0, nil, false)
	if err != nil {
		panic(err)
	}
	if r.TTL != 0 {
		ttl = r.TTL
	}
	wire = binary.BigEndian.AppendUint16(wire[:end], uint16(r.Type))
	wire = binary.BigEndian.AppendUint32(append(wire, 0, 1), ttl)
	wire = append(binary.BigEndian.AppendUint16(wire, uint16(len(r.Data))), r.Data...)
	rr, _, err := dns.UnpackRR(wire, 0)
	if err != nil {
		panic(err)
	}
	return rr
}

// originOf returns the longest origin that a name lies in, or nothing.
func (ref *reference) originOf(name string) (origin string) {
	for _, o := range ref.origins {
		if dns.IsSubDomain(o, name) && len(o) > len(origin) {
			origin = o
		}
	}
	return origin
}

// find returns the records of a name and type, and whether the name exists and has data.
func (ref *reference) find(origin, name string, typ uint16) (found []dns.RR, exists, data bool) {
	for _, rr := range ref.records[origin] {
		if dns.IsSubDomain(name, rr.Header().Name) {
			exists = true
		}
		if rr.Header().Name == name {
			data = true
			if rr.Header().Rrtype == typ {
				found = append(found, rr)
			}
		}
	}
	return found, exists, data
}

// expected is an answer in lower case, each section sorted.
type expected struct {
	Code                     int
	Answer, Authority, Extra []string
}

func (ref *reference) answer(name string, typ uint16) expected {
	name = dns.CanonicalName(name)
	if ref.originOf(name) == "" {
		return expected{dns.RcodeRefused, []string{}, []string{}, []string{}}
	}
	var chain []dns.RR
	seen := map[string]bool{}
	for {
		origin := ref.originOf(name)
		if origin == "" || seen[name] {
			return expected{dns.RcodeSuccess, folded(chain), []string{}, []string{}}
		}
		seen[name] = true
		found, exists, data := ref.find(origin, name, typ)
		if typ == dns.TypeANY && data {
			return expected{dns.RcodeSuccess, []string{name + ` 30 in hinfo "rfc8482" ""`}, []string{}, []string{}}
		}
		if len(found) > 0 {
			return expected{dns.RcodeSuccess, folded(append(chain, found...)), []string{}, folded(ref.extra(found))}
		}
		if alias, _, _ := ref.find(origin, name, dns.TypeCNAME); len(alias) == 1 {
			chain, name = append(chain, alias[0]), dns.CanonicalName(alias[0].(*dns.CNAME).Target)
			continue
		}
		soa := dns.Copy(ref.records[origin][0]).(*dns.SOA)
		soa.Hdr.Ttl = min(soa.Hdr.Ttl, soa.Minttl)
		code := dns.RcodeSuccess
		if !exists {
			code = dns.RcodeNameError
		}
		return expected{code, folded(chain), folded([]dns.RR{soa}), []string{}}
	}
}

// extra is the addresses of what SRV and NS records name, once each.
func (ref *reference) extra(found []dns.RR) (extra []dns.RR) {
	seen := map[string]bool{}
	for _, rr := range found {
		var target string
		switch rr := rr.(type) {
		case *dns.SRV:
			target = dns.CanonicalName(rr.Target)
		case *dns.NS:
			target = dns.CanonicalName(rr.Ns)
		default:
			continue
		}
		if !seen[target] {
			seen[target] = true
			for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA} {
				addresses, _, _ := ref.find(ref.originOf(target), target, typ)
				extra = append(extra, addresses...)
			}
		}
	}
	return extra
}

func folded(rrs []dns.RR) []string {
	out := []string{}
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, strings.ToLower(strings.Join(strings.Fields(rr.String()), " ")))
		}
	}
	slices.SortFunc(out, cmp.Compare)
	return out
}

func compare(t rapid.TB, ref *reference, s *zone.Set, m *dns.Msg) {
	t.Helper()
	r := ask(t, s, m, true)
	got := expected{r.Rcode, folded(r.Answer), folded(r.Ns), folded(r.Extra)}
	if diff := gocmp.Diff(ref.answer(m.Question[0].Name, m.Question[0].Qtype), got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", m.Question[0].String(), diff)
	}
}

// TestAgainstReference compares the answers of random zones with the reference's, for names in and around them.
func TestAgainstReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGenerator(t)
		var configs []zone.Config
		for _, origin := range g.origins {
			configs = append(configs, g.config(t, origin))
		}
		var zones []*zone.Zone
		for _, cfg := range configs {
			zones = append(zones, mustBuild(t, cfg))
		}
		ref, s := newReference(configs), mustSet(t, zones...)
		for range 30 {
			m := question(g.asked(t), g.typ(t))
			m.Id = rapid.Uint16().Draw(t, "id")
			compare(t, ref, s, m)
		}
	})
}
