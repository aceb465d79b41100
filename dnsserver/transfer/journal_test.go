package transfer

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

func buildZone(t testing.TB, serial uint32, names int) *zone.Zone {
	t.Helper()
	cfg := zone.Config{Origin: "example.test", Serial: serial, TTL: 30, NS: []zone.NameServer{{Name: "ns.example.net"}}}
	for i := range names {
		cfg.Records = append(cfg.Records, zone.Address(fmt.Sprintf("host-%d.example.test", i), netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})))
	}
	z, err := zone.Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func with(t testing.TB, z *zone.Zone, serial uint32, changes ...zone.Change) *zone.Zone {
	t.Helper()
	next, err := z.With(serial, changes)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func text(name string, size int) zone.Change {
	return zone.Change{Name: name, Records: []zone.Record{zone.Text(name, strings.Repeat("x", size))}}
}

// The journal never holds more than its bound, and what it holds leads from one version to the next without a gap.
func TestJournalBound(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 5000).Draw(rt, "limit")
		j := NewJournal(limit)
		z := buildZone(t, rapid.Uint32().Draw(rt, "serial"), 10)
		for range rapid.IntRange(1, 40).Draw(rt, "versions") {
			name := fmt.Sprintf("t%d.example.test", rapid.IntRange(0, 3).Draw(rt, "name"))
			next := with(t, z, z.Serial()+rapid.Uint32Range(1, 1000).Draw(rt, "step"), text(name, rapid.IntRange(0, 2000).Draw(rt, "size")))
			if rapid.IntRange(0, 9).Draw(rt, "told") > 0 {
				j.Add(z, next, []string{name})
			}
			z = next
			size := 0
			for i, d := range j.deltas {
				size += len(d.records)
				if i > 0 && j.deltas[i-1].to != d.from {
					rt.Fatalf("%d follows %d", d.from, j.deltas[i-1].to)
				}
			}
			if size != j.size || size > limit {
				rt.Fatalf("%d octets, said to be %d, limit %d", size, j.size, limit)
			}
		}
	})
}

func TestBetween(t *testing.T) {
	// The serials wrap.
	z := buildZone(t, 1<<32-2, 10)
	j := NewJournal(0)
	versions := []*zone.Zone{z}
	for i := range 4 {
		name := fmt.Sprintf("t%d.example.test", i)
		next := with(t, z, z.Serial()+1, text(name, 10))
		j.Add(z, next, []string{name})
		z = next
		versions = append(versions, z)
	}
	for i, from := range versions {
		for k, to := range versions {
			deltas, size, ok := j.between(from.Serial(), to.Serial())
			if ok != (i < k) || ok && (len(deltas) != k-i || size == 0) {
				t.Errorf("from %d to %d: %d deltas, %v", from.Serial(), to.Serial(), len(deltas), ok)
			}
		}
	}
	if _, _, ok := j.between(77, z.Serial()); ok {
		t.Error("knows a version that never was")
	}
	// Back to an earlier serial, as after a restore: nothing of before counts.
	j.Add(z, versions[1], nil)
	if _, _, ok := j.between(versions[0].Serial(), versions[1].Serial()); ok {
		t.Error("knows the history of another life")
	}
}

func TestNewer(t *testing.T) {
	for _, test := range []struct {
		a, b uint32
		want bool
	}{{1, 0, true}, {0, 1, false}, {0, 0, false}, {0, 1<<32 - 1, true}, {1 << 31, 0, false}, {0, 1 << 31, false}, {1<<31 - 1, 0, true}, {1<<31 + 1, 0, false}} {
		if newer(test.a, test.b) != test.want {
			t.Errorf("%d newer than %d: %v", test.a, test.b, !test.want)
		}
	}
}

// A difference holds what changed and nothing else; one that is too large is not made.
func TestDifference(t *testing.T) {
	before := buildZone(t, 1, 3000)
	after := with(t, before, 2, zone.Change{Name: "host-7.example.test"}, text("new.example.test", 5))
	for _, names := range [][]string{{"host-7.example.test", "NEW.example.test."}, nil} {
		d, fits := difference(before, after, names, 1000)
		var types []zone.Type
		for rest := d.records; len(rest) > 0; {
			var body []byte
			_, body, rest = cut(rest)
			types = append(types, zone.Type(body[0])<<8|zone.Type(body[1]))
		}
		if want := []zone.Type{zone.TypeSOA, zone.TypeA, zone.TypeSOA, zone.TypeTXT}; !fits || fmt.Sprint(types) != fmt.Sprint(want) {
			t.Errorf("%v: types %v, not %v", names, types, want)
		}
	}
	if _, fits := difference(before, buildZone(t, 2, 1), nil, 1000); fits {
		t.Error("a difference of 2999 names in 1000 octets")
	}
}

// A version that is made once more changes nothing; one that differs under its serial is the end of what was known.
func TestMadeAnew(t *testing.T) {
	first := buildZone(t, 1, 10)
	second := with(t, first, 2, text("a.example.test", 10))
	j := NewJournal(0)
	j.Add(first, second, nil)
	j.Add(second, with(t, second, 2), nil)
	if _, _, ok := j.between(1, 2); !ok {
		t.Error("the journal is empty after a version that is the same")
	}
	j.Add(second, with(t, second, 2, text("b.example.test", 10)), nil)
	if _, _, ok := j.between(1, 2); ok {
		t.Error("the journal leads to another version of the same serial")
	}
}

// A secondary that refuses to be notified, again and again, is one piece of news.
func TestRefusalIsNews(t *testing.T) {
	n := notices{codes: map[target]zone.Rcode{}}
	for i, step := range []struct {
		code zone.Rcode
		news bool
	}{{zone.Success, false}, {zone.Refused, true}, {zone.Refused, false}, {zone.NotAuthoritative, true}, {zone.Success, true}, {zone.Success, false}} {
		if got := n.answered(target{origin: "example.test."}, step.code); got != step.news {
			t.Errorf("answer %d: news %v", i, got)
		}
	}
	if len(n.codes) > 0 {
		t.Error("a code is remembered for nothing")
	}
}

// FuzzRequestSerial checks that no octets behind a question do harm.
func FuzzRequestSerial(f *testing.F) {
	f.Add([]byte("\x00\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01a\x00\x00\xfb\x00\x01\xc0\x0c\x00\x06\x00\x01\x00\x00\x00\x00\x00\x16\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		var q zone.Query
		if verdict := zone.Parse(msg, &q); verdict == zone.Drop || verdict == zone.Fail {
			return
		}
		if _, ok := requestSerial(msg, len(q.Name())); ok && len(msg) < headerSize+len(q.Name())+questionTail+2+fixed+22 {
			t.Fatalf("read a serial from %x", msg)
		}
	})
}
