package dnssec

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// testContext returns the context of a test; properties have none.
func testContext(t tester) context.Context {
	if c, ok := t.(interface{ Context() context.Context }); ok {
		return c.Context()
	}
	return context.Background()
}

func address(name, addr string) zone.Record { return zone.Address(name, netip.MustParseAddr(addr)) }

// sample is a zone with every kind of name: empty non-terminals, an alias, several types and TTLs.
func sample(t tester) []zone.Record {
	t.Helper()
	alias, err := zone.Named("www."+testOrigin, zone.TypeCNAME, "web-1."+testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	service, err := zone.Service("_http._tcp.web."+testOrigin, 0, 10, 80, "web-1."+testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	slow := address("slow."+testOrigin, "192.0.2.9")
	slow.TTL = 3600
	return []zone.Record{
		address("web-1."+testOrigin, "192.0.2.1"), address("WEB-1."+testOrigin, "2001:db8::1"),
		address("web-2."+testOrigin, "192.0.2.2"), address("web."+testOrigin, "192.0.2.2"), address("web."+testOrigin, "192.0.2.1"),
		address("a.b.c."+testOrigin, "192.0.2.7"), alias, service, slow,
		zone.Text("web-1."+testOrigin, "pool=web os=debian"), zone.Text(testOrigin, "hello"), zone.CAA(testOrigin, 0, "issue", ";"),
		zone.SSHFingerprint("web-1."+testOrigin, 4, [32]byte{1, 2, 3}),
	}
}

func TestSignAll(t *testing.T) {
	k := generate(t, testOrigin)
	s := newSigner(t, testSigned, KeyState{k, Active})
	z := signAll(t, s, build(t, zone.Presigned, 7, sample(t)...), nil)
	checkZone(t, z, testSigned, k)
	checkZone(t, z, testSigned.Add(Lifetime-Interval-Tick), k)
	equalZones(t, signAll(t, s, build(t, zone.Presigned, 7, sample(t)...), nil), z)
}

func TestSignSmallestZone(t *testing.T) {
	k := generate(t, "example")
	base, err := zone.Build(zone.Config{Origin: "example", Serial: 1, TTL: 60, Mode: zone.Presigned, NS: []zone.NameServer{{Name: "ns.test"}}})
	if err != nil {
		t.Fatal(err)
	}
	s := newSigner(t, testSigned, KeyState{k, Active})
	z := signAll(t, s, base, nil)
	checkZone(t, z, testSigned, k)
	// A name comes and goes.
	z = sign(t, s, z, 2, zone.Change{Name: "x.example", Records: []zone.Record{address("x.example", "192.0.2.1")}})
	checkZone(t, z, testSigned, k)
	checkZone(t, sign(t, s, z, 3, zone.Change{Name: "x.example"}), testSigned, k)
}

func TestSignTakesOver(t *testing.T) {
	k := generate(t, testOrigin)
	s := newSigner(t, testSigned, KeyState{k, Active})
	former := signAll(t, s, build(t, zone.Presigned, 7, sample(t)...), nil)
	base := build(t, zone.Presigned, 8, append(sample(t), address("new."+testOrigin, "192.0.2.30"))...)
	equalZones(t, signAll(t, s, base, former), signAll(t, s, base, nil))
}

// TestSignSameTag: tags are not unique in time. Signatures of a former key are not taken for those of a new one.
func TestSignSameTag(t *testing.T) {
	seen := map[uint16]*Key{}
	k := generate(t, testOrigin)
	for ; seen[k.Tag()] == nil; k = generate(t, testOrigin) {
		seen[k.Tag()] = k
	}
	former := seen[k.Tag()]
	z := signAll(t, newSigner(t, testSigned, KeyState{former, Active}), build(t, zone.Presigned, 7, sample(t)...), nil)
	s := newSigner(t, testSigned, KeyState{k, Active})
	checkZone(t, sign(t, s, z, 8), testSigned, k)
	checkZone(t, signAll(t, s, build(t, zone.Presigned, 8, sample(t)...), z), testSigned, k)
}

func TestSignRefuses(t *testing.T) {
	k, foreign := generate(t, testOrigin), generate(t, "other.example")
	public, err := Public(testOrigin, k.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string][]KeyState{
		"none": nil, "none active": {{k, Published}}, "same twice": {{k, Active}, {k, Retired}}, "no state": {{k, 0}},
		"two active": {{k, Active}, {generate(t, testOrigin), Active}}, "two zones": {{k, Active}, {foreign, Retired}},
		"public": {{public, Active}}, "nil": {{nil, Active}},
	} {
		if _, err := New(Config{Keys: keys, Signed: testSigned}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := New(Config{Keys: []KeyState{{k, Active}}}); err == nil {
		t.Error("no signing time: taken")
	}
	s := newSigner(t, testSigned, KeyState{k, Active})
	if _, err := s.SignAll(t.Context(), build(t, zone.Unsigned, 1), nil); err == nil {
		t.Error("an unsigned zone is signed")
	}
	if _, err := s.Sign(t.Context(), build(t, zone.Presigned, 1), 2, []zone.Change{{Name: "x.example."}}); err == nil {
		t.Error("a foreign name is signed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.SignAll(ctx, build(t, zone.Presigned, 1), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

func TestProgress(t *testing.T) {
	var records []zone.Record
	for i := range 5000 {
		records = append(records, address(fmt.Sprintf("h%d.%s", i, testOrigin), "192.0.2.1"))
	}
	var last, calls atomic.Int64
	s, err := New(Config{Keys: []KeyState{{generate(t, testOrigin), Active}}, Signed: testSigned, Progress: func(done, total int) {
		if total != 5002 {
			t.Errorf("total %d", total)
		}
		calls.Add(1)
		last.Store(max(last.Load(), int64(done)))
	}})
	if err != nil {
		t.Fatal(err)
	}
	signAll(t, s, build(t, zone.Presigned, 1, records...), nil)
	if calls.Load() != 3 || last.Load() != 5002 {
		t.Errorf("%d calls, the last at %d", calls.Load(), last.Load())
	}
}

// TestIncremental: signing one change after another makes the zone that signing all of it at once makes, octet for octet,
// whatever happens to names, keys and time between.
func TestIncremental(t *testing.T) {
	pool := []*Key{generate(t, testOrigin), generate(t, testOrigin), generate(t, testOrigin)}
	rapid.Check(t, func(t *rapid.T) {
		model := map[string][]zone.Record{}
		for _, r := range sample(t) {
			name := lowerText(r.Name)
			model[name] = append(model[name], r)
		}
		signed, serial := testSigned, uint32(1)
		active := 0
		keys := []KeyState{{pool[0], Active}}
		s := newSigner(t, signed, keys...)
		z := signAll(t, s, build(t, zone.Presigned, serial, flatten(model)...), nil)
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			serial += rapid.Uint32Range(1, 9).Draw(t, "serial")
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0:
				signed = signed.Add(time.Duration(rapid.Int64Range(-3, 120).Draw(t, "ticks")) * Tick)
			case 1:
				active = rapid.IntRange(0, len(pool)-1).Draw(t, "active")
				keys = []KeyState{{pool[active], Active}}
				if other := rapid.IntRange(0, len(pool)-1).Draw(t, "other"); other != active {
					keys = append(keys, KeyState{pool[other], rapid.SampledFrom([]State{Published, Retired}).Draw(t, "state")})
				}
			}
			s = newSigner(t, signed, keys...)
			changes := drawChanges(t, model)
			z = sign(t, s, z, serial, changes...)
			equalZones(t, z, signAll(t, s, build(t, zone.Presigned, serial, flatten(model)...), nil))
		}
		var others []*Key
		for _, ks := range keys[1:] {
			others = append(others, ks.Key)
		}
		checkZone(t, z, signed, pool[active], others...)
	})
}

// labelsDrawn makes names that lie close together, above and below each other.
var labelsDrawn = rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "web", "web-1", "_tcp", "0"}), 1, 3)

// drawChanges changes the model and says how.
func drawChanges(t *rapid.T, model map[string][]zone.Record) (changes []zone.Change) {
	drawn := map[string]bool{}
	for range rapid.IntRange(0, 8).Draw(t, "changes") {
		var name string
		for _, label := range labelsDrawn.Draw(t, "name") {
			name += label + "."
		}
		name += testOrigin
		if rapid.IntRange(0, 9).Draw(t, "apex") == 0 {
			name = testOrigin
		}
		if drawn[name] {
			continue
		}
		drawn[name] = true
		var records []zone.Record
		for i := range rapid.IntRange(0, 3).Draw(t, "addresses") {
			records = append(records, zone.Address(name, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})))
		}
		if rapid.Bool().Draw(t, "text") && len(records) > 0 {
			r := zone.Text(name, rapid.SampledFrom([]string{"x", "y"}).Draw(t, "string"))
			r.TTL = rapid.SampledFrom([]uint32{0, 10, 1000}).Draw(t, "ttl")
			records = append(records, r)
		}
		model[name] = records
		changes = append(changes, zone.Change{Name: name, Records: slices.Clone(records)})
	}
	return changes
}

func flatten(model map[string][]zone.Record) (records []zone.Record) {
	for _, own := range model {
		records = append(records, own...)
	}
	return records
}

func lowerText(name string) string {
	wire, _ := zone.AppendName(nil, name)
	return zone.TextName(wire)
}

func TestWorkers(t *testing.T) {
	all := runtime.GOMAXPROCS(0)
	for names, want := range map[int]int{1: 1, perWorker * 1000: max(1, all/2), progressStep: min(all, 1+progressStep/perWorker)} {
		if got := workers(names); got != want {
			t.Errorf("%d names: %d workers, want %d", names, got, want)
		}
	}
}
