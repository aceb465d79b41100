package dnszone_test

import (
	"log/slog"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/provisionr/provisionr/dnsserver/zone"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/state"
)

// hundredThousand is a state with as many hosts as a cluster takes, and a publisher that has published it.
func hundredThousand(b *testing.B) (*state.Store, *fsm.FSM, *dnszone.Publisher) {
	store := state.New()
	machine := fsm.New(store, fsm.Level, slog.New(slog.DiscardHandler))
	if err := machine.Restore(manyHosts(b)); err != nil {
		b.Fatal(err)
	}
	p, err := dnszone.NewPublisher(dnszone.PublisherConfig{State: store, Answers: discard{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := p.Publish(b.Context(), store.Read()); err != nil {
		b.Fatal(err)
	}
	return store, machine, p
}

type discard struct{}

func (discard) Set([]*zone.Zone) error { return nil }

// BenchmarkPublish has one machine of 100,000 become ready at an address and measures the time from the publication of the
// state until its zones are handed over.
func BenchmarkPublish(b *testing.B) {
	store, machine, p := hundredThousand(b)
	w := &world{t: b, store: store, fsm: machine, index: 1}
	var times []time.Duration
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		b.StopTimer()
		w.must(newChange(i % changeable).command())
		i++
		s := store.Read()
		b.StartTimer()
		begin := time.Now()
		anew, err := p.Publish(b.Context(), s)
		times = append(times, time.Since(begin))
		if err != nil || anew {
			b.Fatalf("built anew: %v, %v", anew, err)
		}
		if i == changeable {
			break
		}
	}
	b.StopTimer()
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "µs-p50")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "µs-p99")
	with := heap()
	p.Forget()
	b.ReportMetric(float64(with-heap())/1024, "index-KiB")
	runtime.KeepAlive(p)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkBuildAll builds the zones of 100,000 hosts.
func BenchmarkBuildAll(b *testing.B) {
	store, _, _ := hundredThousand(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := dnszone.Build(store.Read(), dnszone.Config{}); err != nil {
			b.Fatal(err)
		}
	}
}
