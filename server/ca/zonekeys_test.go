package ca

import (
	"fmt"
	"testing"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// A member is removed: whatever was committed of the rotation before it was cut off, every zone key can be opened by the others,
// and in the end none by it.
func TestEvictSealsZoneKeysAnew(t *testing.T) {
	const keys = zoneKeysPerCommand + 1
	count := 1
	for done := 0; done <= count; done++ {
		c, _ := newCluster(t)
		c.cluster.FeatureLevel = 4
		c.join(t, "b")
		for i := range keys {
			name := fmt.Sprintf("z%d.internal/%d", i, i)
			k := &provisionrv1.ZoneKey{Metadata: &provisionrv1.Metadata{Name: name}, State: "active"}
			var err error
			if k.Ciphertext, k.KeyVersion, err = c.cas["a"].SealZoneKey(name, []byte(name)); err != nil {
				t.Fatal(err)
			}
			c.zoneKeys[name] = k
		}
		seen, _, err := c.cas["b"].open(c.records)
		if err != nil {
			t.Fatal(err)
		}
		commands := must[[]*raftlogv1.Command](t)(c.cas["a"].Evict("b"))
		count = len(commands)
		c.apply(t, commands[:done]...)
		opened := func() {
			t.Helper()
			for name, k := range c.zoneKeys {
				if got, err := c.cas["a"].OpenZoneKey(k); err != nil || string(got) != name {
					t.Fatalf("after %d commands: key %s: %v", done, name, err)
				}
			}
		}
		opened()
		c.apply(t, must[[]*raftlogv1.Command](t)(c.cas["a"].Evict("b"))...)
		opened()
		for name, k := range c.zoneKeys {
			if k.KeyVersion != c.sealed.Newest || c.sealed.Oldest != c.sealed.Newest || k.State != "active" {
				t.Fatalf("key %s is of data key %d, the ring has %d to %d", name, k.KeyVersion, c.sealed.Oldest, c.sealed.Newest)
			}
			if _, err := seen.Open(purposeZoneKey(name), k.Ciphertext); !errs.Is(err, errs.Internal) {
				t.Fatalf("the data keys that the removed member had open key %s: %v", name, err)
			}
		}
	}
	if count < 4 {
		t.Errorf("%d commands: %d keys do not fit into one", count, keys)
	}
}

func TestZoneKeyIsBoundToItsName(t *testing.T) {
	c, _ := newCluster(t)
	sealed, _, err := c.cas["a"].SealZoneKey("a.internal/1", []byte("private"))
	if err != nil {
		t.Fatal(err)
	}
	other := &provisionrv1.ZoneKey{Metadata: &provisionrv1.Metadata{Name: "b.internal/1"}, Ciphertext: sealed}
	if _, err := c.cas["a"].OpenZoneKey(other); !errs.Is(err, errs.Internal) {
		t.Errorf("opened as another zone's: %v", err)
	}
	if _, err := c.cas["a"].OpenZoneKey(nil); !errs.Is(err, errs.NotFound) {
		t.Errorf("no key: %v", err)
	}
}
