package firewall

import (
	"net/netip"
	"testing"

	"github.com/provisionr/provisionr/agent/desired"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func TestAdmits(t *testing.T) {
	ports := []*agentv1.PortRange{{First: 22, Last: 22}}
	all := []string{"0.0.0.0/0", "::/0"}
	for name, c := range map[string]struct {
		rules  []*agentv1.FirewallRule
		port   uint16
		source string
		want   bool
	}{
		"no rule":        {nil, 22, "10.0.0.1", false},
		"any":            {[]*agentv1.FirewallRule{{Protocol: "tcp", Ports: ports, Cidrs: all}}, 22, "10.0.0.1", true},
		"any, IPv6":      {[]*agentv1.FirewallRule{{Protocol: "tcp", Ports: ports, Cidrs: all}}, 22, "fd00::1", true},
		"other port":     {[]*agentv1.FirewallRule{{Protocol: "tcp", Ports: ports, Cidrs: all}}, 23, "10.0.0.1", false},
		"other protocol": {[]*agentv1.FirewallRule{{Protocol: "udp", Ports: ports, Cidrs: all}}, 22, "10.0.0.1", false},
		"other range":    {[]*agentv1.FirewallRule{{Protocol: "tcp", Ports: ports, Cidrs: []string{"192.0.2.0/24"}}}, 22, "10.0.0.1", false},
		"pool":           {[]*agentv1.FirewallRule{{Protocol: "tcp", Ports: ports, Pools: []string{"web"}}}, 22, "10.0.0.7", true},
		"other pool":     {[]*agentv1.FirewallRule{{Protocol: "tcp", Ports: ports, Pools: []string{"db"}}}, 22, "10.0.0.7", false},
		"machine":        {[]*agentv1.FirewallRule{{Protocol: "tcp", Ports: ports, Machines: []string{"web-1"}}}, 22, "10.0.0.7", true},
		"vpn":            {[]*agentv1.FirewallRule{{Protocol: "tcp", Ports: ports, Vpn: true}}, 22, "10.9.0.7", true},
		"only dropped":   {[]*agentv1.FirewallRule{{Protocol: "tcp", Ports: ports, Cidrs: all, Drop: true}}, 22, "10.0.0.1", false},
		"allowed and dropped": {[]*agentv1.FirewallRule{
			{Protocol: "tcp", Ports: ports, Cidrs: all}, {Protocol: "tcp", Ports: ports, Cidrs: all, Drop: true},
		}, 22, "10.0.0.1", true},
	} {
		f := &firewall{enabled: true, state: &desired.State{
			Machine: &agentv1.MachineComponent{Vpn: &agentv1.VpnMember{Cidr: "10.9.0.0/16"}},
			Pool:    &agentv1.PoolComponent{Firewall: &agentv1.Firewall{Rules: c.rules}},
			Members: map[string][]*agentv1.Member{"web": {{Name: "web-1", Address: "10.0.0.7"}}},
		}}
		if got := f.Admits(c.port, netip.MustParseAddr(c.source)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
