package dnsserver

import (
	"net/netip"
	"testing"
)

func addr(t *testing.T, text string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// permits counts what a source gets for n answers in one second.
func permits(l *limiter, from netip.Addr, k kind, second uint32, n int) (got [3]int) {
	for range n {
		got[one(l, from, k, second)]++
	}
	return got
}

// one is the permit of one answer.
func one(l *limiter, from netip.Addr, k kind, second uint32) permit {
	a := l.open(l.bucket(from), k, second)
	defer a.close()
	return l.take(&a)
}

func TestLimit(t *testing.T) {
	l := newLimiter(100)
	one := addr(t, "192.0.2.1")
	if got := permits(l, one, kindPositive, 7, 300); got != [3]int{100, 100, 100} {
		t.Errorf("300 answers: %v; want 100, then every second cut", got)
	}
	for _, c := range []struct {
		name   string
		from   string
		kind   kind
		second uint32
		want   [3]int
	}{
		{name: "same network", from: "192.0.2.200", kind: kindPositive, second: 7, want: [3]int{0, 5, 5}},
		{name: "another network", from: "192.0.3.1", kind: kindPositive, second: 7, want: [3]int{10, 0, 0}},
		{name: "another kind", from: "192.0.2.1", kind: kindNameError, second: 7, want: [3]int{10, 0, 0}},
		{name: "the next second", from: "192.0.2.1", kind: kindPositive, second: 8, want: [3]int{10, 0, 0}},
		{name: "seconds wrap", from: "192.0.2.1", kind: kindNoData, second: 1<<32 - 1, want: [3]int{10, 0, 0}},
		{name: "a /56", from: "2001:db8:0:1::1", kind: kindPositive, second: 7, want: [3]int{10, 0, 0}},
		{name: "IPv6 of these octets", from: "c000:0200::", kind: kindPositive, second: 7, want: [3]int{10, 0, 0}},
	} {
		if got := permits(l, addr(t, c.from), c.kind, c.second, 10); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	permits(l, addr(t, "2001:db8::1"), kindPositive, 9, 100)
	if got := permits(l, addr(t, "2001:db8:0:ff::2"), kindPositive, 9, 10); got[permitAnswer] != 0 {
		t.Errorf("same /56: %v", got)
	}
	if got := permits(l, addr(t, "2001:db8:0:100::2"), kindPositive, 9, 10); got[permitAnswer] != 10 {
		t.Errorf("next /56: %v", got)
	}
}

// TestLimitRemembersHeavySenders: a flood from very many networks does not make the table forget one that is over its
// limit, nor limit the many.
func TestLimitRemembersHeavySenders(t *testing.T) {
	l := newLimiter(50)
	heavy := addr(t, "198.51.100.1")
	permits(l, heavy, kindPositive, 1, 200)
	for i := range 200_000 {
		from := netip.AddrFrom4([4]byte{byte(11 + i>>16), byte(i >> 8), byte(i), 1})
		if one(l, from, kindPositive, 1) != permitAnswer {
			t.Fatalf("answer %d to %s is limited", i, from)
		}
	}
	if got := permits(l, heavy, kindPositive, 1, 100); got[permitAnswer] != 0 {
		t.Errorf("%d answers after the flood", got[permitAnswer])
	}
}

func TestNoLimit(t *testing.T) {
	if newLimiter(0) != nil {
		t.Error("limited")
	}
	l := newLimiter(1 << 40)
	if got := permits(l, addr(t, "192.0.2.1"), kindPositive, 1, 1000); got[permitAnswer] != 1000 {
		t.Errorf("limited: %v", got)
	}
}

// TestAccounts: what two readers count at the same time adds up, and both soon know it.
func TestAccounts(t *testing.T) {
	l := newLimiter(100)
	b := l.bucket(addr(t, "192.0.2.1"))
	for range 2 {
		one, two := l.open(b, kindPositive, 3), l.open(b, kindPositive, 3)
		for range 30 {
			if l.take(&one) != permitAnswer || l.take(&two) != permitAnswer {
				t.Fatal("limited")
			}
		}
		one.close()
		two.close()
	}
	if a := l.open(b, kindPositive, 3); a.before != 120 || l.take(&a) == permitAnswer {
		t.Errorf("%d answers were counted, not 120", a.before)
	}
}
