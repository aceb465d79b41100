package reconcile_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/reconcile"
	"github.com/provisionr/provisionr/server/state"
)

func TestFirewallOf(t *testing.T) {
	icmp := []string{"allow icmp from 0.0.0.0/0", "allow icmp6 from ::/0"}
	ssh := []string{"allow tcp 22 from 0.0.0.0/0", "allow tcp 22 from ::/0"}
	rule := func(protocol string, ports, from []string) *provisionrv1.Firewall {
		return &provisionrv1.Firewall{SshFrom: []string{"10.0.0.0/8"}, Rules: []*provisionrv1.FirewallRule{{Name: "x", Protocol: protocol, Ports: ports, From: from}}}
	}
	closed := append(icmp[:2:2], "allow tcp 22 from 10.0.0.0/8")
	for name, test := range map[string]struct {
		firewall *provisionrv1.Firewall
		want     []string
	}{
		"none":     {nil, append(icmp[:2:2], ssh...)},
		"disabled": {&provisionrv1.Firewall{Disabled: true, SshFrom: []string{"self"}}, []string{"allow all from 0.0.0.0/0", "allow all from ::/0"}},
		"ssh from": {&provisionrv1.Firewall{SshFrom: []string{"192.0.2.7", "2001:db8::/32", "192.0.2.7"}},
			append(icmp[:2:2], "allow tcp 22 from 192.0.2.7/32", "allow tcp 22 from 2001:db8::/32")},
		"udp and ranges": {rule("udp", []string{"53", "8000-8010"}, []string{"10.1.2.3/16"}),
			append(closed[:3:3], "allow udp 53 from 10.1.0.0/16", "allow udp 8000-8010 from 10.1.0.0/16")},
		"self and network": {rule("", []string{"2181"}, []string{"self", "network", "pool:web"}),
			append(closed[:3:3], "allow tcp 2181 from pool web", "allow tcp 2181 from 10.88.0.0/24")},
		"pool beside":   {rule("", []string{"5432"}, []string{"pool:near"}), append(closed[:3:3], "allow tcp 5432 from pool near")},
		"pool far away": {rule("", []string{"5432"}, []string{"pool:far"}), append(closed[:3:3], "allow tcp 5432 from 10.99.0.5/32", "allow tcp 5432 from 2001:db8::5/128")},
		"no such pool":  {rule("", []string{"5432"}, []string{"pool:nosuch"}), closed},
		"canary":        {rule("", []string{"7447", "7000-7447", "7447-7500"}, []string{"self"}), append(closed[:3:3], "allow tcp 7000-7446 from pool web", "allow tcp 7448-7500 from pool web")},
		"all ports":     {rule("", []string{"1-65535"}, []string{"self"}), append(closed[:3:3], "allow tcp 1-7446 from pool web", "allow tcp 7448-65535 from pool web")},
		"twice":         {rule("", []string{"22", "22"}, []string{"10.0.0.0/8"}), closed},
		"junk":          {rule("", []string{"0", "9-8", "x"}, []string{"junk", "10.0.0.0/33"}), closed},
	} {
		t.Run(name, func(t *testing.T) {
			store := state.New()
			tx := store.Begin()
			tx.PutCluster(&provisionrv1.Cluster{Id: "c-1", Name: "prod"})
			named := func(name string) *provisionrv1.Metadata { return &provisionrv1.Metadata{Name: name, Uid: name} }
			tx.Put(&provisionrv1.Network{Metadata: named("here"), Spec: &provisionrv1.NetworkSpec{Cidr: "10.88.0.0/24", Provider: "a"}})
			tx.Put(&provisionrv1.Network{Metadata: named("there"), Spec: &provisionrv1.NetworkSpec{Cidr: "10.99.0.0/24", Provider: "b"}})
			web := &provisionrv1.Pool{Metadata: named("web"), Spec: &provisionrv1.PoolSpec{Provider: "a", Firewall: test.firewall}}
			tx.Put(web)
			tx.Put(&provisionrv1.Pool{Metadata: named("near"), Spec: &provisionrv1.PoolSpec{Provider: "a"}})
			tx.Put(&provisionrv1.Pool{Metadata: named("far"), Spec: &provisionrv1.PoolSpec{Provider: "b"}})
			for id, phase := range map[string]provisionrv1.Phase{"m-1": provisionrv1.Phase_PHASE_READY, "m-2": provisionrv1.Phase_PHASE_GONE} {
				tx.Put(&provisionrv1.Machine{Metadata: named(id), Spec: &provisionrv1.MachineSpec{Pool: "far"},
					Status: &provisionrv1.MachineStatus{Phase: phase, Address: "10.99.0.5", Address6: "2001:db8::5"}})
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			store.Publish()
			f := reconcile.FirewallOf(store.Read(), web)
			var got []string
			for _, r := range f.Rules {
				got = append(got, r.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" || f.ClusterID != "c-1" || f.Pool != "web" || f.Network.GetMetadata().GetName() != "here" {
				t.Errorf("firewall %v (-want +got):\n%s", f, diff)
			}
		})
	}
}
