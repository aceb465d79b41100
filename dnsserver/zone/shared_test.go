package zone_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// TestRank: what servers and machines of all versions agree on.
func TestRank(t *testing.T) {
	for machine, want := range map[string]uint64{"": 0xf52a15e9a9b5e89b, "web-1": 0xf576b188329f7edd, "web-2": 0x81e7362e94882ea} {
		if got := zone.Rank(machine); got != want {
			t.Errorf("%q has rank %#x, want %#x", machine, got, want)
		}
	}
}

func TestShared(t *testing.T) {
	machines := func(yield func([]netip.Addr) bool) {
		for i := range 40 {
			addrs := []netip.Addr{netip.MustParseAddr(fmt.Sprint("10.0.0.", i)), netip.MustParseAddr(fmt.Sprint("fd00::", i))}
			if i == 1 {
				addrs = nil
			}
			if !yield(addrs) {
				return
			}
		}
	}
	for _, tt := range []struct {
		name      string
		four, six int
	}{
		{"web.example.test", zone.MaxShared - 1, 15},
		{strings.Repeat("a", 63) + ".example.test", 23, 13},
		{strings.Repeat("a.", 120) + "example.test", 12, 7},
	} {
		var got []netip.Addr
		for _, r := range zone.Shared(tt.name, machines) {
			addr, _ := netip.AddrFromSlice(r.Data)
			got = append(got, addr)
		}
		four := len(slices.DeleteFunc(slices.Clone(got), netip.Addr.Is6))
		if four != tt.four || len(got)-four != tt.six {
			t.Errorf("%s has %d and %d addresses, want %d and %d", tt.name, four, len(got)-four, tt.four, tt.six)
		}
		if got[0] != netip.MustParseAddr("10.0.0.0") || slices.Contains(got, netip.MustParseAddr("10.0.0.24")) {
			t.Errorf("%s has %v", tt.name, got)
		}
	}
}

// TestKey: queries that are answered in different ways have different keys.
func TestKey(t *testing.T) {
	keys := map[string]int{}
	for i := range 1 << 4 {
		m := question("a.example.test", 1)
		m.CheckingDisabled = i&1 != 0
		if i&(2|4|8) != 0 {
			m.SetEdns0(uint16(512+i), i&2 != 0)
			if i&4 != 0 {
				m.IsEdns0().Hdr.Ttl |= 0x4000
			}
		}
		key, size := zone.Key(pack(t, m))
		keys[key]++
		m.Id++
		m.Question[0].Name = "A.example.test."
		if again, _ := zone.Key(pack(t, m)); again != key || size != len("a.example.test")+2+4 {
			t.Errorf("keys %q and %q, a question of %d octets", key, again, size)
		}
	}
	// No OPT record or one with any of two flags, and CD or not.
	if len(keys) != 2*5 {
		t.Errorf("%d keys", len(keys))
	}
}
