package api

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// TestZonesHaveTheirRecords: what is listed and compared is the whole zone.
func TestZonesHaveTheirRecords(t *testing.T) {
	c := newCluster(t)
	zone := &provisionrv1.Zone{
		ApiVersion: "provisionr/v1", Kind: "Zone", Metadata: &provisionrv1.Metadata{Name: "lab"},
		Spec: &provisionrv1.ZoneSpec{Domain: "lab.example.org", Ttl: 30, Records: []*provisionrv1.StaticRecord{
			{Name: "b", Addresses: []string{"192.0.2.2", "192.0.2.1"}}, {Name: "a", Text: []string{"x"}},
		}},
	}
	object := &provisionrv1.Object{Kind: &provisionrv1.Object_Zone{Zone: zone}}
	c.commit(object)
	list, err := provisionrv1.NewInfraServiceClient(c.as(viewer)).ListZones(t.Context(), &provisionrv1.ListInfraRequest{})
	c.ok(err)
	i := slices.IndexFunc(list.Zones, func(z *provisionrv1.Zone) bool { return z.GetMetadata().GetName() == "lab" })
	if i < 0 || !proto.Equal(list.Zones[i].GetSpec(), zone.GetSpec()) {
		t.Errorf("listed: %v", list.Zones)
	}
	plan := func() *provisionrv1.Change {
		p, err := provisionrv1.NewManifestServiceClient(c.as(operator)).Plan(t.Context(), &provisionrv1.PlanRequest{Objects: []*provisionrv1.Object{object}})
		c.ok(err)
		return p.Changes[0]
	}
	if change := plan(); change.Action != actionNone {
		t.Errorf("as it is: %v", change)
	}
	zone.Spec.Records[1].Text = []string{"y"}
	if change := plan(); change.Action != actionUpdate || len(change.Fields) != 1 {
		t.Errorf("with another record: %v", change)
	}
}

// TestReferencesAreCheap: that a pool's zone is there is found out without a look at the zone's records.
func TestReferencesAreCheap(t *testing.T) {
	const many = 2000
	zone := &provisionrv1.Zone{
		ApiVersion: "provisionr/v1", Kind: "Zone", Metadata: &provisionrv1.Metadata{Name: "lab"}, Spec: &provisionrv1.ZoneSpec{Domain: "lab.example.org"},
	}
	for i := range many {
		zone.Spec.Records = append(zone.Spec.Records, &provisionrv1.StaticRecord{Name: fmt.Sprintf("h%d", i), Addresses: []string{"192.0.2.1"}})
	}
	store := state.New()
	tx := store.Begin()
	tx.Put(zone)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	store.Publish()
	known := knownIn(store.Read())
	if !known("Zone", "lab") || known("Zone", "nosuch") || known("Pool", "lab") {
		t.Error("not what is there is known")
	}
	if n := testing.AllocsPerRun(10, func() { known("Zone", "lab") }); n > many {
		t.Errorf("it takes %.0f allocations", n)
	}
}
