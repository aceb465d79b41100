package dnsserver

import (
	"net/netip"
	"testing"
)

// TestConns: one unknown network may have a quarter of the connections, all of them together three; the rest is for known
// sources.
func TestConns(t *testing.T) {
	c := conns{max: 16, of: map[netip.Prefix]int{}}
	added := func(from string, known bool, n int) (added int) {
		for range n {
			if c.add(addr(t, from), known) {
				added++
			}
		}
		return added
	}
	for _, step := range []struct {
		from  string
		known bool
		want  int
	}{
		{"192.0.2.1", false, 4}, {"192.0.2.2", false, 0}, {"2001:db8:0:1::1", false, 4}, {"2001:db8:0:ff::1", false, 0},
		{"2001:db8:0:100::1", false, 4}, {"198.51.100.1", false, 0}, {"198.51.100.1", true, 4},
	} {
		if got := added(step.from, step.known, 5); got != step.want {
			t.Errorf("%s has %d more, want %d", step.from, got, step.want)
		}
		if full := step.want == 0 || step.known; full && c.open >= 12 && !c.scarce() {
			t.Errorf("%d of 16 are taken, and idle ones stay", c.open)
		}
	}
	for range 4 {
		c.remove(addr(t, "192.0.2.7"), false)
		c.remove(addr(t, "198.51.100.1"), true)
	}
	if got := added("203.0.113.1", false, 5); got != 4 || c.scarce() != true || len(c.of) != 3 {
		t.Errorf("%d of another network, of %v", got, c.of)
	}
}
