package ca

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

func (c *cluster) putSecret(t *testing.T, name string, value []byte) *provisionrv1.Secret {
	t.Helper()
	revision := c.secrets[name].GetRevision() + 1
	ciphertext, version, err := c.cas["a"].SealSecret(name, revision, value)
	if err != nil {
		t.Fatal(err)
	}
	c.secrets[name] = &provisionrv1.Secret{
		Metadata: &provisionrv1.Metadata{Name: name}, Revision: revision, Ciphertext: ciphertext, KeyVersion: version,
	}
	return c.secrets[name]
}

func TestSecretIsBoundToItsPlace(t *testing.T) {
	c, _ := newCluster(t)
	one := c.putSecret(t, "db", []byte("hunter2"))
	two := c.putSecret(t, "db", []byte("hunter3"))
	if got := must[[]byte](t)(c.cas["a"].OpenSecret(two)); string(got) != "hunter3" || bytes.Contains(two.Ciphertext, []byte("hunter")) {
		t.Errorf("opened %q", got)
	}
	for name, s := range map[string]*provisionrv1.Secret{
		"an older value in the place of a newer": {Metadata: two.Metadata, Revision: 2, Ciphertext: one.Ciphertext},
		"the value of another secret":            {Metadata: &provisionrv1.Metadata{Name: "web"}, Revision: 2, Ciphertext: two.Ciphertext},
		"no secret":                              nil,
	} {
		if got, err := c.cas["a"].OpenSecret(s); err == nil {
			t.Errorf("%s: opened %q", name, got)
		}
	}
	if got := must[[]byte](t)(c.cas["a"].OpenSecret(c.putSecret(t, "empty", nil))); len(got) != 0 {
		t.Errorf("opened %q", got)
	}
}

// A member is removed: whatever was committed of the rotation before it was cut off, every value stays readable for the others,
// and in the end none is for it.
func TestEvictSealsSecretsAnew(t *testing.T) {
	value := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 60<<10) }
	count := 1
	for done := 0; done <= count; done++ {
		c, _ := newCluster(t)
		c.cluster.FeatureLevel = 3
		c.join(t, "b")
		for i := range 20 {
			c.putSecret(t, fmt.Sprintf("s%d", i), value(i))
		}
		seen, _, err := c.cas["b"].open(c.records)
		if err != nil {
			t.Fatal(err)
		}
		commands := must[[]*raftlogv1.Command](t)(c.cas["a"].Evict("b"))
		count = len(commands)
		c.apply(t, commands[:done]...)
		for i := range 20 {
			s := c.secrets[fmt.Sprintf("s%d", i)]
			if got, err := c.cas["a"].OpenSecret(s); err != nil || !bytes.Equal(got, value(i)) {
				t.Fatalf("after %d commands: secret %d: %v", done, i, err)
			}
		}
		c.apply(t, must[[]*raftlogv1.Command](t)(c.cas["a"].Evict("b"))...)
		for i := range 20 {
			s := c.secrets[fmt.Sprintf("s%d", i)]
			if got, err := c.cas["a"].OpenSecret(s); err != nil || !bytes.Equal(got, value(i)) {
				t.Fatalf("after %d commands and again: secret %d: %v", done, i, err)
			}
			if s.KeyVersion != c.sealed.Newest || c.sealed.Oldest != c.sealed.Newest {
				t.Fatalf("secret %d is of key %d, the ring has %d to %d", i, s.KeyVersion, c.sealed.Oldest, c.sealed.Newest)
			}
			if _, err := seen.Open(purposeSecret(s.Metadata.Name, s.Revision), s.Ciphertext); !errs.Is(err, errs.Internal) {
				t.Fatalf("the keys that the removed member had open secret %d: %v", i, err)
			}
		}
	}
	if count < 4 {
		t.Errorf("%d commands: 20 values of 60 KiB do not fit into one", count)
	}
}
