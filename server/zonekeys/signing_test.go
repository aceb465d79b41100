package zonekeys

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/provisionr/provisionr/dnsserver/dnssec"
	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/state"
)

func signed(t *testing.T, mode string) *world {
	t.Helper()
	w := newWorld(t, fsm.Level)
	w.sign(mode)
	w.step()
	return w
}

func (w *world) step() {
	w.t.Helper()
	if err := w.keeper.carryOut(w.t.Context(), planOf(w.store.Read(), time.Now(), map[string]time.Time{}), time.Now()); err != nil {
		w.t.Fatal(err)
	}
}

// answers is what a server answers from; it stops what gives it zones.
type answers struct {
	zones map[string]*zone.Zone
	stop  context.CancelFunc
}

func (a *answers) Set(zones []*zone.Zone) error {
	a.zones = map[string]*zone.Zone{}
	for _, z := range zones {
		a.zones[z.Origin()] = z
	}
	a.stop()
	return nil
}

// A publisher signs with the keeper's keys, and two servers make the same octets.
func TestPublisherSigns(t *testing.T) {
	w := signed(t, "presigned")
	var out [2]map[string]*zone.Zone
	for i := range out {
		keeper, err := New(w.keeper.cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		a := &answers{stop: cancel}
		p, err := dnszone.NewPublisher(dnszone.PublisherConfig{State: w.store, Answers: a, Logger: w.keeper.cfg.Logger, Zones: dnszone.Config{Signing: keeper}})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		out[i] = a.zones
	}
	for _, origin := range []string{domain + ".", reverse + "."} {
		a, b := out[0][origin], out[1][origin]
		if a == nil || b == nil || a.Mode() != zone.Presigned {
			t.Fatalf("zone %s is not signed", origin)
		}
		if x, y := rows(a), rows(b); x != y || !strings.Contains(x, fmt.Sprint(zone.TypeDNSKEY)) {
			t.Errorf("zone %s is signed in two ways", origin)
		}
	}
}

func rows(z *zone.Zone) string {
	var b strings.Builder
	for r := range z.All() {
		fmt.Fprintf(&b, "%s %v %d %x\n", r.Name, r.Type, r.TTL, r.Data)
	}
	return b.String()
}

func TestSignerIsRemembered(t *testing.T) {
	w := signed(t, "presigned")
	one, err := w.keeper.Signer(w.store.Read(), domain)
	if err != nil {
		t.Fatal(err)
	}
	w.sign("presigned")
	if again, err := w.keeper.Signer(w.store.Read(), domain+"."); err != nil || again != one || w.opened != 1 {
		t.Errorf("another signer of the same keys: %v, opened %d times", err, w.opened)
	}
	command, err := w.keeper.Roll(w.store.Read(), domain)
	if err != nil {
		t.Fatal(err)
	}
	w.must(command)
	if other, err := w.keeper.Signer(w.store.Read(), domain); err != nil || other == one || w.opened != 2 {
		t.Errorf("the same signer with another key: %v, opened %d times", err, w.opened)
	}
	if keys := w.keeper.Keys(w.store.Read(), domain); len(keys) != 6 || keys[0].Type != zone.TypeDNSKEY {
		t.Errorf("keys %v", keys)
	}
	w.broken[w.only(domain, state.KeyActive).GetMetadata().GetName()] = true
	fresh, err := New(w.keeper.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.Signer(w.store.Read(), domain); err == nil {
		t.Error("signs without its key")
	}
}

func TestMode(t *testing.T) {
	w := newWorld(t, fsm.Level)
	w.sign("presigned")
	if m := w.keeper.Mode(w.store.Read(), domain, zone.Presigned); m != zone.Unsigned {
		t.Errorf("mode %v without a key", m)
	}
	w.step()
	if m := w.keeper.Mode(w.store.Read(), domain, zone.Presigned); m != zone.Presigned {
		t.Errorf("mode %v", m)
	}
}

// online takes keys as dnssec.Online does, and says how many.
type online struct {
	*dnssec.Online
	given chan int
}

func (o *online) SetKeys(keys []dnssec.KeyState) error {
	o.given <- len(keys)
	return o.Online.SetKeys(keys)
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := signed(t, "presigned")
		ctx, cancel := context.WithCancel(t.Context())
		o, done := &online{dnssec.NewOnline(dnssec.OnlineConfig{}), make(chan int, 100)}, make(chan error, 1)
		go func() { done <- w.keeper.Follow(ctx, o) }()
		if n := <-o.given; n != 0 {
			t.Errorf("%d keys while no zone is signed online", n)
		}
		w.sign("online")
		if n := <-o.given; n != 2 {
			t.Errorf("%d keys of two zones", n)
		}
		command, err := w.keeper.Roll(w.store.Read(), domain)
		if err != nil {
			t.Fatal(err)
		}
		w.must(command)
		if n := <-o.given; n != 3 {
			t.Errorf("%d keys after a new one", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

const tsigSecret = "bXkgdmVyeSBsb25nIHNoYXJlZCBzZWNyZXQgb2YgMzI="

func TestPolicy(t *testing.T) {
	w := newWorld(t, fsm.Level)
	if p := w.keeper.Policy(domain + "."); len(p.Keys) != 0 {
		t.Fatalf("policy %v", p)
	}
	w.apply(zoneObject("default", &provisionrv1.ZoneSpec{Domain: domain, Transfer: &provisionrv1.ZoneTransfer{
		Keys: []*provisionrv1.TransferKey{{Name: "ns2", Secret: "one"}, {Name: "ns3.example", Algorithm: "hmac-sha512", Secret: "two"}, {Name: "bad", Secret: "bad"}},
		Secondaries: []*provisionrv1.Secondary{
			{Address: "192.0.2.1"}, {Address: "[2001:db8::1]:5353", Key: "ns3.example"}, {Address: "nowhere"}, {Address: "192.0.2.3", Key: "bad"},
		},
	}}))
	if p := w.keeper.Policy(domain + "."); len(p.Keys) != 0 || len(p.Secondaries) != 0 {
		t.Fatalf("policy without secrets %v", p)
	}
	w.setSecret("one", tsigSecret+"\n")
	w.setSecret("two", tsigSecret)
	w.setSecret("bad", "not base64")
	for _, origin := range []string{domain + ".", reverse + ".", "PROVISIONR.internal"} {
		p := w.keeper.Policy(origin)
		if got := fmt.Sprint(p.Keys); got != "[hmac-sha256:ns2 hmac-sha512:ns3.example]" {
			t.Errorf("%s: keys %s", origin, got)
		}
		if got := fmt.Sprint(p.Secondaries); got != "[{192.0.2.1:53 hmac-sha256:ns2} {[2001:db8::1]:5353 hmac-sha512:ns3.example}]" {
			t.Errorf("%s: secondaries %s", origin, got)
		}
	}
	if p := w.keeper.Policy("example.org."); len(p.Keys) != 0 {
		t.Errorf("policy of another's zone %v", p)
	}
	text := w.log.String()
	if strings.Count(text, "secret bad is not in base64") != 1 || !strings.Contains(text, "secret one does not exist") {
		t.Errorf("log: %s", text)
	}
	raw, err := base64.StdEncoding.DecodeString(tsigSecret)
	if err != nil || strings.Contains(text, tsigSecret) || strings.Contains(text, string(raw)) || strings.Contains(text, "not base64\"") {
		t.Errorf("a secret is in the log: %v", err)
	}
	// Another value is used at once.
	w.setSecret("one", "bm90IHRoZSBzYW1lIHZhbHVlIGFzIGJlZm9yZSBhdCBhbGw=")
	before := w.keeper.policies["default"]
	if w.keeper.Policy(domain); w.keeper.policies["default"].Keys[0] == before.Keys[0] {
		t.Error("the old value of the secret is still used")
	}
}

// What opens a secret may come to this member after the secret.
func TestPolicyWaitsForTheDataKey(t *testing.T) {
	w := newWorld(t, fsm.Level)
	w.apply(zoneObject("default", &provisionrv1.ZoneSpec{Domain: domain, Transfer: &provisionrv1.ZoneTransfer{
		Keys: []*provisionrv1.TransferKey{{Name: "ns2", Secret: "one"}}}}))
	w.setSecret("one", tsigSecret)
	w.breakAll(true, "one")
	if p := w.keeper.Policy(domain); len(p.Keys) != 0 {
		t.Fatalf("keys %v", p.Keys)
	}
	w.breakAll(false, "one")
	w.putSealedKey(2)
	if p := w.keeper.Policy(domain); len(p.Keys) != 1 {
		t.Error("a key that can be opened now is not used")
	}
}

// Keys that cannot be opened are tried again after a while, and at once with another data key.
func TestFollowTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := signed(t, "online")
		first, second := w.only(domain, state.KeyActive).GetMetadata().GetName(), w.only(reverse, state.KeyActive).GetMetadata().GetName()
		w.breakAll(true, first, second)
		ctx, cancel := context.WithCancel(t.Context())
		o, done := &online{dnssec.NewOnline(dnssec.OnlineConfig{}), make(chan int, 100)}, make(chan error, 1)
		go func() { done <- w.keeper.Follow(ctx, o) }()
		begin := time.Now()
		for range 3 {
			if n := <-o.given; n != 0 {
				t.Errorf("%d keys", n)
			}
		}
		synctest.Wait()
		w.breakAll(false, first)
		if n := <-o.given; n != 1 || time.Since(begin) != 3*retry {
			t.Errorf("%d keys after %s", n, time.Since(begin))
		}
		synctest.Wait()
		w.breakAll(false, second)
		w.putSealedKey(2)
		if n := <-o.given; n != 2 || time.Since(begin) != 3*retry {
			t.Errorf("%d keys after %s", n, time.Since(begin))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := strings.Count(w.log.String(), "cannot open"); n != 2 {
			t.Errorf("told %d times of two zones: %s", n, w.log.String())
		}
	})
}
