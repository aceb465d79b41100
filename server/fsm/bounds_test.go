package fsm

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

func sealedKey(version uint64, wrapped string) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_PutSealedKey{PutSealedKey: &raftlogv1.PutSealedKey{
		Key: &raftlogv1.SealedKey{Version: version, Wrapped: map[string][]byte{wrapped: {1}}}}}}
}

// TestSealedKeyIsNotOverwritten: of two servers that join at once, each with a key made from the present one, the second
// is refused and must be made again.
func TestSealedKeyIsNotOverwritten(t *testing.T) {
	w := initialised(t)
	w.refuse(errs.Invalid, sealedKey(0, "s1"))
	w.must(sealedKey(1, "s1"))
	w.must(sealedKey(2, "s2"))
	w.must(sealedKey(2, "s2"))
	w.refuse(errs.Conflict, sealedKey(2, "s3"))
	w.refuse(errs.Conflict, sealedKey(1, "s1"))
	w.must(sealedKey(3, "s3"))
	if key := w.store.Read().SealedKey(); key.GetVersion() != 3 || key.GetWrapped()["s3"] == nil {
		t.Errorf("key %v", key)
	}
}

func putServer(name string) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{
		Member: &provisionrv1.Member{Metadata: &provisionrv1.Metadata{Name: name}, FeatureLevel: Level}}}}
}

// TestNameServersHaveNames: the names that servers have as name servers are in the registry, in every zone.
func TestNameServersHaveNames(t *testing.T) {
	w := initialised(t)
	w.must(put(pool("ns-taken", 0)))
	w.must(put(pool("ns", 2)))
	for _, name := range []string{"taken", "1", strings.Repeat("a", 61)} {
		if err := w.apply(putServer(name))[0].Err; err == nil {
			t.Errorf("server %s is a member although it cannot have its name", name)
		}
	}
	w.must(putServer("s1"))
	w.must(putServer("s1"))
	w.must(put(zone("late", "late.internal")))
	w.refuse(errs.Conflict, put(zone("static", "static.internal", "ns-s1")))
	in := func(zone string, p *provisionrv1.Object) *raftlogv1.Command {
		p.GetPool().Spec.Zone = zone
		return put(p)
	}
	w.refuse(errs.Conflict, put(pool("ns-s1", 1)))
	w.refuse(errs.Conflict, in("late", pool("web", 1, "ns-s1")))

	// The registry is made anew from a snapshot.
	again := newWorld(t)
	if err := again.fsm.Restore(bytes.NewReader(w.snapshot())); err != nil {
		t.Fatal(err)
	}
	if owner := again.store.Read().NameOwner("late", "ns-s1"); owner == nil || owner.Kind != state.OwnerMember || owner.Owner != "s1" {
		t.Errorf("owner after a restore: %v", owner)
	}

	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_RemoveMember{RemoveMember: &raftlogv1.RemoveMember{Name: "s1"}}})
	w.must(put(pool("ns-s1", 1)))
}

// TestLongNames: no domain is so long that a machine's name within it could not be answered.
func TestLongNames(t *testing.T) {
	w := initialised(t)
	label := strings.Repeat("a", 62)
	w.must(put(zone("long", label+"."+label+"."+label)))
	w.refuse(errs.Invalid, put(zone("longer", label+"."+label+"."+label+".bc")))
}

// TestProofsOfOthers: a machine speaks of itself and of the others of its pool, and cannot fill another's table.
func TestProofsOfOthers(t *testing.T) {
	w := initialised(t)
	w.must(put(pool("a", 2), pool("b", 1)))
	w.serving("m-1", "a", 1)
	w.serving("m-2", "a", 2)
	w.serving("m-3", "b", 1)
	report := func(by, about string, from, to int) {
		c := &raftlogv1.ReportMachine{Id: by}
		for i := from; i < to; i++ {
			c.Proofs = append(c.Proofs, &provisionrv1.Proof{Machine: about, Assumption: fmt.Sprintf("x%d", i), State: provisionrv1.ProofState_PROOF_STATE_PROVEN})
		}
		w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_ReportMachine{ReportMachine: c}})
	}
	report("m-3", "m-1", 0, 1)
	report("m-2", "m-1", 0, 2000)
	report("m-1", "m-1", 0, 2000)
	got := map[string]int{}
	for p := range w.store.Read().Proofs("m-1") {
		got[p.GetObserver()]++
	}
	if got["m-3"] != 0 || got["m-2"] != maxPeerProofs || got["m-1"] != maxOwnProofs {
		t.Errorf("proofs by observer: %v", got)
	}
}
