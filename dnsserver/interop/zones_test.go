//go:build machine

package interop

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver/dnssec"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

// The zones of the tests.
const (
	plainOrigin   = "plain.example."
	signedOrigin  = "signed.example."
	onlineOrigin  = "online.example."
	reverseOrigin = "2.0.192.in-addr.arpa."
	nibbleOrigin  = "8.b.d.0.1.0.0.2.ip6.arpa."
)

// hosts is how many machines the zones have, manyHosts how many those that are transferred: their differences are sent only
// where they are shorter.
const (
	hosts     = 100
	manyHosts = 1000
)

// hostAddresses returns the addresses of a machine.
func hostAddresses(i int) (v4, v6 netip.Addr) {
	v6 = netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", 0x100+i))
	if i >= hosts+20 {
		return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), v6
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), v6
}

// must is for records whose names the tests spell right.
func must(t *testing.T) func(r zone.Record, err error) zone.Record {
	return func(r zone.Record, err error) zone.Record {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

// hostRecords are what a machine has in its zone.
func hostRecords(name string, i int) []zone.Record {
	v4, v6 := hostAddresses(i)
	return []zone.Record{
		zone.Address(name, v4), zone.Address(name, v6), zone.SSHFingerprint(name, 4, [32]byte{byte(i), 1, 2}),
		zone.Text(name, "pool=web", fmt.Sprintf("index=%d", i)),
	}
}

// forwardRecords are those of a zone of count machines, with every oddity that such a zone can have.
func forwardRecords(t *testing.T, origin string, count int) []zone.Record {
	t.Helper()
	must := must(t)
	named := func(name string, typ zone.Type, target string) zone.Record {
		return must(zone.Named(name, typ, target))
	}
	records := []zone.Record{
		zone.Text(origin, "v=1"), zone.CAA(origin, 0, "issue", ";"),
		named("alias."+origin, zone.TypeCNAME, "web-1."+origin),
		named("alias2."+origin, zone.TypeCNAME, "alias."+origin),
		named("dangling."+origin, zone.TypeCNAME, "nobody."+origin),
		named("elsewhere."+origin, zone.TypeCNAME, "www.elsewhere.test."),
		named("deep-alias."+origin, zone.TypeCNAME, "a.b.c.deep."+origin),
		named("ring1."+origin, zone.TypeCNAME, "ring2."+origin),
		named("ring2."+origin, zone.TypeCNAME, "ring1."+origin),
		named("self."+origin, zone.TypeCNAME, "self."+origin),
		named("neighbour."+origin, zone.TypeCNAME, "web-2."+plainOrigin),
		zone.Address("a.b.c.deep."+origin, netip.MustParseAddr("192.0.2.250")),
		zone.Address("b.c.deep."+origin, netip.MustParseAddr("2001:db8::b")),
		zone.Text("long."+origin, strings.Repeat("x", 700)), zone.Text("longer."+origin, strings.Repeat("y", 2000)),
		zone.Text("empty." + origin), zone.Address(strings.Repeat("l", 63)+"."+origin, netip.MustParseAddr("192.0.2.251")),
	}
	for i := range 10 {
		target := fmt.Sprintf("chain%d.%s", i+1, origin)
		if i == 9 {
			target = "web-3." + origin
		}
		records = append(records, named(fmt.Sprintf("chain%d.%s", i, origin), zone.TypeCNAME, target))
	}
	for i := range count {
		name := fmt.Sprintf("web-%d.%s", i+1, origin)
		records = append(records, hostRecords(name, i)...)
		v4, v6 := hostAddresses(i)
		if i < 24 {
			records = append(records, zone.Address("web."+origin, v4), zone.Address("web."+origin, v6))
		}
		if i < 8 {
			records = append(records, must(zone.Service("_http._tcp.web."+origin, 0, 1, 80, name)))
		}
		if i < 2 {
			records = append(records, must(zone.Service("_ssh._tcp.web."+origin, 0, 1, 22, name)))
		}
	}
	return append(records, must(zone.Service("_far._tcp.web."+origin, 0, 1, 80, "www.elsewhere.test.")))
}

// reverseRecords are the pointers of the machines' addresses within an origin.
func reverseRecords(t *testing.T, origin string) []zone.Record {
	t.Helper()
	var records []zone.Record
	for i := range hosts {
		v4, v6 := hostAddresses(i)
		for _, addr := range []netip.Addr{v4, v6} {
			if name := zone.ReverseName(addr); strings.HasSuffix(strings.TrimSuffix(name, ".")+".", "."+origin) {
				records = append(records, must(t)(zone.Named(name, zone.TypePTR, fmt.Sprintf("web-%d.%s", i+1, plainOrigin))))
			}
		}
	}
	return records
}

// build makes a zone.
func build(t *testing.T, origin string, mode zone.Signing, records []zone.Record) *zone.Zone {
	t.Helper()
	z, err := zone.Build(zone.Config{
		Origin: origin, Serial: 1000, TTL: 300, NegativeTTL: 20, Mode: mode, Records: records,
		NS: []zone.NameServer{
			{Name: "ns1." + plainOrigin, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.253"), netip.MustParseAddr("2001:db8::53")}},
			{Name: "ns2." + plainOrigin, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.254")}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// newKey makes a signing key of a zone.
func newKey(t *testing.T, origin string) *dnssec.Key {
	t.Helper()
	k, err := dnssec.Generate(origin)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newSigner makes a signer with one key.
func newSigner(t *testing.T, key *dnssec.Key) *dnssec.Signer {
	t.Helper()
	s, err := dnssec.New(dnssec.Config{Keys: []dnssec.KeyState{{Key: key, State: dnssec.Active}}, Signed: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// presign signs a zone.
func presign(t *testing.T, s *dnssec.Signer, z *zone.Zone) *zone.Zone {
	t.Helper()
	changes, err := s.SignAll(t.Context(), z, nil)
	if err != nil {
		t.Fatal(err)
	}
	if z, err = z.With(z.Serial(), changes); err != nil {
		t.Fatal(err)
	}
	return z
}

// parse turns a record of ours into the library's.
func parse(t *testing.T, r zone.Record) dns.RR {
	t.Helper()
	owner := make([]byte, 256)
	end, err := dns.PackDomainName(dns.Fqdn(r.Name), owner, 0, nil, false)
	if err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	wire := binary.BigEndian.AppendUint16(owner[:end], uint16(r.Type))
	wire = binary.BigEndian.AppendUint16(wire, dns.ClassINET)
	wire = binary.BigEndian.AppendUint32(wire, r.TTL)
	wire = binary.BigEndian.AppendUint16(wire, uint16(len(r.Data)))
	rr, _, err := dns.UnpackRR(append(wire, r.Data...), 0)
	if err != nil {
		t.Fatalf("%s type %d: %v", r.Name, r.Type, err)
	}
	return rr
}
