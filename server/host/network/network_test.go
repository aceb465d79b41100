package network

import (
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

func TestParse(t *testing.T) {
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
		n, err := Parse(object("local", test.cidr, test.gateway))
		if err != nil || n.Gateway.String() != test.want || n.Prefix != n.Prefix.Masked() {
			t.Errorf("%s gateway %q: %+v, %v", test.cidr, test.gateway, n, err)
		}
	}
	for _, bad := range []*provisionrv1.Network{
		object("", "10.88.0.0/24", ""), object("../x", "10.88.0.0/24", ""), object("a", "10.88.0.0", ""), object("a", "fd00::/64", ""),
		object("a", "10.0.0.0/30", ""), object("a", "0.0.0.0/0", ""), object("a", "10.88.0.0/24", "10.89.0.1"),
		object("a", "10.88.0.0/24", "10.88.0.0"), object("a", "10.88.0.0/24", "x"), nil,
	} {
		if _, err := Parse(bad); provider.KindOf(err) != provider.Invalid {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestRuleset(t *testing.T) {
	prefix := netip.MustParsePrefix("10.88.0.0/24")
	networks := map[string]Network{"b": {"b", netip.MustParsePrefix("10.89.0.0/24"), prefix.Addr()}, "a": {"a", prefix, prefix.Addr().Next()}}
	got := ruleset("provisionr-c1", "c1", networks)
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
		if again := ruleset("provisionr-c1", "c1", networks); again != got {
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

func TestPlace(t *testing.T) {
	n := Network{"a", netip.MustParsePrefix("10.88.0.0/24"), netip.MustParseAddr("10.88.0.1")}
	m := &Manager{networks: map[string]Network{"a": n}}
	got, address, err := m.Place(&provisionrv1.LaunchRequest{Network: "a", Address: "10.88.0.7"})
	if err != nil || got != n || address.String() != "10.88.0.7/24" {
		t.Errorf("placed in %v at %v, %v", got, address, err)
	}
	for network, address := range map[string]string{"b": "10.88.0.7", "a": "10.88.0.1"} {
		if _, _, err := m.Place(&provisionrv1.LaunchRequest{Network: network, Address: address}); err == nil {
			t.Errorf("%s in %s was accepted", address, network)
		}
	}
}
