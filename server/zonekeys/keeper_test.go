package zonekeys

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/provisionr/provisionr/dnsserver/dnssec"
	"github.com/provisionr/provisionr/internal/errs"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/state"
)

func TestFirstKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fsm.Level)
		stop := w.keep()
		time.Sleep(time.Minute)
		if n := len(w.keys(domain, state.KeyActive)); n != 0 {
			t.Fatalf("%d keys of a zone that is not signed", n)
		}
		w.sign("presigned")
		time.Sleep(2 * pause)
		w.only(domain, state.KeyActive)
		first := w.only(reverse, state.KeyActive)
		// A further network has a further reverse zone.
		w.apply(network("second", "10.0.1.0/24"))
		time.Sleep(2 * pause)
		w.only("1.0.10.in-addr.arpa", state.KeyActive)
		if got := w.only(reverse, state.KeyActive); got != first {
			t.Error("the first reverse zone has another key")
		}
		stop()
	})
}

func TestNoKeysBelowTheirLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, state.LevelNames-1)
		stop := w.keep()
		// Members of the version before keep what they do not know.
		w.sign("presigned")
		time.Sleep(time.Minute)
		if got := w.states(domain); got != "" {
			t.Fatalf("keys %s", got)
		}
		w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_SetFeatureLevel{SetFeatureLevel: &raftlogv1.SetFeatureLevel{Level: state.LevelNames}}})
		time.Sleep(2 * pause)
		w.only(domain, state.KeyActive)
		stop()
	})
}

// For weeks: signatures that are made before they are asked for are never older than an hour, the others never too old to be
// made so.
func TestSigningTimes(t *testing.T) {
	for mode, most := range map[string]time.Duration{"presigned": dnssec.Tick, "online": dnssec.Interval} {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fsm.Level)
				w.sign(mode)
				stop := w.keep()
				time.Sleep(2 * pause)
				before := w.store.Read().Version().GetIndex()
				for range 14 * 24 * 4 {
					time.Sleep(15 * time.Minute)
					if age := w.age(domain); age > most+2*pause {
						t.Fatalf("signed %s ago", age)
					}
				}
				// Two zones.
				if n := w.store.Read().Version().GetIndex() - before; n > 2*uint64(14*24*time.Hour/most)+2 {
					t.Errorf("%d commands", n)
				}
				stop()
			})
		})
	}
}

func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fsm.Level)
		w.sign("presigned")
		offset := time.Duration(0)
		w.keeper.cfg.Now = func() time.Time { return time.Now().Add(offset) }
		ctx := t.Context()
		step := func() {
			p := planOf(w.store.Read(), w.keeper.cfg.Now(), map[string]time.Time{})
			if err := w.keeper.carryOut(ctx, p, w.keeper.cfg.Now()); err != nil {
				t.Fatal(err)
			}
		}
		step()
		offset = -30 * 24 * time.Hour
		step()
		if age := w.age(domain); age < 29*24*time.Hour {
			t.Errorf("signed %s ago: signatures from the future are not valid yet", age)
		}
		offset = 0
		step()
		if age := w.age(domain); age > time.Hour {
			t.Errorf("signed %s ago", age)
		}
	})
}

func TestRollover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fsm.Level)
		if _, err := w.keeper.Roll(w.store.Read(), domain); !errs.Is(err, errs.NotFound) {
			t.Fatalf("roll of an unsigned zone: %v", err)
		}
		w.sign("presigned")
		if _, err := w.keeper.Roll(w.store.Read(), domain); !errs.Is(err, errs.Unavailable) {
			t.Fatalf("roll before the first key: %v", err)
		}
		stop := w.keep()
		time.Sleep(2 * pause)
		old := w.only(domain, state.KeyActive)
		roll := func() error {
			command, err := w.keeper.Roll(w.store.Read(), "Provisionr.Internal.")
			if err != nil {
				return err
			}
			return w.put(t.Context(), command)
		}
		if err := roll(); err != nil {
			t.Fatal(err)
		}
		if err := roll(); !errs.Is(err, errs.Conflict) {
			t.Fatalf("a second published key: %v", err)
		}
		young := w.only(domain, state.KeyPublished)
		activate := func() error {
			command, err := w.keeper.Activate(w.store.Read(), domain, young.GetTag())
			if err != nil {
				return err
			}
			return w.put(t.Context(), command)
		}
		ready := dnssec.Timing{TTL: 300 * time.Second}.Publish()
		if err := activate(); !errs.Is(err, errs.Conflict) {
			t.Fatalf("a key that no resolver knows: %v", err)
		}
		if next := w.next(young.GetTag()); !strings.Contains(next, "not before") {
			t.Errorf("next: %s", next)
		}
		time.Sleep(ready)
		if next := w.next(young.GetTag()); !strings.HasPrefix(next, "when the parent zone has its DS record: provisionr dns activate "+domain) {
			t.Errorf("next: %s", next)
		}
		for range 2 { // the second changes nothing
			if err := activate(); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.only(domain, state.KeyActive); got.GetTag() != young.GetTag() || time.Since(got.GetSigned().AsTime()) > time.Second {
			t.Errorf("active key %v", got)
		}
		if _, err := w.keeper.Activate(w.store.Read(), domain, old.GetTag()); !errs.Is(err, errs.Conflict) {
			t.Errorf("the retired key again: %v", err)
		}
		if next := w.next(old.GetTag()); !strings.HasPrefix(next, "remove its DS record from the parent zone; it is removed after") {
			t.Errorf("next: %s", next)
		}
		time.Sleep(dnssec.Timing{TTL: 300 * time.Second, DS: parents}.Retire() - time.Minute)
		w.only(domain, state.KeyRetired)
		time.Sleep(time.Minute + longest)
		if got := w.states(domain); got != "active" {
			t.Errorf("keys %s", got)
		}
		stop()
	})
}

func (w *world) next(tag uint32) string {
	for _, k := range w.keeper.List(w.store.Read(), domain) {
		if k.GetTag() == tag {
			return k.GetNext()
		}
	}
	return ""
}

// Turned off and on again within two days a zone has its key, later another one.
func TestUnsignedZones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fsm.Level)
		w.sign("presigned")
		stop := w.keep()
		time.Sleep(2 * pause)
		first := w.only(domain, state.KeyActive).GetTag()
		w.sign("off")
		time.Sleep(grace - time.Hour)
		if next := w.next(first); !strings.Contains(next, "not signed any more") {
			t.Errorf("next: %s", next)
		}
		w.sign("presigned")
		time.Sleep(2 * grace)
		if got := w.only(domain, state.KeyActive).GetTag(); got != first {
			t.Errorf("key %d is gone", first)
		}
		w.sign("off")
		time.Sleep(grace + longest)
		if got := w.states(domain) + w.states(reverse); got != "" {
			t.Errorf("keys %s", got)
		}
		stop()
	})
}

// What cannot be committed is tried again.
func TestKeepGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fsm.Level)
		w.sign("online")
		failing := 3
		w.keeper.cfg.Put = func(ctx context.Context, c *raftlogv1.Command) error {
			if failing--; failing >= 0 {
				return errs.New(errs.Unavailable, "no leader")
			}
			return w.put(ctx, c)
		}
		stop := w.keep()
		time.Sleep(5 * retry)
		w.only(domain, state.KeyActive)
		stop()
		if !strings.Contains(w.log.String(), "no leader") {
			t.Errorf("log: %s", w.log.String())
		}
	})
}

func TestListTellsNothingPrivate(t *testing.T) {
	w := newWorld(t, fsm.Level)
	w.sign("presigned")
	if err := w.keeper.carryOut(t.Context(), planOf(w.store.Read(), time.Now(), map[string]time.Time{}), time.Now()); err != nil {
		t.Fatal(err)
	}
	all, one := w.keeper.List(w.store.Read(), ""), w.keeper.List(w.store.Read(), "Provisionr.Internal.")
	if len(all) != 2 || len(one) != 1 {
		t.Fatalf("%d keys, %d of the zone", len(all), len(one))
	}
	k := one[0]
	if !strings.HasPrefix(k.GetDs(), domain+". IN DS ") || !strings.HasPrefix(k.GetDnskey(), domain+". IN DNSKEY 257 3 13 ") || k.GetNext() != "signs" {
		t.Errorf("key %v", k)
	}
}

// Signatures come before first keys, one failure keeps nothing else away, and the end of ctx everything.
func TestCarryOutGoesOn(t *testing.T) {
	w := newWorld(t, fsm.Level)
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	w.keeper.cfg.Put = func(_ context.Context, c *raftlogv1.Command) error {
		what := "first"
		if c.GetRemoveZoneKey() != nil {
			what = c.GetRemoveZoneKey().GetName()
		}
		if got = append(got, what); len(got) == 5 {
			cancel()
		}
		if what == "b" {
			return errs.New(errs.Conflict, "raced")
		}
		return errs.New(errs.Unavailable, "no %s", what)
	}
	remove := func(name string) *raftlogv1.Command {
		return &raftlogv1.Command{Kind: &raftlogv1.Command_RemoveZoneKey{RemoveZoneKey: &raftlogv1.RemoveZoneKey{Name: name}}}
	}
	p := plan{make: []string{domain}, commands: []*raftlogv1.Command{remove("a"), remove("b")}}
	err := w.keeper.carryOut(ctx, p, time.Now())
	if strings.Join(got, " ") != "a b first" || err == nil || !strings.Contains(err.Error(), "no a") || !strings.Contains(err.Error(), "no first") {
		t.Errorf("done %q: %v", got, err)
	}
	if err := w.keeper.carryOut(ctx, p, time.Now()); err != context.Canceled || len(got) != 5 {
		t.Errorf("done %q: %v", got, err)
	}
}
