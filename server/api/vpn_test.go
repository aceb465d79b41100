package api

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func vpn(name, cidr string) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Vpn{Vpn: &provisionrv1.Vpn{
		ApiVersion: "provisionr/v1", Kind: "Vpn", Metadata: &provisionrv1.Metadata{Name: name}, Spec: &provisionrv1.VpnSpec{Cidr: cidr},
	}}}
}

func vpnKey(n byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{n}, 32)) }

func vpnPeer(name, of string, key byte) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_VpnPeer{VpnPeer: &provisionrv1.VpnPeer{
		ApiVersion: "provisionr/v1", Kind: "VpnPeer", Metadata: &provisionrv1.Metadata{Name: name},
		Spec: &provisionrv1.VpnPeerSpec{Vpn: of, PublicKey: vpnKey(key)},
	}}}
}

func TestVpnsAreAppliedAndRead(t *testing.T) {
	c := newCluster(t)
	conn := c.as(operator)
	manifests, vpns := provisionrv1.NewManifestServiceClient(conn), provisionrv1.NewVpnServiceClient(conn)
	apply := func(api provisionrv1.ManifestServiceClient, objects ...*provisionrv1.Object) error {
		_, err := api.Apply(t.Context(), &provisionrv1.ApplyRequest{Objects: objects})
		return errs.FromRPC(err)
	}
	// Networks of any kind are an admin's, devices an operator's.
	if err := apply(manifests, vpn("office", "10.90.0.0/24")); !errs.Is(err, errs.Denied) {
		t.Fatalf("an operator made a vpn: %v", err)
	}
	asAdmin := provisionrv1.NewManifestServiceClient(c.as(admin))
	c.ok(apply(asAdmin, vpn("office", "10.90.0.0/24")))
	if err := apply(asAdmin, vpn("other", "10.90.0.0/25")); !errs.Is(err, errs.Invalid) && !errs.Is(err, errs.Conflict) {
		t.Errorf("overlapping vpns: %v", err)
	}
	laptop := vpnPeer("laptop", "office", 1)
	laptop.GetVpnPeer().Address = "10.90.0.77"
	c.ok(apply(manifests, laptop))
	list, err := vpns.ListVpnPeers(t.Context(), &provisionrv1.ListVpnPeersRequest{Vpn: "office"})
	c.ok(err)
	if len(list.Peers) != 1 || list.Peers[0].GetAddress() != "10.90.0.1" {
		t.Errorf("peers %v", list.Peers)
	}
	none, err := vpns.ListVpnPeers(t.Context(), &provisionrv1.ListVpnPeersRequest{Vpn: "nothing"})
	c.ok(err)
	if len(none.Peers) != 0 {
		t.Errorf("peers of another vpn: %v", none.Peers)
	}
	// What is there already is no change; another key is one.
	plan, err := manifests.Plan(t.Context(), &provisionrv1.PlanRequest{Objects: []*provisionrv1.Object{vpnPeer("laptop", "office", 1)}})
	c.ok(err)
	if plan.Changes[0].Action != actionNone {
		t.Errorf("the same peer again: %v", plan.Changes[0])
	}
	plan, err = manifests.Plan(t.Context(), &provisionrv1.PlanRequest{Objects: []*provisionrv1.Object{vpnPeer("laptop", "office", 2)}})
	c.ok(err)
	if ch := plan.Changes[0]; ch.Action != actionUpdate || len(ch.Fields) != 1 || ch.Fields[0].GetPath() != "spec.publicKey" {
		t.Errorf("another key: %v", ch)
	}
	all, err := vpns.ListVpns(t.Context(), &provisionrv1.ListInfraRequest{})
	c.ok(err)
	if len(all.Vpns) != 1 || all.Vpns[0].GetSpec().GetCidr() != "10.90.0.0/24" {
		t.Errorf("vpns %v", all.Vpns)
	}
	for _, tt := range []struct {
		kind, name string
		want       errs.Kind
	}{{"vpns", "office", errs.Denied}, {"pools", "x", errs.Invalid}, {"vpn-peers", "nobody", errs.NotFound}} {
		if _, err := vpns.DeleteVpn(t.Context(), &provisionrv1.DeleteInfraRequest{Kind: tt.kind, Name: tt.name}); !errs.Is(errs.FromRPC(err), tt.want) {
			t.Errorf("delete %s %s: %v", tt.kind, tt.name, err)
		}
	}
	web := c.web(c.cert(pki.User, "admin"))
	if status, body := c.request(web, http.MethodDelete, "/v1/vpns/office", ""); status != http.StatusConflict {
		t.Errorf("delete of a vpn with peers: %d %s", status, body)
	}
	if status, body := c.request(web, http.MethodDelete, "/v1/vpn-peers/laptop", ""); status != http.StatusOK {
		t.Errorf("delete of a peer: %d %s", status, body)
	}
	if status, body := c.request(web, http.MethodDelete, "/v1/vpns/office", ""); status != http.StatusOK {
		t.Errorf("delete of a vpn: %d %s", status, body)
	}
}

func TestPeerConfig(t *testing.T) {
	v, p := vpn("office", "10.90.0.0/16").GetVpn(), vpnPeer("laptop", "office", 9).GetVpnPeer()
	p.Address = "10.90.0.9"
	got := peerConfig(v, p, []*agentv1.VpnNode{
		{Name: "edge-1", MachineId: "m-1", PublicKey: "K1", Endpoint: "192.0.2.1:51820", Address: "10.90.0.1", Gateway: true, Routes: []string{"10.88.0.0/24"}},
		{Name: "web-1", MachineId: "m-2", PublicKey: "K2", Endpoint: "[2001:db8::2]:51820", Address: "10.90.0.2"},
		{Name: "home-1", MachineId: "m-3", PublicKey: "K3", Address: "10.90.0.3", Via: "m-1", BehindNat: true},
		{Name: "lost-1", MachineId: "m-4", PublicKey: "K4", Address: "10.90.0.4", BehindNat: true},
		{Name: "laptop", PublicKey: vpnKey(9), Address: "10.90.0.9", Via: "m-1"},
		{Name: "router", PublicKey: "K6", Address: "10.90.0.6", Routes: []string{"192.168.7.0/24"}, Via: "m-1"},
	})
	want := `# laptop in vpn office
[Interface]
PrivateKey = 
Address = 10.90.0.9/16
MTU = 1420

# edge-1
[Peer]
PublicKey = K1
Endpoint = 192.0.2.1:51820
AllowedIPs = 10.90.0.1/32, 10.88.0.0/24, 10.90.0.3/32, 10.90.0.6/32, 192.168.7.0/24
PersistentKeepalive = 25

# web-1
[Peer]
PublicKey = K2
Endpoint = [2001:db8::2]:51820
AllowedIPs = 10.90.0.2/32
PersistentKeepalive = 25
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if six := peerConfig(vpn("v", "fd00:90::/64").GetVpn(), p, []*agentv1.VpnNode{{PublicKey: "K", Endpoint: "x:1", Address: "fd00:90::2"}}); !strings.Contains(six, "AllowedIPs = fd00:90::2/128\n") {
		t.Error(six)
	}
}

func TestPeerConfigIsForOperators(t *testing.T) {
	c := newCluster(t)
	c.commit(vpn("office", "10.90.0.0/24"))
	c.commit(vpnPeer("laptop", "office", 1))
	get := func(role provisionrv1.Role, name string) (*provisionrv1.GetVpnPeerConfigResponse, error) {
		r, err := provisionrv1.NewVpnServiceClient(c.as(role)).GetVpnPeerConfig(t.Context(), &provisionrv1.GetVpnPeerConfigRequest{Name: name})
		return r, errs.FromRPC(err)
	}
	r, err := get(operator, "laptop")
	c.ok(err)
	if !strings.Contains(r.Config, "\nPrivateKey = \nAddress = 10.90.0.1/24\nMTU = 1420\n") {
		t.Error(r.Config)
	}
	if _, err := get(operator, "phone"); !errs.Is(err, errs.NotFound) {
		t.Errorf("no such peer: %v", err)
	}
	if _, err := get(viewer, "laptop"); !errs.Is(err, errs.Denied) {
		t.Errorf("a viewer: %v", err)
	}
}
