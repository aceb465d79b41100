package cache_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/agent/cache"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

type blob struct{ hash, body []byte }

func encode(t *testing.T, m proto.Message) blob {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(body)
	return blob{sum[:], body}
}

// state returns a desired state whose pool has a variable of that value, with its components.
func state(t *testing.T, value string) (*agentv1.Desired, []blob) {
	t.Helper()
	machine := encode(t, &agentv1.MachineComponent{MachineId: "m-a", Name: "p-1", Fqdn: "p-1.d", Domain: "d", Pool: "p"})
	pool := encode(t, &agentv1.PoolComponent{Name: "p", Variables: map[string]string{"v": value}})
	sum := sha256.Sum256([]byte(value))
	return &agentv1.Desired{Hash: sum[:], PoolGeneration: 3, Components: []*agentv1.ComponentRef{
		{Name: "machine", Hash: machine.hash}, {Name: "pool", Hash: pool.hash},
	}}, []blob{machine, pool}
}

func open(t *testing.T, dir string) *cache.Cache {
	t.Helper()
	c, err := cache.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func fill(t *testing.T, c *cache.Cache, value string) *agentv1.Desired {
	t.Helper()
	d, blobs := state(t, value)
	for _, b := range blobs {
		if err := c.Put(b.hash, b.body); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Commit(d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestReload(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	c := open(t, dir)
	if c.Load() != nil {
		t.Fatal("an empty cache has a state")
	}
	fill(t, c, "one")
	d := fill(t, c, "two")
	if s, err := cache.Read(dir); err != nil || s == nil || s.Pool.Variables["v"] != "two" {
		t.Errorf("read %+v, %v", s, err)
	}
	again := open(t, dir)
	s := again.Load()
	if s == nil || s.Pool.Variables["v"] != "two" || s.PoolGeneration != 3 || s.Machine.Name != "p-1" {
		t.Fatalf("loaded %+v", s)
	}
	if n := len(again.Have()); n != 2 || len(again.Missing(d)) != 0 {
		t.Errorf("%d components, want 2: the ones that no state names are dropped", n)
	}
}

func TestDamage(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string, d *agentv1.Desired)
		// have is how many components are left.
		have int
	}{
		{"component torn", func(t *testing.T, dir string, d *agentv1.Desired) {
			truncate(t, filepath.Join(dir, "components", hex.EncodeToString(d.Components[1].Hash)))
		}, 1},
		{"desired torn", func(t *testing.T, dir string, _ *agentv1.Desired) { truncate(t, filepath.Join(dir, "desired")) }, 2},
		{"desired emptied", func(t *testing.T, dir string, _ *agentv1.Desired) {
			if err := os.WriteFile(filepath.Join(dir, "desired"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, 2},
		{"component removed", func(t *testing.T, dir string, d *agentv1.Desired) {
			if err := os.Remove(filepath.Join(dir, "components", hex.EncodeToString(d.Components[0].Hash))); err != nil {
				t.Fatal(err)
			}
		}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			d := fill(t, open(t, dir), "one")
			tt.damage(t, dir, d)
			if s, err := cache.Read(dir); err != nil || s != nil {
				t.Errorf("read %+v, %v", s, err)
			}
			c := open(t, dir)
			if c.Load() != nil || len(c.Have()) != tt.have {
				t.Errorf("state %v with %d components, want none with %d", c.Load(), len(c.Have()), tt.have)
			}
			fill(t, c, "one")
			if c.Load() == nil {
				t.Error("the cache cannot be filled again")
			}
		})
	}
}

// TestDamageWhileOpen shows that a component that rots under a running agent is noticed and asked for again.
func TestDamageWhileOpen(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	d := fill(t, c, "one")
	truncate(t, filepath.Join(dir, "components", hex.EncodeToString(d.Components[1].Hash)))
	if c.Load() != nil || len(c.Missing(d)) != 1 {
		t.Errorf("state %v, missing %d", c.Load(), len(c.Missing(d)))
	}
}

func TestRefusals(t *testing.T) {
	c := open(t, t.TempDir())
	d, blobs := state(t, "one")
	if err := c.Put(blobs[0].hash, blobs[1].body); !errs.Is(err, errs.Invalid) {
		t.Errorf("a component under a foreign hash: %v", err)
	}
	if _, err := c.Commit(d); !errs.Is(err, errs.Invalid) {
		t.Errorf("a state without its components: %v", err)
	}
	fill(t, c, "one")
	bad := encode(t, &agentv1.PoolComponent{Name: "other"})
	if err := c.Put(bad.hash, bad.body); err != nil {
		t.Fatal(err)
	}
	d.Components[1].Hash = bad.hash
	if _, err := c.Commit(d); !errs.Is(err, errs.Invalid) {
		t.Errorf("a state that contradicts itself: %v", err)
	}
	if s := c.Load(); s == nil || s.Pool.Name != "p" {
		t.Errorf("the good state is lost: %+v", s)
	}
}

func truncate(t *testing.T, path string) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, st.Size()/2); err != nil {
		t.Fatal(err)
	}
}
