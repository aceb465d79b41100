package dnszone_test

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/state"
)

// answers counts what is published.
type answers struct {
	set   int
	zones []*zone.Zone
}

func (a *answers) Set(zones []*zone.Zone) error {
	a.set++
	a.zones = zones
	return nil
}

func newPublisher(t *testing.T, store *state.Store, a *answers, delta func(from, to *zone.Zone, names []string)) *dnszone.Publisher {
	t.Helper()
	p, err := dnszone.NewPublisher(dnszone.PublisherConfig{State: store, Answers: a, Logger: slog.New(slog.DiscardHandler), Delta: delta})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestGoneIsTold: whoever keeps differences of a zone hears that it goes.
func TestGoneIsTold(t *testing.T) {
	w, a := newWorld(t), &answers{}
	var gone []string
	p := newPublisher(t, w.store, a, func(from, to *zone.Zone, _ []string) {
		if to == nil {
			gone = append(gone, from.Origin())
		}
	})
	for _, c := range []*raftlogv1.Command{apply(zoneObject("other", &provisionrv1.ZoneSpec{Domain: "example.org"})), remove("zones", "other")} {
		w.must(c)
		if _, err := p.Publish(t.Context(), w.store.Read()); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(gone, []string{"example.org."}) {
		t.Errorf("gone are %v", gone)
	}
}

// TestNoZones: that there are none is published as well, once.
func TestNoZones(t *testing.T) {
	w, a := &world{t: t, store: state.New()}, &answers{}
	w.fsm = fsm.New(w.store, fsm.Level, slog.New(slog.DiscardHandler))
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_InitCluster{InitCluster: &raftlogv1.InitCluster{
		Cluster: &provisionrv1.Cluster{Id: "c", Name: "c", FeatureLevel: fsm.Level},
	}}})
	p := newPublisher(t, w.store, a, nil)
	for range 2 {
		if _, err := p.Publish(t.Context(), w.store.Read()); err != nil {
			t.Fatal(err)
		}
	}
	if a.set != 1 || len(a.zones) > 0 {
		t.Errorf("published %d times, last %d zones", a.set, len(a.zones))
	}
}
