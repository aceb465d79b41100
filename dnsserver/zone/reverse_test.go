package zone_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

func TestReverse(t *testing.T) {
	tests := []struct {
		prefix string
		want   []string
	}{
		{"10.88.0.0/24", []string{"0.88.10.in-addr.arpa."}},
		{"10.88.0.128/25", []string{"0.88.10.in-addr.arpa."}},
		{"10.88.0.0/16", []string{"88.10.in-addr.arpa."}},
		{"10.88.4.0/22", []string{"4.88.10.in-addr.arpa.", "5.88.10.in-addr.arpa.", "6.88.10.in-addr.arpa.", "7.88.10.in-addr.arpa."}},
		{"10.254.0.0/15", []string{"254.10.in-addr.arpa.", "255.10.in-addr.arpa."}},
		{"254.0.0.0/7", []string{"254.in-addr.arpa.", "255.in-addr.arpa."}},
		{"fd00:88::/32", []string{"8.8.0.0.0.0.d.f.ip6.arpa."}},
		{"fd00:88::/31", []string{"8.8.0.0.0.0.d.f.ip6.arpa.", "9.8.0.0.0.0.d.f.ip6.arpa."}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, zone.ReverseZones(netip.MustParsePrefix(tt.prefix))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.prefix, diff)
		}
	}
	for _, a := range []string{"10.88.0.2", "fd00:88::2", "::ffff:10.88.0.2"} {
		want, err := dns.ReverseAddr(netip.MustParseAddr(a).Unmap().String())
		if err != nil {
			t.Fatal(err)
		}
		if got := zone.ReverseName(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %s, want %s", a, got, want)
		}
	}
}
