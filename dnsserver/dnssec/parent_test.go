package dnssec

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// asked are the parentSets that the versions of a rollover ask the parent for.
var asked = [4]int{0, 1, 2, 2}

// wanted returns the records of a type that ask for the DS records of keys, as the reference library makes them.
func wanted(t *testing.T, typ uint16, keys ...*Key) (text []string) {
	t.Helper()
	for _, k := range keys {
		r := k.DNSKEY()
		r.TTL = 300
		public := toRR(t, r).(*dns.DNSKEY)
		if typ == dns.TypeCDS {
			text = append(text, public.ToDS(dns.SHA256).ToCDS().String())
		} else {
			text = append(text, public.ToCDNSKEY().String())
		}
	}
	slices.Sort(text)
	return text
}

// TestAsksTheParent: at every step of a rollover the origin asks for the DS records that the parent should have, in both
// forms, and every key signs that, since the parent may know either.
func TestAsksTheParent(t *testing.T) {
	r := newRollover(t)
	for i, states := range r.states {
		var all, named []*Key
		for j, k := range r.keys {
			if rolloverStates[i][j] != 0 {
				all = append(all, k)
			}
			if parentSets[asked[i]][j] {
				named = append(named, k)
			}
		}
		set, online := onlineZones(t, states...)
		for _, typ := range []uint16{dns.TypeCDS, dns.TypeCDNSKEY} {
			want := wanted(t, typ, named...)
			check := func(mode string, got []string) {
				t.Helper()
				if slices.Sort(got); !slices.Equal(got, want) {
					t.Errorf("version %d, %s: %s\nwant %s", i, mode, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}
			var presigned []string
			for record := range r.versions[i].Records(testOrigin) {
				if record.Type == zone.Type(typ) {
					presigned = append(presigned, toRR(t, record).String())
				}
			}
			check("presigned", presigned)
			if by := signers(t, r.versions[i], r.versions[i], testOrigin, zone.Type(typ)); len(by) != len(all) {
				t.Errorf("version %d: %s signed by %v", i, dns.TypeToString[typ], by)
			}
			text := func(records []dns.RR) (out []string) {
				for _, rr := range records {
					if rr.Header().Rrtype == typ {
						out = append(out, rr.String())
					}
				}
				return out
			}
			check("online", text(ask(t, online, set, question(testOrigin, typ, 1232, false), false, all...).Answer))
			check("without DO", text(plainAnswer(t, set, typ)))
		}
	}
}

// TestSignedSinceTheLastTick: a parent that checks whether what it is asked for is new (RFC 7344 section 6.2) sees that it is.
func TestSignedSinceTheLastTick(t *testing.T) {
	active, retired := generate(t, testOrigin), generate(t, testOrigin)
	z := build(t, zone.Presigned, 1, sample(t)...)
	for i := range 5 {
		at := testSigned.Add(time.Duration(i) * Tick)
		z = sign(t, newSigner(t, at, KeyState{active, Active}, KeyState{retired, Retired}), z, uint32(i+2))
		n := 0
		for r := range z.Records(testOrigin) {
			if r.Type == zone.TypeRRSIG && isOfKeys(coveredBy(r.Data)) {
				n++
				if inception := time.Unix(int64(validityIn(r.Data).inception), 0); inception.Add(Backdating + Tick).Before(at) {
					t.Errorf("the signature of type %d begins at %s, at %s", coveredBy(r.Data), inception, at)
				}
			}
		}
		if n != 6 {
			t.Errorf("%d signatures, want those of two keys for three sets", n)
		}
	}
}

// plainAnswer asks for what the origin of a zone has, without DO.
func plainAnswer(t *testing.T, set *zone.Set, typ uint16) []dns.RR {
	t.Helper()
	query, err := new(dns.Msg).SetQuestion(testOrigin, typ).Pack()
	if err != nil {
		t.Fatal(err)
	}
	var q zone.Query
	zone.Parse(query, &q)
	octets, _ := set.Answer(nil, &q, &zone.Reply{Max: zone.MaxMessage})
	answer := new(dns.Msg)
	if err := answer.Unpack(octets); err != nil {
		t.Fatal(err)
	}
	return answer.Answer
}

// TestScanningParent: a parent that looks now and then, at servers that may be late, and does at once what it is asked for has
// no resolver fail at any moment of a rollover, where the new key signs only once the parent has its DS record.
func TestScanningParent(t *testing.T) {
	table := newRollover(t).trust(t)
	rapid.Check(t, func(t *rapid.T) {
		seconds := func(name string, low, high int) time.Duration {
			return time.Duration(rapid.IntRange(low, high).Draw(t, name)) * time.Second
		}
		timing := Timing{TTL: seconds("ttl", 1, 100), DS: seconds("ds", 1, 400), Propagation: seconds("propagation", 1, 50)}
		// The moments at which the parent does what the second and the third version ask for, and those of the zone between.
		publish := 1000 * time.Second
		join := publish + seconds("join", 0, 300)
		activate := max(publish+timing.Publish(), join) + seconds("activate", 0, 20)
		drop := activate + seconds("drop", 0, 600)
		remove := activate + timing.Retire() + seconds("remove", 0, 20)
		// A moment near one of those, and what is remembered then.
		now := rapid.SampledFrom([]time.Duration{publish, join, activate, drop, remove}).Draw(t, "step") + seconds("now", -10, 600)
		ago := func(name string, ttl, late time.Duration) time.Duration {
			return now - seconds(name, 0, int((ttl+late)/time.Second)-1)
		}
		ds := asked[passed(ago("ds seen", timing.DS, 0), join, drop)]
		keyset := passed(ago("keys seen", timing.TTL, timing.Propagation), publish, activate, remove)
		data := passed(ago("data seen", timing.TTL, timing.Propagation), publish, activate, remove)
		if !table[ds][keyset][data] {
			t.Fatalf("at %v a resolver with DS set %v, keys of version %d and data of version %d does not validate", now, parentSets[ds], keyset, data)
		}
	})
}
