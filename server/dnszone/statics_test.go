package dnszone

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

func commit(t interface{ Fatal(...any) }, store *state.Store, index uint64, rows ...any) {
	tx := store.Begin()
	tx.PutCluster(&provisionrv1.Cluster{Id: "c", DefaultZone: "a", ZoneIndex: index, FeatureLevel: state.LevelNames})
	for _, row := range rows {
		tx.Put(row)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	store.Publish()
}

func drawStatics(t *rapid.T) []*provisionrv1.StaticRecord {
	var records []*provisionrv1.StaticRecord
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d.e", "f", "g"}), 0, 6, rapid.ID[string]).Draw(t, "names") {
		r := &provisionrv1.StaticRecord{Name: name, Addresses: rapid.SliceOfN(rapid.SampledFrom([]string{
			"10.0.0.1", "10.0.0.2", "10.0.0.3", "::ffff:10.0.0.3", "2001:db8::1", "9.255.0.1", "255.0.0.1", "::1",
		}), 0, 3).Draw(t, "addresses")}
		if len(r.GetAddresses()) == 0 {
			r.Cname = "a"
		}
		records = append(records, r)
	}
	return records
}

// TestStatics: addresses point to the first of their names, and those that do not any more are told.
func TestStatics(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := state.New()
		var before *statics
		var was map[netip.Addr]string
		for index := range uint64(3) {
			rows := []any{&provisionrv1.Pool{Metadata: &provisionrv1.Metadata{Name: "p"}, Spec: &provisionrv1.PoolSpec{Zone: "b", Records: drawStatics(t)}}}
			for _, name := range []string{"a", "b"} {
				if rapid.Bool().Draw(t, "put") {
					rows = append(rows, &provisionrv1.Zone{Metadata: &provisionrv1.Metadata{Name: name},
						Spec: &provisionrv1.ZoneSpec{Domain: name + ".test", Records: drawStatics(t)}})
				}
			}
			commit(t, store, index+1, rows...)
			s, want := store.Read(), map[netip.Addr]string{}
			add := func(domain string, records []*provisionrv1.StaticRecord) {
				for _, r := range records {
					for _, address := range r.GetAddresses() {
						if addr := netip.MustParseAddr(address).Unmap(); want[addr] == "" {
							want[addr] = r.GetName() + "." + domain
						}
					}
				}
			}
			for z := range s.WholeZones() {
				add(z.GetSpec().GetDomain(), z.GetSpec().GetRecords())
			}
			add(s.Zone("b").GetSpec().GetDomain(), s.Pool("p").GetSpec().GetRecords())
			now := newStatics(s)
			if got := maps.Collect(now.all()); !maps.Equal(got, want) {
				t.Fatalf("addresses point to %v, want %v", got, want)
			}
			for addr := range maps.Keys(was) {
				if now.target(addr) != want[addr] {
					t.Fatalf("%s points to %q, want %q", addr, now.target(addr), want[addr])
				}
			}
			if before != nil {
				var moved []netip.Addr
				for addr := range want {
					if was[addr] != want[addr] {
						moved = append(moved, addr)
					}
				}
				for addr := range was {
					if want[addr] == "" {
						moved = append(moved, addr)
					}
				}
				got := slices.Collect(before.moved(now))
				slices.SortFunc(got, netip.Addr.Compare)
				slices.SortFunc(moved, netip.Addr.Compare)
				if !slices.Equal(got, moved) {
					t.Fatalf("moved are %v, want %v", got, moved)
				}
			}
			before, was = now, want
		}
	})
}

type keep struct{ zones []*zone.Zone }

func (k *keep) Set(zones []*zone.Zone) error {
	k.zones = zones
	return nil
}

// TestStaticsAreSmall: a static record takes little beyond the zones that are answered from.
func TestStaticsAreSmall(t *testing.T) {
	const zones, records, most = 4, 10000, 80
	alive := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := alive()
	store, answers := state.New(), &keep{}
	p, err := NewPublisher(PublisherConfig{State: store, Answers: answers, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	commit(t, store, 1, &provisionrv1.Network{Metadata: &provisionrv1.Metadata{Name: "n"}, Spec: &provisionrv1.NetworkSpec{Cidr: "10.0.0.0/8"}})
	for z := range zones {
		spec := &provisionrv1.ZoneSpec{Domain: fmt.Sprintf("%c.test", 'a'+z)}
		for i := range records {
			spec.Records = append(spec.Records, &provisionrv1.StaticRecord{
				Name: fmt.Sprintf("host-%06d", i), Addresses: []string{fmt.Sprintf("10.%d.%d.%d", z, i>>8, i&255)},
			})
		}
		commit(t, store, uint64(2+z), &provisionrv1.Zone{Metadata: &provisionrv1.Metadata{Name: fmt.Sprintf("%c", 'a'+z)}, Spec: spec})
	}
	if err := p.publish(context.Background(), store.Read()); err != nil {
		t.Fatal(err)
	}
	names := 0
	for _, z := range answers.zones {
		names += z.Len()
	}
	if names < 2*zones*records {
		t.Fatalf("%d names are answered", names)
	}
	all := alive() - before
	runtime.KeepAlive(store)
	runtime.KeepAlive(p)
	store, p = nil, nil
	answered := alive() - before
	runtime.KeepAlive(answers)
	each := float64(all-answered) / (zones * records)
	if each > most {
		t.Errorf("a static record takes %.1f octets beyond the zones, want at most %d", each, most)
	}
	t.Logf("a static record takes %.1f octets beyond the zones, and %.1f in them", each, float64(answered)/(zones*records))
}
