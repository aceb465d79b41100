package dnszone_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/provisionr/provisionr/dnsserver/dnssec"
	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

// refusing has signers of some origins only, and says how often it was asked for others.
type refusing struct {
	*signing
	mu      sync.Mutex
	refused string
	asked   int
}

func (r *refusing) refuse(origin string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = origin
}

func (r *refusing) Signer(s *state.Snapshot, origin string) (dnszone.Signer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if origin == r.refused {
		r.asked++
		return nil, errors.New("no data key")
	}
	return r.signing.Signer(s, origin)
}

// published is the origins and serials of what was set, one text each time.
type published []string

func (p *published) Set(zones []*zone.Zone) error {
	var all []string
	for _, z := range zones {
		all = append(all, fmt.Sprintf("%s%d", z.Origin(), z.Serial()))
	}
	*p = append(*p, strings.Join(all, " "))
	return nil
}

func (p *published) last() string { return (*p)[len(*p)-1] }

// TestFailingZone: a zone that cannot be signed is not answered, the others go on change by change, and it comes back.
func TestFailingZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, out, log := newWorld(t), &published{}, &bytes.Buffer{}
		w.must(apply(zoneObject("other", &provisionrv1.ZoneSpec{Domain: "o.internal", Dnssec: "presigned"})))
		keys := &refusing{signing: &signing{t: t, keys: map[string]*dnssec.Key{}}}
		gone := 0
		p, err := dnszone.NewPublisher(dnszone.PublisherConfig{
			State: w.store, Answers: out, Logger: slog.New(slog.NewTextHandler(log, nil)), Zones: dnszone.Config{Signing: keys},
			Delta: func(_, to *zone.Zone, _ []string) {
				if to == nil {
					gone++
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		anew := 0
		publish := func() {
			t.Helper()
			whole, err := p.Publish(t.Context(), w.store.Read())
			if err != nil {
				t.Fatal(err)
			}
			if whole {
				anew++
			}
		}
		publish()
		keys.refuse("o.internal")
		for i := range uint32(5) {
			w.must(apply(poolObject("web", &provisionrv1.PoolSpec{Size: i + 1})))
			w.serve(fmt.Sprintf("m-%d", i), "web", i+1)
			publish()
			if last := out.last(); strings.Contains(last, "o.internal") || !strings.Contains(last, fmt.Sprintf("p.internal.%d", dnszone.Serial(w.store.Read().Cluster()))) {
				t.Fatalf("published %s", last)
			}
		}
		if anew != 1 || gone != 1 || keys.asked != 1 {
			t.Errorf("built %d times, %d zones gone, asked %d times for a key", anew, gone, keys.asked)
		}
		time.Sleep(10 * time.Second)
		publish()
		publish()
		if anew != 1 || keys.asked != 2 {
			t.Errorf("built %d times, asked %d times for a key", anew, keys.asked)
		}
		w.must(apply(zoneObject("other", &provisionrv1.ZoneSpec{Domain: "o.internal", Dnssec: "presigned", Records: []*provisionrv1.StaticRecord{
			{Name: "w", Text: []string{"x"}}}})))
		publish()
		w.must(apply(networkObject("more", &provisionrv1.NetworkSpec{Cidr: "10.77.0.0/24", Provider: "local"})))
		publish()
		if last := out.last(); anew != 2 || strings.Contains(last, "o.internal") || !strings.Contains(last, "77.10.in-addr.arpa") {
			t.Errorf("published %s, built %d times", last, anew)
		}
		// What opens keys comes.
		keys.refuse("")
		tx := w.store.Begin()
		tx.PutSealedKey(&raftlogv1.SealedKey{Version: 1})
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		w.store.Publish()
		publish()
		if last := out.last(); !strings.Contains(last, "o.internal") || anew != 3 {
			t.Errorf("published %s, built %d times", last, anew)
		}
		if n := strings.Count(log.String(), "cannot be signed"); n != 1 {
			t.Errorf("logged %d times: %s", n, log)
		}
	})
}

// TestFailingZoneIsTriedAgain: without any change.
func TestFailingZoneIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, out := newWorld(t), make(sets, 10)
		w.must(apply(zoneObject("other", &provisionrv1.ZoneSpec{Domain: "o.internal", Dnssec: "presigned"})))
		keys := &refusing{signing: &signing{t: t, keys: map[string]*dnssec.Key{}}, refused: "o.internal"}
		p, err := dnszone.NewPublisher(dnszone.PublisherConfig{State: w.store, Answers: out, Logger: slog.New(slog.DiscardHandler), Zones: dnszone.Config{Signing: keys}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		has := func(zones []*zone.Zone) bool {
			return slices.ContainsFunc(zones, func(z *zone.Zone) bool { return z.Origin() == "o.internal." })
		}
		if zones := <-out; has(zones) || len(zones) == 0 {
			t.Errorf("published %d zones", len(zones))
		}
		synctest.Wait()
		keys.refuse("")
		begin := time.Now()
		if !has(<-out) || time.Since(begin) != 10*time.Second {
			t.Errorf("not tried again after %s", time.Since(begin))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestLargeZoneKeepsNobodyWaiting: before a large zone is signed the others are published, and the former version of it.
func TestLargeZoneKeepsNobodyWaiting(t *testing.T) {
	store, out := cluster(t), &published{}
	keys := &signing{t: t, keys: map[string]*dnssec.Key{}}
	var records []*provisionrv1.StaticRecord
	for i := range 4200 {
		records = append(records, &provisionrv1.StaticRecord{Name: fmt.Sprintf("r%d", i), Text: []string{"x"}})
	}
	large := func(mode string) any {
		return &provisionrv1.Zone{Metadata: meta("other"), Spec: &provisionrv1.ZoneSpec{Domain: "o.internal", Dnssec: mode, Records: records}}
	}
	deltas := map[string]int{}
	p, err := dnszone.NewPublisher(dnszone.PublisherConfig{
		State: store, Answers: out, Logger: slog.New(slog.DiscardHandler), Zones: dnszone.Config{Signing: keys},
		Delta: func(from, _ *zone.Zone, _ []string) { deltas[from.Origin()]++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	put(t, store, 9, large(""))
	if _, err := p.Publish(t.Context(), store.Read()); err != nil {
		t.Fatal(err)
	}
	put(t, store, 10, large("presigned"))
	if _, err := p.Publish(t.Context(), store.Read()); err != nil {
		t.Fatal(err)
	}
	if len(*out) != 3 || !strings.Contains((*out)[1], "o.internal.8 p.internal.9") || !strings.Contains((*out)[2], "o.internal.9 p.internal.9") {
		t.Errorf("published %q", *out)
	}
	if deltas["o.internal."] != 1 || deltas["p.internal."] != 1 {
		t.Errorf("deltas %v", deltas)
	}
}
