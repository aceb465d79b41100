package local

import (
	"testing"
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
