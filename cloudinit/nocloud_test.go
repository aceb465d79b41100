package cloudinit_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/provisionr/provisionr/cloudinit"
)

func TestNetworkConfigByHardwareAddress(t *testing.T) {
	config, err := cloudinit.NetworkConfig(cloudinit.Network{
		HardwareAddress: net.HardwareAddr{2, 0, 0, 0xa, 0xb, 1}, Address: netip.MustParsePrefix("10.88.0.5/24"),
	})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Ethernets map[string]struct {
			Match   struct{ Macaddress string }
			SetName string `yaml:"set-name"`
		}
	}
	if err := yaml.Unmarshal(config, &got); err != nil {
		t.Fatal(err)
	}
	if e := got.Ethernets["eth0"]; e.Match.Macaddress != "02:00:00:0a:0b:01" || e.SetName != "eth0" || !strings.Contains(string(config), "10.88.0.5/24") {
		t.Errorf("rendered %s", config)
	}
}
