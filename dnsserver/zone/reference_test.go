package zone_test

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// reference answers by walking a list of records: what RFC 1034 section 4.3.2 and RFC 2308 say, written naively.
type reference struct {
	origins []string
	records map[string][]dns.RR
}

func newReference(configs []zone.Config) *reference {
	ref := &reference{records: map[string][]dns.RR{}}
	for _, cfg := range configs {
		origin := dns.CanonicalName(cfg.Origin)
		ref.origins = append(ref.origins, origin)
		add := func(format string, args ...any) {
			rr, err := dns.NewRR(fmt.Sprintf(format, args...))
			if err != nil {
				panic(err)
			}
			if !slices.ContainsFunc(ref.records[origin], func(have dns.RR) bool { return have.String() == rr.String() }) {
				ref.records[origin] = append(ref.records[origin], rr)
			}
		}
		address := func(name string, a netip.Addr) {
			typ := "A"
			if a.Is6() {
				typ = "AAAA"
			}
			add("%s %d IN %s %s", dns.CanonicalName(name), cfg.TTL, typ, a)
		}
		negative := min(cfg.TTL, 10)
		add("%s %d IN SOA %s hostmaster.%s %d 60 10 604800 %d", origin, cfg.TTL, dns.Fqdn(cfg.NS[0].Name), origin, cfg.Serial, negative)
		for _, ns := range cfg.NS {
			add("%s %d IN NS %s", origin, cfg.TTL, dns.Fqdn(ns.Name))
			for _, a := range ns.Addresses {
				if dns.IsSubDomain(origin, dns.Fqdn(ns.Name)) {
					address(ns.Name, a)
				}
			}
		}
		for _, r := range cfg.Records {
			if r.Target != "" {
				add("%s %d IN PTR %s", dns.CanonicalName(r.Name), cfg.TTL, dns.Fqdn(r.Target))
			} else {
				address(r.Name, r.Address)
			}
		}
	}
	return ref
}

// answer returns code, answer and authority in lower case and sorted.
func (ref *reference) answer(name string, typ uint16) (code int, answer, authority []string) {
	name = dns.CanonicalName(name)
	origin := ""
	for _, o := range ref.origins {
		if dns.IsSubDomain(o, name) && len(o) > len(origin) {
			origin = o
		}
	}
	if origin == "" {
		return dns.RcodeRefused, []string{}, []string{}
	}
	exists, data := false, false
	var found []dns.RR
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
	if typ == dns.TypeANY && data {
		return dns.RcodeSuccess, []string{name + ` 30 in hinfo "rfc8482" ""`}, []string{}
	}
	if len(found) > 0 {
		return dns.RcodeSuccess, folded(found), []string{}
	}
	soa := dns.Copy(ref.records[origin][0]).(*dns.SOA)
	soa.Hdr.Ttl = min(soa.Hdr.Ttl, soa.Minttl)
	if !exists {
		code = dns.RcodeNameError
	}
	return code, []string{}, folded([]dns.RR{soa})
}

func folded(rrs []dns.RR) []string {
	out := texts(rrs)
	for i := range out {
		out[i] = strings.ToLower(out[i])
	}
	slices.SortFunc(out, cmp.Compare)
	return out
}

func compare(t rapid.TB, ref *reference, s *zone.Set, m *dns.Msg) {
	r := ask(t, s, m, true)
	code, answer, authority := ref.answer(m.Question[0].Name, m.Question[0].Qtype)
	if r.Rcode != code {
		t.Fatalf("%s: code %s, want %s", m.Question[0].String(), dns.RcodeToString[r.Rcode], dns.RcodeToString[code])
	}
	if diff := gocmp.Diff(answer, folded(r.Answer)); diff != "" {
		t.Fatalf("%s: answer (-want +got):\n%s", m.Question[0].String(), diff)
	}
	if diff := gocmp.Diff(authority, folded(r.Ns)); diff != "" {
		t.Fatalf("%s: authority (-want +got):\n%s", m.Question[0].String(), diff)
	}
}

// TestAgainstReference compares the answers of random zones with the reference's, for names in and around them.
func TestAgainstReference(t *testing.T) {
	labels := []string{"a", "B", "c-1", "x"}
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypePTR, dns.TypeNS, dns.TypeSOA, dns.TypeTXT, dns.TypeANY}
	rapid.Check(t, func(t *rapid.T) {
		origins := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"z.test", "sub.z.test", "a.sub.z.test", "2.1.in-addr.arpa"}), 1, 4, rapid.ID).Draw(t, "origins")
		name := rapid.Custom(func(t *rapid.T) string {
			parts := rapid.SliceOfN(rapid.SampledFrom(labels), 0, 3).Draw(t, "labels")
			return strings.Join(append(parts, rapid.SampledFrom(origins).Draw(t, "origin")), ".")
		})
		addr := rapid.Custom(func(t *rapid.T) netip.Addr {
			last := rapid.ByteRange(1, 5).Draw(t, "last")
			if rapid.Bool().Draw(t, "six") {
				return netip.AddrFrom16([16]byte{0: 0xfd, 15: last})
			}
			return netip.AddrFrom4([4]byte{10, 0, 0, last})
		})
		var configs []zone.Config
		for i, origin := range origins {
			cfg := zone.Config{Origin: origin, Serial: rapid.Uint32().Draw(t, "serial"), TTL: 30}
			for range rapid.IntRange(1, 3).Draw(t, "servers") {
				cfg.NS = append(cfg.NS, zone.NameServer{Name: name.Draw(t, "server"), Addresses: rapid.SliceOfN(addr, 0, 2).Draw(t, "addresses")})
			}
			pointers := map[string]bool{}
			for range rapid.IntRange(0, 8).Draw(t, "records") {
				r := zone.Record{Name: name.Draw(t, "name")}
				if !dns.IsSubDomain(dns.Fqdn(origin), dns.CanonicalName(r.Name)) {
					continue
				}
				if rapid.Bool().Draw(t, "pointer") {
					if pointers[dns.CanonicalName(r.Name)] {
						continue
					}
					pointers[dns.CanonicalName(r.Name)] = true
					r.Target = fmt.Sprintf("host-%d.%s", i, origin)
				} else {
					r.Address = addr.Draw(t, "address")
				}
				cfg.Records = append(cfg.Records, r)
			}
			configs = append(configs, cfg)
		}
		var zones []*zone.Zone
		for _, cfg := range configs {
			zones = append(zones, mustBuild(t, cfg))
		}
		ref, s := newReference(configs), mustSet(t, zones...)
		for range 30 {
			ask := name.Draw(t, "ask")
			if rapid.Bool().Draw(t, "parent") {
				_, ask, _ = strings.Cut(ask, ".")
			}
			m := question(ask, rapid.SampledFrom(types).Draw(t, "type"))
			m.Id = rapid.Uint16().Draw(t, "id")
			compare(t, ref, s, m)
		}
	})
}

// FuzzRespond: no octets crash the query path; what it answers is well-formed, bounded and belongs to the query; and
// where a query is one that the reference understands, the answer is the reference's.
func FuzzRespond(f *testing.F) {
	for _, m := range []*dns.Msg{question("zk-1.example.test", dns.TypeA), question("EXAMPLE.test", dns.TypeNS), question("nope.example.test", dns.TypeANY)} {
		plain, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(plain, false)
		m.SetEdns0(4096, true)
		edns, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(edns, true)
		f.Add(edns[:len(edns)-3], false)
	}
	ref, s := newReference(sample()), sampleSet(f)
	f.Fuzz(func(t *testing.T, msg []byte, tcp bool) {
		prefix := []byte("before")
		out, verdict := s.Respond(slices.Clone(prefix), msg, tcp)
		if verdict == zone.Foreign {
			out = zone.Fail(slices.Clone(prefix), msg, zone.Refused)
		}
		answer := out[len(prefix):]
		if (verdict == zone.Drop) != (len(answer) == 0) {
			t.Fatalf("verdict %d with %d octets", verdict, len(answer))
		}
		if verdict == zone.Drop {
			return
		}
		if !tcp && len(answer) > zone.MaxUDP {
			t.Fatalf("%d octets", len(answer))
		}
		var r dns.Msg
		if err := r.Unpack(answer); err != nil {
			t.Fatalf("answer does not parse: %v", err)
		}
		if !r.Response || answer[0] != msg[0] || answer[1] != msg[1] {
			t.Fatal("answer to another query")
		}
		var m dns.Msg
		if r.Truncated || m.Unpack(msg) != nil || len(m.Question) != 1 || m.Opcode != dns.OpcodeQuery || m.Question[0].Qclass != dns.ClassINET ||
			slices.Contains([]int{dns.RcodeFormatError, dns.RcodeBadVers, dns.RcodeRefused}, r.Rcode) || strings.Contains(m.Question[0].Name, `\`) {
			return
		}
		code, want, _ := ref.answer(m.Question[0].Name, m.Question[0].Qtype)
		if diff := gocmp.Diff(want, folded(r.Answer)); diff != "" || code != r.Rcode {
			t.Fatalf("%s: code %d, want %d; answer (-want +got):\n%s", m.Question[0].String(), r.Rcode, code, diff)
		}
	})
}
