package fsm

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

// names returns the address and pointer records about a name.
func names(s *state.Snapshot, fqdn string) (out []string) {
	for _, r := range dnszone.Records(s) {
		if r.GetName() == fqdn && r.GetType() != "TXT" || r.GetType() == "PTR" && r.GetData() == fqdn {
			out = append(out, r.GetName()+" "+r.GetType()+" "+r.GetData())
		}
	}
	return out
}

func TestHandOver(t *testing.T) {
	w := initialised(t)
	w.must(put(pool("web", 2)))
	w.refuse(errs.Conflict, createHeir("m-h", "web", 1, 1))
	w.serving("m-1", "web", 1)
	w.must(createHeir("m-h", "web", 1, 1))
	w.refuse(errs.Conflict, createHeir("m-x", "web", 1, 1))
	w.refuse(errs.Conflict, create("m-x", "web", 1, 1))
	before := w.store.Read()
	if got := names(before, "web-1.provisionr.internal."); !slices.Equal(got, []string{
		"2.0.88.10.in-addr.arpa. PTR web-1.provisionr.internal.", "web-1.provisionr.internal. A 10.88.0.2",
	}) {
		t.Errorf("with an heir the names are %v", got)
	}
	if before.MachineNamed("web-1").GetMetadata().GetName() != "m-1" || before.Machine("m-h").GetStatus().GetAddress() != "10.88.0.3" {
		t.Errorf("an heir has the name, or no address: %v", before.Machine("m-h"))
	}
	w.refuse(errs.NotFound, handOver("nosuch-1", "m-1", "m-h"))
	w.refuse(errs.Conflict, handOver("web-1", "m-h", "m-1"))
	w.refuse(errs.Conflict, handOver("web-1", "m-1", "m-2"))
	w.refuse(errs.Conflict, handOver("web-2", "", ""))
	w.must(launch("m-h", 1))
	w.must(move("m-h", converging, launching))
	zone := w.store.Read().Cluster().GetZoneIndex()
	w.must(handOver("web-1", "m-1", "m-h"))
	after := w.store.Read()
	if got := names(after, "web-1.provisionr.internal."); !slices.Equal(got, []string{
		"3.0.88.10.in-addr.arpa. PTR web-1.provisionr.internal.", "web-1.provisionr.internal. A 10.88.0.3",
	}) {
		t.Errorf("after the handover the names are %v", got)
	}
	slot, old := after.Slot("web-1"), after.Machine("m-1")
	if slot.GetHolder() != "m-h" || slot.GetHeir() != "" || old.GetStatus().GetPhase() != draining || old.GetStatus().GetReason() != "asked" ||
		after.Machine("m-h").GetStatus().GetPhase() != converging || after.Cluster().GetZoneIndex() <= zone {
		t.Errorf("slot %v, old machine %v", slot, old)
	}
	w.refuse(errs.Conflict, handOver("web-1", "m-1", "m-h"))
	w.die("m-1", draining)
	if s := w.store.Read(); s.Slot("web-1").GetHolder() != "m-h" || s.Claim("local", "10.88.0.2").GetMachine() != "" {
		t.Errorf("the end of the old machine left %v", s.Slot("web-1"))
	}
}

func TestHeirsAndHoldersDie(t *testing.T) {
	w := initialised(t)
	w.must(put(pool("web", 1)))
	w.serving("m-1", "web", 1)
	w.must(createHeir("m-2", "web", 1, 1))
	w.die("m-2", pending)
	if s := w.store.Read().Slot("web-1"); s.GetHolder() != "m-1" || s.GetHeir() != "" {
		t.Errorf("after the heir's end: %v", s)
	}
	w.must(createHeir("m-3", "web", 1, 1))
	w.must(move("m-1", terminating, ready))
	w.must(handOver("web-1", "m-1", "m-3"))
	if s := w.store.Read(); s.Slot("web-1").GetHolder() != "m-3" || s.Machine("m-1").GetStatus().GetPhase() != terminating {
		t.Errorf("a terminating holder handed over to %v and is %v", s.Slot("web-1"), s.Machine("m-1").GetStatus())
	}
	w.must(createHeir("m-4", "web", 1, 1))
	w.die("m-3", pending)
	if s := w.store.Read().Slot("web-1"); s.GetHolder() != "m-4" || s.GetHeir() != "" {
		t.Errorf("after the holder's end: %v", s)
	}
	w.must(createHeir("m-5", "web", 1, 1))
	w.must(move("m-5", failed, pending))
	w.refuse(errs.Conflict, handOver("web-1", "m-4", "m-5"))
	w.must(scale("web", 0))
	w.die("m-4", pending)
	w.must(move("m-5", terminating, failed))
	w.must(move("m-5", gone, terminating))
	if s := w.store.Read().Slot("web-1"); s != nil {
		t.Errorf("the slot of a shrunk pool is left: %v", s)
	}
}

func TestNotices(t *testing.T) {
	w := initialised(t)
	w.must(put(pool("web", 1)))
	w.serving("m-1", "web", 1)
	n := &provisionrv1.Notice{Kind: "spot", At: timestamppb.New(start), Message: "reclaimed"}
	w.must(notice("m-1", n))
	w.must(notice("m-1", n))
	if !proto.Equal(w.store.Read().Machine("m-1").GetStatus().GetNotice(), n) {
		t.Errorf("notice %v", w.store.Read().Machine("m-1").GetStatus().GetNotice())
	}
	w.must(notice("m-1", nil))
	told := 0
	for e := range w.store.Read().Events(0) {
		if e.GetReason() == "MachineNotice" || e.GetReason() == "NoticeWithdrawn" {
			told++
		}
	}
	if told != 2 || w.store.Read().Machine("m-1").GetStatus().GetNotice() != nil {
		t.Errorf("%d events tell of a notice and its withdrawal", told)
	}
	w.refuse(errs.NotFound, notice("m-9", n))
	w.die("m-1", ready)
	w.refuse(errs.Conflict, notice("m-1", n))
}

// far is a world with a network whose range nobody has said yet, and pool web in it.
func far(t *testing.T) *world {
	w := initialised(t)
	p := pool("web", 2)
	p.GetPool().Spec.Network = "far"
	w.must(put(loose("far", ""), p))
	return w
}

func TestAdoption(t *testing.T) {
	w := far(t)
	w.must(create("m-1", "web", 1, 1))
	w.refuse(errs.Conflict, adopt("m-1", "10.99.0.5"))
	w.must(launch("m-1", 1))
	w.must(put(loose("far", "10.99.0.0/24")))
	for _, bad := range []string{"junk", "10.98.0.5", "10.99.0.1", "10.99.0.255"} {
		w.refuse(errs.Invalid, adopt("m-1", bad))
	}
	w.must(adopt("m-1", "10.99.0.5"))
	w.must(adopt("m-1", "10.99.0.6"))
	if s := w.store.Read(); s.Machine("m-1").GetStatus().GetAddress() != "10.99.0.6" || s.Claim("far", "10.99.0.5") != nil {
		t.Errorf("machine %v", s.Machine("m-1").GetStatus())
	}
	w.must(create("m-2", "web", 2, 1))
	w.must(launch("m-2", 1))
	w.refuse(errs.Conflict, adopt("m-2", "10.99.0.6"))
	w.must(bind("m-1", 1, "k"))
	w.refuse(errs.Conflict, adopt("m-1", "10.99.0.7"))
	managed := initialised(t)
	managed.must(put(pool("a", 1)))
	managed.must(create("m-1", "a", 1, 1))
	managed.must(launch("m-1", 1))
	managed.refuse(errs.Conflict, adopt("m-1", "10.88.0.5"))
}

func TestTwoAddresses(t *testing.T) {
	w := far(t)
	w.must(create("m-1", "web", 1, 1))
	w.must(launch("m-1", 1))
	report := move("m-1", booting, launching)
	report.GetSetPhase().Address, report.GetSetPhase().Address6 = "10.99.0.5", "2001:db8::5"
	w.must(report)
	w.must(put(loose("far", "10.99.0.0/24")))
	if got := names(w.store.Read(), "web-1.provisionr.internal."); len(got) != 4 {
		t.Errorf("records %v", got)
	}
	other := move("m-1", booting, booting)
	other.GetSetPhase().Address = "10.99.0.6"
	w.must(other)
	s := w.store.Read()
	if m := s.Machine("m-1").GetStatus(); m.GetAddress() != "10.99.0.6" || m.GetAddress6() != "2001:db8::5" || s.Claim("far", "10.99.0.5") != nil {
		t.Errorf("machine %v", m)
	}
	w.must(move("m-1", terminating, booting))
	w.must(move("m-1", gone, terminating))
	for claim := range w.store.Read().Claims("far") {
		t.Errorf("claim left: %v", claim)
	}
}

// TestRangeOfTheProvider lets a network be without range until its provider says one, which applying the same again keeps.
func TestRangeOfTheProvider(t *testing.T) {
	w := far(t)
	w.must(put(loose("farther", "")))
	w.refuse(errs.Conflict, put(loose("far", "10.88.0.0/16")))
	w.must(put(completed(w.store.Read().Network("far"), loose("far", "10.99.0.0/16").GetNetwork().GetSpec())))
	generation := w.store.Read().Network("far").GetMetadata().GetGeneration()
	w.must(put(loose("far", "")))
	if n := w.store.Read().Network("far"); n.GetSpec().GetCidr() != "10.99.0.0/16" || n.GetMetadata().GetGeneration() != generation {
		t.Errorf("applying it again made %v", n)
	}
	another := loose("far", "")
	another.GetNetwork().Spec.Id = "vpc-2"
	w.must(put(another))
	if n := w.store.Read().Network("far"); n.GetSpec().GetCidr() != "" {
		t.Errorf("another network keeps the range %s", n.GetSpec().GetCidr())
	}
	w.refuse(errs.Invalid, put(network("managed", "")))
}

func TestCloudFieldsAreCopied(t *testing.T) {
	w := initialised(t)
	p := pool("web", 1)
	p.GetPool().Spec.Image = &provisionrv1.Image{Name: "debian-12-*"}
	p.GetPool().Spec.Placement = &provisionrv1.Placement{Zones: []string{"a"}}
	p.GetPool().Spec.Spot = &provisionrv1.Spot{}
	w.must(put(p))
	w.must(create("m-1", "web", 1, 1))
	m, made := w.store.Read().Machine("m-1"), w.store.Read().Pool("web")
	if why := state.Outdated(made, m); why != "" || m.GetSpec().GetImage().GetName() != "debian-12-*" || m.GetSpec().GetSpot() == nil {
		t.Errorf("%s: %v", why, m.GetSpec())
	}
}

// TestLevels refuses in a cluster of level 1 what level 2 brought, whatever was proposed.
func TestLevels(t *testing.T) {
	w := newWorld(t)
	first := initCommand()
	first.GetInitCluster().Cluster.FeatureLevel = 1
	w.must(first)
	w.must(put(pool("web", 1)))
	w.serving("m-1", "web", 1)
	address6 := move("m-1", degraded, ready)
	address6.GetSetPhase().Address6 = "2001:db8::1"
	for _, c := range []*raftlogv1.Command{
		createHeir("m-2", "web", 1, 1), handOver("web-1", "m-1", "m-2"), notice("m-1", nil), adopt("m-1", "10.88.0.3"), address6,
	} {
		if Needs(c) != 2 {
			t.Errorf("%v needs level %d", c, Needs(c))
		}
		w.refuse(errs.Unsupported, c)
	}
	w.refuse(errs.Invalid, put(loose("far", "")))
	spot := pool("web", 1)
	spot.GetPool().Spec.Spot = &provisionrv1.Spot{}
	for _, c := range []*raftlogv1.Command{put(spot), put(loose("far", "")), put(pool("a", 1), spot)} {
		if Needs(c) != 2 {
			t.Errorf("%v needs level %d", c, Needs(c))
		}
	}
	for _, c := range []*raftlogv1.Command{put(pool("a", 1)), initCommand(), scale("web", 2), create("m-2", "web", 1, 1)} {
		if Needs(c) != 1 {
			t.Errorf("%v needs level %d", c, Needs(c))
		}
	}
}

// TestLevel1Replay applies a log of level 1: it must give the very bytes that the first version gave.
func TestLevel1Replay(t *testing.T) {
	const want = "d6f74efc7e4661cc5c13331487c3afb5c540cf90f9db77661ce1d008cf3a8f43"
	w := newWorld(t)
	first := initCommand()
	first.GetInitCluster().Cluster.FeatureLevel = 1
	w.must(first)
	w.must(put(pool("web", 3, "www"), pool("db", 1)))
	for i, id := range []string{"m-1", "m-2", "m-3"} {
		w.serving(id, "web", uint32(i+1))
	}
	w.must(bind("m-1", 1, "k1"))
	w.apply(bind("m-1", 1, "k2"))
	w.must(put(loose("far", "10.99.0.0/24")))
	p := pool("far", 2)
	p.GetPool().Spec.Network = "far"
	w.must(put(p))
	w.serving("m-f", "far", 1)
	for _, address := range []string{"10.99.0.7", "10.99.0.8", "10.99.0.8", "10.98.0.1"} {
		c := move("m-f", ready, ready)
		c.GetSetPhase().Address = address
		w.must(c)
	}
	w.apply(put(loose("far", "10.99.1.0/24")), put(loose("farther", "")), put(network("far", "10.99.0.0/24")))
	w.die("m-2", ready)
	w.must(create("m-4", "web", 2, 1))
	w.must(scale("web", 2))
	w.die("m-3", ready)
	w.must(remove("machines", "web-1"))
	w.must(remove("pools", "far"))
	w.die("m-f", ready)
	w.must(put(zone("other", "example.org", "a", "b")))
	sum := sha256.Sum256(w.snapshot())
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("the log gives %s", got)
	}
}
