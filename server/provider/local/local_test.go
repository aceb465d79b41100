package local

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/local/container"
)

func TestNamesFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cluster := rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`).Draw(t, "cluster")
		name := rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`).Draw(t, "name")
		for _, link := range []string{bridgeName(cluster, name), vethName(cluster, name)} {
			if len(link) > 15 || bridgeName(cluster, name) == vethName(cluster, name) {
				t.Fatalf("interface name %q", link)
			}
		}
		if base := idBase(name); base < firstID || base+container.IDRange > 1<<32-2 || base%container.IDRange != 0 {
			t.Fatalf("id base %#x", base)
		}
		if mac := hardwareAddress(name); mac[0]&3 != 2 {
			t.Fatalf("hardware address %v is not local and unicast", mac)
		}
	})
	if bridgeName("a", "bc") == bridgeName("ab", "c") {
		t.Error("names of different clusters collide")
	}
}

func TestParseNetwork(t *testing.T) {
	object := func(name, cidr, gateway string) *provisionrv1.Network {
		return &provisionrv1.Network{
			Metadata: &provisionrv1.Metadata{Name: name}, Spec: &provisionrv1.NetworkSpec{Cidr: cidr, Gateway: gateway},
		}
	}
	for _, test := range []struct{ cidr, gateway, want string }{
		{"10.88.0.0/24", "", "10.88.0.1"},
		{"10.88.0.7/24", "", "10.88.0.1"},
		{"10.88.0.0/16", "10.88.255.254", "10.88.255.254"},
	} {
		n, err := parseNetwork(object("local", test.cidr, test.gateway))
		if err != nil || n.Gateway.String() != test.want || n.Prefix != n.Prefix.Masked() {
			t.Errorf("%s gateway %q: %+v, %v", test.cidr, test.gateway, n, err)
		}
	}
	for _, bad := range []*provisionrv1.Network{
		object("", "10.88.0.0/24", ""), object("../x", "10.88.0.0/24", ""), object("a", "10.88.0.0", ""), object("a", "fd00::/64", ""),
		object("a", "10.0.0.0/30", ""), object("a", "0.0.0.0/0", ""), object("a", "10.88.0.0/24", "10.89.0.1"),
		object("a", "10.88.0.0/24", "10.88.0.0"), object("a", "10.88.0.0/24", "x"), nil,
	} {
		if _, err := parseNetwork(bad); provider.KindOf(err) != provider.Invalid {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestRuleset(t *testing.T) {
	prefix := netip.MustParsePrefix("10.88.0.0/24")
	networks := map[string]network{"b": {"b", netip.MustParsePrefix("10.89.0.0/24"), prefix.Addr()}, "a": {"a", prefix, prefix.Addr().Next()}}
	got := ruleset(tableName("c1"), "c1", networks)
	for _, want := range []string{
		"table inet provisionr-c1 {}\ndelete table inet provisionr-c1\n",
		`ip saddr 10.88.0.0/24 ip daddr != 10.88.0.0/24 oifname != "` + bridgeName("c1", "a") + `" masquerade`,
		`oifname "` + bridgeName("c1", "b") + `" drop`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for range 10 {
		if again := ruleset(tableName("c1"), "c1", networks); again != got {
			t.Fatal("the rules depend on the order of a map")
		}
	}
}

func TestHostResolvers(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"plain":     {map[string]string{"etc/resolv.conf": "# x\nsearch a\nnameserver 192.0.2.1\nnameserver  192.0.2.2 # y\n"}, "192.0.2.1 192.0.2.2"},
		"stub":      {map[string]string{"etc/resolv.conf": "nameserver 127.0.0.53\n", "run/systemd/resolve/resolv.conf": "nameserver 192.0.2.3\n"}, "192.0.2.3"},
		"only IPv6": {map[string]string{"etc/resolv.conf": "nameserver 2001:db8::1\n"}, ""},
		"four":      {map[string]string{"etc/resolv.conf": "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n"}, "192.0.2.1 192.0.2.2 192.0.2.3"},
		"twice":     {map[string]string{"etc/resolv.conf": "nameserver 192.0.2.1\nnameserver 192.0.2.1\nnameserver nonsense\nnameserver\n"}, "192.0.2.1"},
		"none":      {nil, ""},
	} {
		root := fstest.MapFS{}
		for path, content := range test.files {
			root[path] = &fstest.MapFile{Data: []byte(content)}
		}
		servers, err := hostResolvers(root)
		var got []string
		for _, s := range servers {
			got = append(got, s.String())
		}
		if diff := cmp.Diff(test.want, strings.Join(got, " ")); err != nil || diff != "" {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}

func TestLockFile(t *testing.T) {
	path := t.TempDir() + "/lock"
	first, err := lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan *fileLock)
	go func() {
		l, err := lockFile(t.Context(), path)
		if err != nil {
			t.Error(err)
		}
		second <- l
	}()
	if err := first.remove(); err != nil { // the waiter must not end up with the removed file
		t.Fatal(err)
	}
	l := <-second
	if l == nil || !current(l.file, path) {
		t.Fatal("the lock is not the named file's")
	}
	l.release()
}

func TestReadTail(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("x", consolePart) + "end"
	for name, content := range map[string]string{"long": long, "short": "short", "empty": ""} {
		if err := os.WriteFile(dir+"/"+name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readTail(dir, name)
		if want := content[max(0, len(content)-consolePart):]; err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if err := os.Symlink("/etc/passwd", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", ".", "absent", "../x"} {
		if got, err := readTail(dir, name); err == nil {
			t.Errorf("%s: read %q", name, got)
		}
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
	if err := c.complete(); err != nil || !filepath.IsAbs(c.DataDir) || c.CacheDir == "" || c.CacheBytes <= 0 || c.Logger == nil {
		t.Errorf("completed %+v, %v", c, err)
	}
}
