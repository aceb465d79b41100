package fsm

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

func vpn(name, cidr string, routes ...string) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Vpn{Vpn: &provisionrv1.Vpn{
		Metadata: &provisionrv1.Metadata{Name: name}, Spec: &provisionrv1.VpnSpec{Cidr: cidr, Routes: routes}}}}
}

// vpnKey is a public key by number.
func vpnKey(n int) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{byte(n)}, 32))
}

func peer(name, of string, key int, routes ...string) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_VpnPeer{VpnPeer: &provisionrv1.VpnPeer{
		Metadata: &provisionrv1.Metadata{Name: name},
		Spec:     &provisionrv1.VpnPeerSpec{Vpn: of, PublicKey: vpnKey(key), Routes: routes}, Address: "192.0.2.1"}}}
}

func vpnPool(name string, size uint32, of string) *provisionrv1.Object {
	o := pool(name, size)
	if of != "" {
		o.GetPool().Spec.Vpn = &provisionrv1.PoolVpn{Name: of}
	}
	return o
}

func facts(id string, key int) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_ReportMachine{ReportMachine: &raftlogv1.ReportMachine{
		Id: id, Facts: &provisionrv1.Facts{OsRelease: "Debian", VpnPublicKey: vpnKey(key)}}}}
}

func (w *world) vpnAddress(id string) string {
	return w.store.Read().Machine(id).GetStatus().GetVpnAddress()
}

func (w *world) lastEvent() (last *provisionrv1.Event) {
	for e := range w.store.Read().Events(0) {
		last = e
	}
	return last
}

func TestVpnRanges(t *testing.T) {
	w := initialised(t)
	w.refuse(errs.Conflict, put(vpn("v", "10.88.0.0/16")))
	w.refuse(errs.Invalid, put(vpn("v", "10.90.0.1/24")))
	w.refuse(errs.Invalid, put(vpn("v", "10.90.0.0/31")))
	w.refuse(errs.Invalid, put(vpn("v", "10.90.0.0/24", "10.90.0.128/25")))
	w.refuse(errs.Invalid, put(vpn("v", "10.90.0.0/24", "10.88.0.7/24")))
	w.must(put(vpn("v", "10.90.0.0/24", "10.88.0.0/24", "0.0.0.0/0")))
	w.refuse(errs.Conflict, put(vpn("u", "10.90.0.128/25")))
	w.refuse(errs.Conflict, put(network("n", "10.90.0.0/29")))
	w.refuse(errs.Conflict, put(network("n", "10.91.0.0/29"), vpn("u", "10.91.0.0/24")))
	w.must(put(vpn("v", "10.90.128.0/24")))
	w.must(put(peer("laptop", "v", 1)))
	w.refuse(errs.Conflict, put(vpn("v", "10.90.0.0/24")))
	w.refuse(errs.Conflict, put(vpn("v", "10.90.128.0/25")))
	w.must(put(vpn("v", "10.90.128.0/20")))
	if got := w.store.Read().VpnPeer("laptop").GetAddress(); got != "10.90.128.1" {
		t.Errorf("the peer has %s", got)
	}
}

func TestVpnPeers(t *testing.T) {
	w := initialised(t)
	w.refuse(errs.Invalid, put(peer("laptop", "v", 1)))
	w.must(put(peer("laptop", "v", 1, "192.168.7.0/24"), vpn("v", "10.90.0.0/29")))
	w.refuse(errs.Conflict, put(peer("phone", "v", 1)))
	w.refuse(errs.Conflict, put(peer("phone", "v", 2, "192.168.7.0/24")))
	w.refuse(errs.Invalid, put(peer("phone", "v", 2, "10.90.0.4/32")))
	short := peer("phone", "v", 2)
	short.GetVpnPeer().Spec.PublicKey = "c2hvcnQ="
	w.refuse(errs.Invalid, put(short))
	for i := 2; i <= 6; i++ {
		w.must(put(peer(fmt.Sprintf("p%d", i), "v", i)))
	}
	w.refuse(errs.Exhausted, put(peer("p7", "v", 7)))
	w.must(remove("vpn-peers", "p3"))
	w.must(put(peer("p7", "v", 7)))
	if got := w.store.Read().VpnPeer("p7").GetAddress(); got != "10.90.0.3" {
		t.Errorf("the lowest free address is 10.90.0.3, got %s", got)
	}
	w.must(put(peer("p7", "v", 17)))
	if got := w.store.Read().VpnPeer("p7").GetAddress(); got != "10.90.0.3" {
		t.Errorf("with another key it has %s", got)
	}
	w.refuse(errs.Conflict, remove("vpns", "v"))
	w.refuse(errs.NotFound, remove("vpns", "u"))
	w.refuse(errs.NotFound, remove("vpn-peers", "u"))
}

func TestVpnOfAPool(t *testing.T) {
	w := initialised(t)
	w.refuse(errs.Invalid, put(vpnPool("a", 2, "v")))
	w.must(put(vpnPool("a", 2, "v"), vpn("v", "10.90.0.0/24"), vpn("u", "10.91.0.0/24")))
	w.refuse(errs.Conflict, remove("vpns", "v"))
	w.serving("m-1", "a", 1)
	w.serving("m-2", "a", 2)
	w.must(put(peer("laptop", "v", 9)))
	w.must(facts("m-2", 2))
	w.must(facts("m-1", 1))
	if w.vpnAddress("m-2") != "10.90.0.2" || w.vpnAddress("m-1") != "10.90.0.3" {
		t.Fatalf("addresses %s and %s", w.vpnAddress("m-2"), w.vpnAddress("m-1"))
	}
	w.must(facts("m-1", 2))
	if e := w.lastEvent(); e.GetReason() != "FactsRefused" || !e.GetWarning() || !strings.Contains(e.GetMessage(), "a-2 (m-2)") {
		t.Errorf("event %v", e)
	}
	if got := w.store.Read().Machine("m-1").GetStatus().GetFacts().GetVpnPublicKey(); got != vpnKey(1) {
		t.Errorf("the facts of a clone were believed: %s", got)
	}
	w.refuse(errs.Conflict, put(peer("phone", "v", 1)))
	w.must(facts("m-1", 9))
	if e := w.lastEvent(); e.GetReason() != "FactsRefused" || !strings.Contains(e.GetMessage(), "vpn peer laptop") {
		t.Errorf("event %v", e)
	}
	w.must(put(vpnPool("a", 2, "")))
	if w.vpnAddress("m-1") != "" || w.vpnAddress("m-2") != "" {
		t.Errorf("out of the vpn the machines have %q and %q", w.vpnAddress("m-1"), w.vpnAddress("m-2"))
	}
	w.must(facts("m-1", 9))
	// Back, without another report; the one with the key of a peer gets none.
	w.must(put(vpnPool("a", 2, "v")))
	if w.vpnAddress("m-1") != "" || w.vpnAddress("m-2") != "10.90.0.2" {
		t.Errorf("back in the vpn the machines have %q and %q", w.vpnAddress("m-1"), w.vpnAddress("m-2"))
	}
	w.must(put(vpnPool("a", 2, "u")))
	if w.vpnAddress("m-2") != "10.91.0.2" {
		t.Errorf("in another vpn the machine has %q", w.vpnAddress("m-2"))
	}
	w.die("m-2", ready)
	if w.vpnAddress("m-2") != "" || w.store.Read().Machine("m-2").GetStatus().GetVpn() != "" {
		t.Errorf("gone, the machine has %q", w.vpnAddress("m-2"))
	}
}

// TestVpnWaiting: a machine that found no free address gets one as soon as there is one.
func TestVpnWaiting(t *testing.T) {
	w := initialised(t)
	w.must(put(vpnPool("a", 4, "v"), vpn("v", "10.90.0.0/30"), peer("laptop", "v", 9)))
	for i := 1; i <= 4; i++ {
		id := fmt.Sprintf("m-%d", i)
		w.serving(id, "a", uint32(i))
		w.must(facts(id, i))
	}
	if w.vpnAddress("m-1") != "10.90.0.2" || w.vpnAddress("m-2") != "" || w.lastEvent().GetReason() != "VpnAddressMissing" {
		t.Fatalf("addresses %q and %q, event %v", w.vpnAddress("m-1"), w.vpnAddress("m-2"), w.lastEvent())
	}
	w.must(remove("vpn-peers", "laptop"))
	if w.vpnAddress("m-2") != "10.90.0.1" || w.vpnAddress("m-3") != "" {
		t.Errorf("without the peer m-2 has %q, m-3 %q", w.vpnAddress("m-2"), w.vpnAddress("m-3"))
	}
	w.die("m-1", ready)
	w.must(booted("m-3", "b"))
	if w.vpnAddress("m-3") != "10.90.0.2" {
		t.Errorf("with m-1 gone m-3 has %q", w.vpnAddress("m-3"))
	}
	w.must(put(vpn("v", "10.90.0.0/29")))
	if w.vpnAddress("m-4") != "10.90.0.3" {
		t.Errorf("with a larger range m-4 has %q", w.vpnAddress("m-4"))
	}
}

// TestVpnOfAnOldProposer: a leader of the version before does not know what it lets in; what it takes, all must.
func TestVpnOfAnOldProposer(t *testing.T) {
	w := newWorld(t)
	begin := initCommand()
	begin.GetInitCluster().Cluster.FeatureLevel = 2
	w.must(begin)
	w.must(put(vpnPool("a", 1, "v")))
	w.serving("m-1", "a", 1)
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_SetFeatureLevel{SetFeatureLevel: &raftlogv1.SetFeatureLevel{Level: 3}}})
	w.must(facts("m-1", 1))
	w.must(put(vpn("v", "10.90.0.0/29")))
	if w.vpnAddress("m-1") != "10.90.0.1" {
		t.Errorf("once there is the vpn, the machine has %q", w.vpnAddress("m-1"))
	}
}

// Whatever joins, leaves and goes in whatever order, an address within a Vpn has one owner.
func TestVpnAddressesAreUnique(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := initialised(t)
		w.must(put(vpn("v", "10.90.0.0/29"), vpn("u", "10.91.0.0/24"), network("local", "10.88.0.0/24")))
		w.must(put(vpnPool("a", 4, "v"), vpnPool("b", 4, "")))
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			s := w.store.Read()
			name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "pool")
			index := uint32(rapid.IntRange(1, 4).Draw(t, "index"))
			of := rapid.SampledFrom([]string{"v", "u"}).Draw(t, "vpn")
			key := rapid.IntRange(1, 12).Draw(t, "key")
			holder := s.Slot(fmt.Sprintf("%s-%d", name, index)).GetHolder()
			switch rapid.IntRange(0, 8).Draw(t, "step") {
			case 0:
				w.apply(put(vpnPool(name, 4, rapid.SampledFrom([]string{"", "v", "u"}).Draw(t, "to"))))
			case 1, 2:
				w.apply(put(peer(fmt.Sprintf("p%d", rapid.IntRange(1, 6).Draw(t, "peer")), of, key)))
			case 3:
				w.apply(remove("vpn-peers", fmt.Sprintf("p%d", rapid.IntRange(1, 6).Draw(t, "peer"))))
			case 4:
				w.apply(put(vpn(of, rapid.SampledFrom([]string{"10.90.0.0/29", "10.90.0.0/28", "10.91.0.0/24"}).Draw(t, "cidr"))))
			case 5:
				if holder != "" {
					w.die(holder, s.Machine(holder).GetStatus().GetPhase())
				}
			default:
				if holder == "" {
					w.serving(fmt.Sprintf("m-%d", w.index), name, index)
				} else {
					w.apply(facts(holder, key))
				}
			}
			checkVpns(t, w.store.Read())
		}
		replica := New(state.New(), Level, slog.New(slog.DiscardHandler))
		if err := replica.Restore(bytes.NewReader(w.snapshot())); err != nil {
			t.Fatalf("restore: %v", err)
		}
		checkVpns(t, replica.store.Read())
	})
}

func checkVpns(t *rapid.T, s *state.Snapshot) {
	owners, keys := map[string]string{}, map[string]string{}
	own := func(of, address, owner string) {
		v := s.Vpn(of)
		prefix, err := parseVpn(v)
		addr, _ := netip.ParseAddr(address)
		if err != nil || !prefix.Contains(addr) || addr == prefix.Addr() || !prefix.Contains(addr.Next()) {
			t.Fatalf("%s has %q of vpn %s (%s)", owner, address, of, v.GetSpec().GetCidr())
		}
		if other := owners[of+address]; other != "" {
			t.Fatalf("%s of vpn %s is %s's and %s's", address, of, other, owner)
		}
		owners[of+address] = owner
	}
	for p := range s.VpnPeers() {
		own(p.GetSpec().GetVpn(), p.GetAddress(), p.GetMetadata().GetName())
		keys[p.GetSpec().GetVpn()+p.GetSpec().GetPublicKey()] += "x"
	}
	seen := map[string]string{}
	for m := range s.Machines() {
		st, id := m.GetStatus(), m.GetMetadata().GetName()
		if st.GetPhase() == gone {
			if st.GetVpn()+st.GetVpnAddress() != "" {
				t.Fatalf("%s is gone and has %s", id, st.GetVpnAddress())
			}
			continue
		}
		if key := st.GetFacts().GetVpnPublicKey(); key != "" {
			if seen[key] != "" {
				t.Fatalf("%s and %s have one key", seen[key], id)
			}
			seen[key] = id
		}
		if (st.GetVpn() == "") != (st.GetVpnAddress() == "") {
			t.Fatalf("%s has the address %q of vpn %q", id, st.GetVpnAddress(), st.GetVpn())
		}
		if st.GetVpn() == "" {
			continue
		}
		if want := s.Pool(m.GetSpec().GetPool()).GetSpec().GetVpn().GetName(); st.GetVpn() != want {
			t.Fatalf("%s is in vpn %q, its pool in %q", id, st.GetVpn(), want)
		}
		own(st.GetVpn(), st.GetVpnAddress(), id)
		keys[st.GetVpn()+st.GetFacts().GetVpnPublicKey()] += "x"
	}
	for key, owners := range keys {
		if len(owners) > 1 {
			t.Fatalf("%d ends have the key %s", len(owners), key)
		}
	}
	for _, v := range []string{"v", "u"} {
		n := 0
		for range s.VpnMachines(v) {
			n++
		}
		for range s.VpnPeersOf(v) {
			n++
		}
		for key := range owners {
			if strings.HasPrefix(key, v) {
				n--
			}
		}
		if n != 0 {
			t.Fatalf("the indexes of vpn %s are off by %d", v, n)
		}
	}
}
