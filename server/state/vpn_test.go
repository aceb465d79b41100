package state

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func titled(name string) *provisionrv1.Metadata { return &provisionrv1.Metadata{Name: name} }

func vpnMachine(id, vpn, address, key string) *provisionrv1.Machine {
	return &provisionrv1.Machine{Metadata: titled(id), Status: &provisionrv1.MachineStatus{
		Vpn: vpn, VpnAddress: address, Facts: &provisionrv1.Facts{VpnPublicKey: key},
	}}
}

func TestVpnsPeersAndSecretsAreKept(t *testing.T) {
	s := New()
	watched := map[Table]<-chan struct{}{TableVpns: s.Watch(TableVpns), TableVpnPeers: s.Watch(TableVpnPeers), TableSecrets: s.Watch(TableSecrets), TableZones: s.Watch(TableZones)}
	tx := s.Begin()
	tx.Put(&provisionrv1.Vpn{Metadata: titled("v")})
	tx.Put(&provisionrv1.VpnPeer{Metadata: titled("b"), Spec: &provisionrv1.VpnPeerSpec{Vpn: "v"}, Address: "10.0.0.2"})
	tx.Put(&provisionrv1.VpnPeer{Metadata: titled("a"), Spec: &provisionrv1.VpnPeerSpec{Vpn: "v"}, Address: "10.0.0.10"})
	tx.Put(&provisionrv1.VpnPeer{Metadata: titled("c"), Spec: &provisionrv1.VpnPeerSpec{Vpn: "v2"}, Address: "10.1.0.1"})
	tx.Put(&provisionrv1.Secret{Metadata: titled("s"), Revision: 3, Ciphertext: []byte("x")})
	tx.Put(&provisionrv1.Secret{Metadata: &provisionrv1.Metadata{Name: "old", Deleted: timestamppb.Now()}, Revision: 9})
	tx.Put(vpnMachine("m-1", "v", "10.0.0.9", "k1"))
	tx.Put(vpnMachine("m-2", "v", "10.0.0.3", "k2"))
	tx.Put(vpnMachine("m-3", "", "", "k2"))
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	s.Publish()
	for table, ch := range watched {
		select {
		case <-ch:
			if table == TableZones {
				t.Error("a watch of another table ended")
			}
		default:
			if table != TableZones {
				t.Errorf("the watch of table %d did not end", table)
			}
		}
	}
	var saved bytes.Buffer
	if err := s.Read().Save(&saved); err != nil {
		t.Fatal(err)
	}
	restored := New()
	if err := restored.Restore(bytes.NewReader(saved.Bytes())); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Snapshot{s.Read(), restored.Read()} {
		var peers, machines []string
		for p := range r.VpnPeersOf("v") {
			peers = append(peers, p.GetMetadata().GetName())
		}
		for m := range r.VpnMachines("v") {
			machines = append(machines, m.GetMetadata().GetName())
		}
		if !slices.Equal(peers, []string{"b", "a"}) || !slices.Equal(machines, []string{"m-2", "m-1"}) {
			t.Errorf("by address: peers %v, machines %v", peers, machines)
		}
		if n := len(slices.Collect(r.MachinesWithVpnKey("k2"))); n != 2 || r.Vpn("v") == nil || r.VpnPeer("c") == nil || len(slices.Collect(r.VpnPeers())) != 3 {
			t.Errorf("%d machines have k2", n)
		}
		if r.Secret("s").GetRevision() != 3 || r.Secret("old") != nil || r.LastSecret("old").GetRevision() != 9 || len(slices.Collect(r.Secrets())) != 1 {
			t.Error("secrets are not as they were put")
		}
	}
}

func TestSecretsOfAPool(t *testing.T) {
	p := &provisionrv1.Pool{Metadata: titled("p"), Spec: &provisionrv1.PoolSpec{Files: []*provisionrv1.File{
		{Path: "/a", Secret: "z"}, {Path: "/b", Template: proto.String(`{{ if .X }}{{ secret "a" }}{{ end }}{{ secret "z" }}`)}, {Path: "/c", Content: proto.String(`{{ secret "no" }}`)},
	}}}
	if got := SecretsOf(p); !slices.Equal(got, []string{"a", "z"}) {
		t.Errorf("secrets %v", got)
	}
	s := New()
	tx := s.Begin()
	tx.Put(p)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	s.Publish()
	for name, want := range map[string]int{"a": 1, "z": 1, "no": 0} {
		if got := len(slices.Collect(s.Read().PoolsWithSecret(name))); got != want {
			t.Errorf("%d pools with %s", got, name)
		}
	}
}
