package server

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func TestCheckNetwork(t *testing.T) {
	network := &provisionrv1.Network{Spec: &provisionrv1.NetworkSpec{Cidr: "10.0.0.0/24"}}
	same := Config{Local: &Local{CIDR: netip.MustParsePrefix("10.0.0.0/24")}}
	other := Config{Local: &Local{CIDR: netip.MustParsePrefix("10.0.1.0/24")}}
	if err := errors.Join(same.checkNetwork(network), other.checkNetwork(nil), (&Config{}).checkNetwork(network)); err != nil {
		t.Error(err)
	}
	if err := other.checkNetwork(network); !errs.Is(err, errs.Invalid) || errs.HintOf(err) == "" {
		t.Errorf("another range than the cluster's: %v", err)
	}
}

func TestDNSHosts(t *testing.T) {
	addresses := func(texts ...string) (all []netip.Addr) {
		for _, text := range texts {
			all = append(all, netip.MustParseAddr(text))
		}
		return all
	}
	for _, c := range []struct {
		name                   string
		listen, gateways, want []netip.Addr
		advertise              string
	}{
		{"a gateway leaves loopback to the host", addresses("127.0.0.1"), addresses("10.0.0.1"), addresses("10.0.0.1"), "127.0.0.1"},
		{"loopback alone is served", addresses("127.0.0.1"), nil, addresses("127.0.0.1"), "127.0.0.1"},
		{"no wildcard where an address is advertised", nil, nil, addresses("192.0.2.1"), "192.0.2.1"},
		{"a gateway that is listened on already", addresses("127.0.0.1", "10.0.0.1"), addresses("10.0.0.1"), addresses("10.0.0.1"), "127.0.0.1"},
		{"an advertised name", nil, nil, addresses("::"), "s1.example"},
	} {
		config := Config{Listen: c.listen, Advertise: c.advertise}
		if got := config.dnsHosts(c.gateways...); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
