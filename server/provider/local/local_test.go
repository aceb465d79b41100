package local

import (
	"path/filepath"
	"testing"

	"github.com/provisionr/provisionr/internal/errs"
)

func TestNamesFit(t *testing.T) {
	p := &Provider{config: Config{ClusterID: "a-cluster"}}
	if link := p.linkName("m-aaaaaaaaaaaaaaaa"); len(link) > 15 {
		t.Errorf("interface name %q", link)
	}
}

func TestBounded(t *testing.T) {
	b := bounded{limit: 5}
	for range 3 {
		if n, err := b.Write([]byte("abc")); n != 3 || err != nil {
			t.Fatal(n, err)
		}
	}
	if b.String() != "abcab" {
		t.Errorf("kept %q", b.String())
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"no cluster": {DataDir: "/x"}, "bad cluster": {ClusterID: "A b", DataDir: "/x"}, "no directory": {ClusterID: "c"},
		"bad directory": {ClusterID: "c", DataDir: "/a\nb"},
	} {
		if err := c.complete(); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := Config{ClusterID: "c-1", DataDir: "data"}
	if err := c.complete(); err != nil || !filepath.IsAbs(c.DataDir) || c.CacheDir == "" || c.Logger == nil {
		t.Errorf("completed %+v, %v", c, err)
	}
}
