package dnszone

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// Records returns what the servers answer, without signatures, in presentation form (RFC 1035 section 5.1), sorted by zone,
// name, type and data. The Zone of a record is its origin without final dot.
func Records(s *state.Snapshot) []*provisionrv1.Record {
	var all []*provisionrv1.Record
	for _, c := range plan(s, Config{}) {
		all = append(all, records(c)...)
	}
	return all
}

func records(c zone.Config) []*provisionrv1.Record {
	var out []*provisionrv1.Record
	add := func(r zone.Record) {
		out = append(out, &provisionrv1.Record{
			Name: absolute(r.Name), Ttl: cmp.Or(r.TTL, c.TTL), Type: typeText(r.Type), Data: Data(r), Zone: strings.TrimSuffix(c.Origin, "."),
		})
	}
	for _, r := range c.Records {
		add(r)
	}
	// What the zone makes itself it makes as well without the rest.
	c.Records = nil
	if z, err := zone.Build(c); err == nil {
		for r := range z.All() {
			add(r)
		}
	}
	slices.SortFunc(out, func(a, b *provisionrv1.Record) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Data, b.Data))
	})
	return slices.CompactFunc(out, func(a, b *provisionrv1.Record) bool {
		return a.Name == b.Name && a.Type == b.Type && a.Data == b.Data
	})
}

func absolute(name string) string { return strings.TrimSuffix(name, ".") + "." }

func typeText(t zone.Type) string {
	switch t {
	case zone.TypeA:
		return "A"
	case zone.TypeAAAA:
		return "AAAA"
	case zone.TypeNS:
		return "NS"
	case zone.TypeCNAME:
		return "CNAME"
	case zone.TypeSOA:
		return "SOA"
	case zone.TypePTR:
		return "PTR"
	case zone.TypeTXT:
		return "TXT"
	case zone.TypeSRV:
		return "SRV"
	case zone.TypeSSHFP:
		return "SSHFP"
	case zone.TypeCAA:
		return "CAA"
	case zone.TypeDNSKEY:
		return "DNSKEY"
	case zone.TypeCDS:
		return "CDS"
	case zone.TypeCDNSKEY:
		return "CDNSKEY"
	}
	return fmt.Sprintf("TYPE%d", t)
}

// Data returns the data of a record of a kind that zones are planned with in presentation form, of any other in the generic
// one (RFC 3597 section 5).
func Data(r zone.Record) string {
	d := r.Data
	uint16s := func(n int) []any {
		var out []any
		for i := range n {
			out = append(out, binary.BigEndian.Uint16(d[2*i:]))
		}
		return out
	}
	switch {
	case r.Type == zone.TypeA, r.Type == zone.TypeAAAA:
		if addr, ok := netip.AddrFromSlice(d); ok {
			return addr.String()
		}
	case r.Type == zone.TypeNS, r.Type == zone.TypeCNAME, r.Type == zone.TypePTR:
		return zone.TextName(d)
	case r.Type == zone.TypeSOA && len(d) > 22:
		return soaText(d)
	case r.Type == zone.TypeTXT:
		return strings.Join(quotedStrings(d), " ")
	case r.Type == zone.TypeSRV && len(d) > 6:
		return fmt.Sprintf("%d %d %d ", uint16s(3)...) + zone.TextName(d[6:])
	case r.Type == zone.TypeSSHFP && len(d) > 2:
		return fmt.Sprintf("%d %d %x", d[0], d[1], d[2:])
	case r.Type == zone.TypeCAA && len(d) > 2 && len(d) >= 2+int(d[1]):
		return fmt.Sprintf("%d %s %s", d[0], d[2:2+int(d[1])], quote(d[2+int(d[1]):]))
	case (r.Type == zone.TypeDNSKEY || r.Type == zone.TypeCDNSKEY) && len(d) > 4:
		return fmt.Sprintf("%d %d %d %s", binary.BigEndian.Uint16(d), d[2], d[3], base64.StdEncoding.EncodeToString(d[4:]))
	case r.Type == zone.TypeCDS && len(d) > 4:
		return fmt.Sprintf("%d %d %d %X", binary.BigEndian.Uint16(d), d[2], d[3], d[4:])
	}
	return fmt.Sprintf(`\# %d %x`, len(d), d)
}

func soaText(d []byte) string {
	names, numbers := d[:len(d)-20], d[len(d)-20:]
	primary := 0
	for names[primary] != 0 {
		primary += 1 + int(names[primary])
	}
	text := zone.TextName(names[:primary+1]) + " " + zone.TextName(names[primary+1:])
	for i := range 5 {
		text += fmt.Sprintf(" %d", binary.BigEndian.Uint32(numbers[4*i:]))
	}
	return text
}

// quotedStrings returns the character strings of a TXT record's data.
func quotedStrings(d []byte) (out []string) {
	for len(d) > 0 && len(d) > int(d[0]) {
		out, d = append(out, quote(d[1:1+int(d[0])])), d[1+int(d[0]):]
	}
	return out
}

// quote writes a character string; what is not printable in ASCII is escaped by its decimal number.
func quote(text []byte) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03d`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
