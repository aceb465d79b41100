package zone_test

import (
	"fmt"
	"testing"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// TestManyAtOnce: a small zone takes in, and gives up, more names in one change than one shard could ever have.
func TestManyAtOnce(t *testing.T) {
	const n = 70_000
	cfg := zone.Config{Origin: "z.test", Serial: 1, TTL: 30, Mode: zone.Presigned, NS: []zone.NameServer{{Name: "ns.other.test"}}}
	empty := mustBuild(t, cfg)
	here, gone := make([]zone.Change, n), make([]zone.Change, n)
	for i := range n {
		name := fmt.Sprintf("h-%d.z.test.", i)
		gone[i] = zone.Change{Name: name}
		here[i] = zone.Change{Name: name, Records: []zone.Record{zone.Text(name, "x")}}
		cfg.Records = append(cfg.Records, here[i].Records...)
	}
	full, err := empty.With(2, here)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Serial = 2; full.Len() != mustBuild(t, cfg).Len() {
		t.Errorf("%d names", full.Len())
	}
	for _, c := range here {
		found := 0
		for range full.Records(c.Name) {
			found++
		}
		if found != 1 {
			t.Fatalf("%s has %d records", c.Name, found)
		}
	}
	again, err := full.With(1, gone)
	if err != nil {
		t.Fatal(err)
	}
	assertSame(t, empty, again)
}
