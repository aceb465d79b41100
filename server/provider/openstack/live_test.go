//go:build openstack

package openstack

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servergroups"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// stage is one cluster's provider in the lab, which leaves nothing behind.
type stage struct {
	*Provider
	lab *lab
}

func newStage(t *testing.T, l *lab, cloud string) stage {
	t.Helper()
	return stage{l.provider(t, "x"+uuid()[:8], cloud, http.DefaultTransport), l}
}

func (s stage) wish(change func(*provisionrv1.Wish)) *provisionrv1.Wish {
	w := &provisionrv1.Wish{
		ClusterId: s.cluster, Pool: "pool", Count: 1, Network: proto.CloneOf(network),
		Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"},
	}
	if change != nil {
		change(w)
	}
	return w
}

// request resolves the wish and asks for a machine at the address.
func (s stage) request(t *testing.T, w *provisionrv1.Wish, address string) provider.LaunchRequest {
	t.Helper()
	offer, err := s.Resolve(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	id := machineID()
	t.Cleanup(func() {
		if err := s.Terminate(context.WithoutCancel(t.Context()), id, ""); err != nil {
			t.Error(err)
		}
	})
	return provider.LaunchRequest{UserData: []byte("#cloud-config\n"), Request: &provisionrv1.LaunchRequest{
		MachineId: id, ClusterId: s.cluster, Attempt: 1, Pool: "pool", Slot: "pool-1", Address: address, PrefixLength: 22,
		Hardware: w.GetHardware(), Placement: w.GetPlacement(), Choice: offer.GetChoices()[0],
	}}
}

// TestAttachments launches one machine with all that the lab has beside the plain machine of the suite.
func TestAttachments(t *testing.T) {
	l := newLab(t)
	s := newStage(t, l, "credential")
	group := must[*servergroups.ServerGroup](t)(servergroups.Create(t.Context(), l.compute, servergroups.CreateOpts{Name: s.cluster, Policies: []string{"anti-affinity"}}).Extract())
	key := must[*keypairs.KeyPair](t)(keypairs.Create(t.Context(), l.compute, keypairs.CreateOpts{
		Name: s.cluster, PublicKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBu1z9pXWqzJ0nWyqXvC0d0V0bG1m8l7cGq9m6mJ9mJm a",
	}).Extract())
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := servergroups.Delete(ctx, l.compute, group.ID).ExtractErr(); err != nil {
			t.Error(err)
		}
		if err := keypairs.Delete(ctx, l.compute, key.Name, nil).ExtractErr(); err != nil {
			t.Error(err)
		}
	})
	w := s.wish(func(w *provisionrv1.Wish) {
		w.Placement = &provisionrv1.Placement{
			PublicAddress: true, PublicNetwork: "public", Group: s.cluster, KeyPair: key.Name, Ipv6: true, Zones: []string{"nova"},
		}
		w.Network.Spec.Subnets = append(w.Network.Spec.Subnets, "provisionr-subnet6")
	})
	request := s.request(t, w, "10.55.8.10")
	made, err := s.Launch(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if made.Address.String() != "10.55.8.10" || !strings.HasPrefix(made.Address6.String(), "fd00:55:") {
		t.Errorf("the machine has %s and %s", made.Address, made.Address6)
	}
	client := *l.compute
	client.Microversion = "2.71"
	server := must[*servers.Server](t)(servers.Get(t.Context(), &client, made.ProviderID).Extract())
	if server.KeyName != key.Name || server.ServerGroups == nil || !slices.Equal(*server.ServerGroups, []string{group.ID}) || !server.ConfigDrive {
		t.Errorf("key %q, groups %v, config drive %t", server.KeyName, server.ServerGroups, server.ConfigDrive)
	}
	session := must[*session](t)(s.open(t.Context()))
	floating, err := s.floating(t.Context(), session, made.MachineID)
	if err != nil || len(floating) != 1 || floating[0].FixedIP != "10.55.8.10" || !strings.HasPrefix(floating[0].FloatingIP, "198.51.100.") {
		t.Fatalf("floating IPs: %+v, %v", floating, err)
	}
	if again, err := s.Launch(t.Context(), request); err != nil || again.ProviderID != made.ProviderID {
		t.Errorf("launched again: %v, %v", again, err)
	}
	// What the claim stands on: Nova gives a port to one server.
	_, err = servers.Create(t.Context(), l.compute, servers.CreateOpts{
		Name: "second", ImageRef: request.Request.GetChoice().GetImage(), FlavorRef: request.Request.GetChoice().GetType(),
		Networks: []servers.Network{{Port: floating[0].PortID}},
	}, nil).Extract()
	if code(err) != http.StatusConflict && code(err) != http.StatusBadRequest {
		t.Errorf("a second server on the port: %v", err)
	}
	if err := s.Terminate(t.Context(), made.MachineID, ""); err != nil {
		t.Fatal(err)
	}
	if floating, err = s.floating(t.Context(), session, ""); err != nil || len(floating) != 0 {
		t.Errorf("floating IPs are left: %+v, %v", floating, err)
	}
}

// TestTakenAddress: an address that somebody else has is refused by name, and nothing is made.
func TestTakenAddress(t *testing.T) {
	l := newLab(t)
	s := newStage(t, l, "provisionr")
	net := must[[]networks.Network](t)(pages(t.Context(), networks.List(l.network, networks.ListOpts{Name: "provisionr-net"}), networks.ExtractNetworks))
	foreign := must[*ports.Port](t)(ports.Create(t.Context(), l.network, ports.CreateOpts{
		NetworkID: net[0].ID, Name: "printer", FixedIPs: []ports.IP{{IPAddress: "10.55.8.20"}},
	}).Extract())
	t.Cleanup(func() {
		if err := ports.Delete(context.WithoutCancel(t.Context()), l.network, foreign.ID).ExtractErr(); err != nil {
			t.Error(err)
		}
	})
	_, err := s.Launch(t.Context(), s.request(t, s.wish(nil), "10.55.8.20"))
	if provider.KindOf(err) != provider.Invalid || !strings.Contains(err.Error(), "printer") {
		t.Errorf("%s %v", provider.KindOf(err), err)
	}
	for i, err := range s.List(t.Context()) {
		t.Errorf("%v %v", i, err)
	}
}

// TestUnmanaged: without an address of ours, Neutron gives one, and the claim is as exclusive.
func TestUnmanaged(t *testing.T) {
	l := newLab(t)
	s := newStage(t, l, "provisionr")
	request := s.request(t, s.wish(nil), "")
	made, err := s.Launch(t.Context(), request)
	if err != nil || !made.Address.IsValid() {
		t.Fatalf("%+v, %v", made, err)
	}
	if again, err := s.Launch(t.Context(), request); err != nil || again.ProviderID != made.ProviderID {
		t.Errorf("launched again: %v, %v", again, err)
	}
}

// TestRefusals are what the cloud can never do.
func TestRefusals(t *testing.T) {
	l := newLab(t)
	for says, change := range map[string]func(*provisionrv1.Wish){
		"cinder": func(w *provisionrv1.Wish) {
			w.Hardware = &provisionrv1.Hardware{Disks: []*provisionrv1.Disk{{SizeGib: 1}}}
		},
		"no key pair \"nobody's\"": func(w *provisionrv1.Wish) { w.Placement = &provisionrv1.Placement{KeyPair: "nobody's"} },
		"no server group \"none\"": func(w *provisionrv1.Wish) { w.Placement = &provisionrv1.Placement{Group: "none"} },
		"the largest are m1.huge":  func(w *provisionrv1.Wish) { w.Hardware = &provisionrv1.Hardware{Cpus: 1024, MemoryMib: 1 << 20} },
		"is not within":            nil,
	} {
		s := newStage(t, l, "provisionr")
		var err error
		if change == nil {
			n := proto.CloneOf(network)
			n.Spec.Cidr = "192.0.2.0/24"
			_, err = s.EnsureNetwork(t.Context(), n)
		} else {
			_, err = s.Resolve(t.Context(), s.wish(change))
		}
		if provider.KindOf(err) != provider.Invalid || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	s := newStage(t, l, "provisionr")
	s.spec.Region = "RegionTwo"
	if _, err := s.EnsureNetwork(t.Context(), network); provider.KindOf(err) != provider.Invalid || !strings.Contains(err.Error(), "nearest: RegionOne") {
		t.Errorf("%v", err)
	}
	// The quota of this project is 2 instances and 3 cores, which is one machine of two.
	small := newStage(t, l, "small")
	_, err := small.Resolve(t.Context(), small.wish(func(w *provisionrv1.Wish) {
		w.Network.Spec = &provisionrv1.NetworkSpec{Id: "small-net", Cidr: "10.56.0.0/24"}
		w.Hardware, w.Count = &provisionrv1.Hardware{Types: []string{"m1.small"}}, 2
	}))
	if provider.KindOf(err) != provider.QuotaExceeded || !strings.Contains(err.Error(), "cores: 4 more are needed, 0 of 3 are in use") {
		t.Errorf("%v", err)
	}
}
