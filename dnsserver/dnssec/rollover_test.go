package dnssec

import (
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// The versions of a zone in a rollover from the first key to the second, and the DS sets that the parent may have.
var (
	rolloverStates = [][2]State{{Active, 0}, {Active, Published}, {Retired, Active}, {0, Active}}
	parentSets     = [][2]bool{{true, false}, {true, true}, {false, true}}
)

// trust says whether a resolver validates: with the parent's DS set, the DNSKEY set of one version of the zone, and
// records of another.
type trust [3][4][4]bool

// rollover is the keys of a zone and its versions, signed, with what each has of the keys.
type rollover struct {
	keys     [2]*Key
	states   [4][]KeyState
	versions [4]*zone.Zone
}

func newRollover(t *testing.T) (r rollover) {
	r.keys = [2]*Key{generate(t, testOrigin), generate(t, testOrigin)}
	for i, states := range rolloverStates {
		for j, state := range states {
			if state != 0 {
				r.states[i] = append(r.states[i], KeyState{r.keys[j], state})
			}
		}
		r.versions[i] = signAll(t, newSigner(t, testSigned, r.states[i]...), build(t, zone.Presigned, uint32(i+1), sample(t)...), nil)
	}
	return r
}

// trust validates each combination, as RFC 4035 section 5 has it.
func (r rollover) trust(t *testing.T) (table trust) {
	keys, versions := r.keys, r.versions
	for ds, set := range parentSets {
		for keyset := range versions {
			for data := range versions {
				anchored := signers(t, versions[keyset], versions[keyset], testOrigin, zone.Type(dns.TypeDNSKEY))
				signed := signers(t, versions[keyset], versions[data], "web-1."+testOrigin, zone.TypeA)
				for j, k := range keys {
					table[ds][keyset][data] = table[ds][keyset][data] || set[j] && slices.Contains(anchored, k.Tag()) && len(signed) > 0
				}
			}
		}
	}
	return table
}

// signers returns which keys of one version have signed a set of another.
func signers(t *testing.T, keyset, data *zone.Zone, name string, typ zone.Type) (tags []uint16) {
	t.Helper()
	var set []dns.RR
	for r := range data.Records(name) {
		if r.Type == typ {
			set = append(set, toRR(t, r))
		}
	}
	for key := range keyset.Records(testOrigin) {
		for r := range data.Records(name) {
			if key.Type != zone.TypeDNSKEY || r.Type != zone.TypeRRSIG || coveredBy(r.Data) != typ {
				continue
			}
			public := toRR(t, key).(*dns.DNSKEY)
			if toRR(t, r).(*dns.RRSIG).Verify(public, set) == nil {
				tags = append(tags, public.KeyTag())
			}
		}
	}
	return tags
}

// TestRollover: at every moment of a rollover whose steps keep their distance, a resolver validates with anything that it
// may still remember, however late the server was that it asked.
func TestRollover(t *testing.T) {
	table := newRollover(t).trust(t)
	rapid.Check(t, func(t *rapid.T) {
		seconds := func(name string, low, high int) time.Duration {
			return time.Duration(rapid.IntRange(low, high).Draw(t, name)) * time.Second
		}
		timing := Timing{TTL: seconds("ttl", 1, 100), DS: seconds("ds", 1, 400), Propagation: seconds("propagation", 1, 50)}
		// The moments of the steps, and of the parent's.
		publish := 1000 * time.Second
		join := publish + timing.Publish() + seconds("join", 0, 20)
		activate := join + seconds("activate", 0, 20)
		drop := join
		if rapid.Bool().Draw(t, "joins") {
			drop = activate + seconds("drop", 0, 300)
		}
		remove := max(activate+timing.Retire(), drop+timing.DS) + seconds("remove", 0, 20)
		version := func(at time.Duration) int { return passed(at, publish, activate, remove) }
		parent := func(at time.Duration) int { return passed(at, join, drop) }
		// A moment near a step, and what is remembered then.
		steps := []time.Duration{publish, join, activate, drop, remove}
		now := rapid.SampledFrom(steps).Draw(t, "step") + seconds("now", -10, 600)
		ago := func(name string, ttl, late time.Duration) time.Duration {
			return now - seconds(name, 0, int((ttl+late)/time.Second)-1)
		}
		ds := parent(ago("ds seen", timing.DS, 0))
		keyset := version(ago("keys seen", timing.TTL, timing.Propagation))
		data := version(ago("data seen", timing.TTL, timing.Propagation))
		if !table[ds][keyset][data] {
			t.Fatalf("at %v a resolver with DS set %v, keys of version %d and data of version %d does not validate", now, parentSets[ds], keyset, data)
		}
	})
}

// passed returns how many of the moments have come.
func passed(at time.Duration, moments ...time.Duration) (n int) {
	for n < len(moments) && at >= moments[n] {
		n++
	}
	return n
}

// TestRolloverTooFast shows what the distances are for.
func TestRolloverTooFast(t *testing.T) {
	table := newRollover(t).trust(t)
	for _, c := range []struct {
		name             string
		ds, keyset, data int
		want             bool
	}{
		{"nothing remembered", 1, 2, 2, true},
		{"old signatures after activation", 1, 2, 1, true},
		{"keys from before the new one was published", 1, 0, 2, false},
		{"signatures of a removed key", 2, 3, 1, false},
		{"the parent has only the new key, but it is not known yet", 2, 0, 0, false},
		{"the parent has only a removed key", 0, 3, 3, false},
		{"the parent has only the new key, which is published", 2, 1, 1, true},
		{"the parent has only the old key, which is retired", 0, 2, 2, true},
	} {
		if got := table[c.ds][c.keyset][c.data]; got != c.want {
			t.Errorf("%s: validates %v, want %v", c.name, got, c.want)
		}
	}
}

func TestTiming(t *testing.T) {
	if got := (Timing{TTL: time.Minute}).Publish(); got != time.Hour+time.Minute {
		t.Errorf("published for %v", got)
	}
	if got := (Timing{TTL: time.Minute}).Retire(); got != 25*time.Hour {
		t.Errorf("retired for %v", got)
	}
	if got := (Timing{TTL: 48 * time.Hour, DS: time.Hour, Propagation: time.Minute}).Retire(); got != 48*time.Hour+time.Minute {
		t.Errorf("retired for %v", got)
	}
}

func TestState(t *testing.T) {
	for _, s := range []State{Published, Active, Retired} {
		if got, err := ParseState(s.String()); err != nil || got != s {
			t.Errorf("%s is read as %s, %v", s, got, err)
		}
	}
	if _, err := ParseState("state(0)"); err == nil {
		t.Error("a state that is none is read")
	}
}

// TestSchedule: every name's turn comes once in an interval, whether the signing time moves by ticks or by intervals, and
// no signature that is in use is near its end.
func TestSchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		owner := rapid.StringN(1, 20, 60).Draw(t, "owner")
		tick := rapid.Int64Range(turns, 1<<20).Draw(t, "tick")
		step := rapid.Int64Range(1, turns).Draw(t, "step")
		turn, next := schedule{tick}.turn(owner), schedule{tick + step}.turn(owner)
		if turn > tick || turn <= tick-turns || next < turn || next-turn != 0 && next-turn != turns {
			t.Fatalf("turns %d and %d at ticks %d and %d", turn, next, tick, tick+step)
		}
		at := time.Unix(tick*int64(Tick/time.Second), 0)
		v := schedule{tick}.of(owner)
		if v.tick() != turn || int64(v.inception) > at.Add(-Backdating).Unix() ||
			int64(v.expiration) < at.Add(Lifetime-Interval).Unix() {
			t.Fatalf("valid from %d to %d at %d", v.inception, v.expiration, at.Unix())
		}
	})
}
