package fsm

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

func secret(name string, revision, key uint64, text string) *provisionrv1.Secret {
	return &provisionrv1.Secret{Metadata: &provisionrv1.Metadata{Name: name}, Revision: revision, KeyVersion: key, Ciphertext: []byte(text)}
}

func putSecret(s *provisionrv1.Secret) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_PutSecret{PutSecret: &raftlogv1.PutSecret{Secret: s, Uid: "u-1"}}}
}

func putKey(version, oldest, newest uint64, secrets ...*provisionrv1.Secret) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_PutSealedKey{PutSealedKey: &raftlogv1.PutSealedKey{
		Key: &raftlogv1.SealedKey{Version: version, Oldest: oldest, Newest: newest}, Secrets: secrets}}}
}

func TestSecrets(t *testing.T) {
	w := initialised(t)
	w.must(putKey(1, 1, 1))
	w.refuse(errs.Conflict, putSecret(secret("db", 2, 1, "two")))
	w.refuse(errs.Conflict, putSecret(secret("db", 1, 2, "one")))
	w.refuse(errs.Invalid, putSecret(secret("db", 1, 1, "")))
	w.refuse(errs.Invalid, putSecret(secret("Bad name", 1, 1, "one")))
	w.refuse(errs.Invalid, putSecret(secret("db", 1, 1, strings.Repeat("x", maxCiphertext+1))))
	w.must(putSecret(secret("db", 1, 1, "one")))
	w.refuse(errs.Conflict, putSecret(secret("db", 1, 1, "again")))
	w.must(putSecret(secret("db", 2, 1, "two")))
	got := w.store.Read().Secret("db")
	if got.GetRevision() != 2 || string(got.GetCiphertext()) != "two" || got.GetMetadata().GetUid() != "u-1" || got.GetMetadata().GetGeneration() != 2 {
		t.Errorf("secret %v", got)
	}
	if e := w.lastEvent(); e.GetReason() != "SecretChanged" || strings.Contains(e.GetMessage(), "two") || e.GetCaller().GetName() != "tester" {
		t.Errorf("event %v", e)
	}
	w.refuse(errs.Invalid, put(&provisionrv1.Object{Kind: &provisionrv1.Object_Secret{Secret: secret("x", 1, 1, "x")}}))
}

func TestSecretInUse(t *testing.T) {
	w := initialised(t)
	w.must(putKey(1, 1, 1))
	w.must(putSecret(secret("db", 1, 1, "one")))
	p := pool("a", 1)
	p.GetPool().Spec.Files = []*provisionrv1.File{
		{Path: "/a", Template: proto.String(`{{ if false }}{{ secret "db" }}{{ end }}`)}, {Path: "/b", Secret: "not-yet"},
	}
	w.must(put(p))
	w.refuse(errs.Conflict, remove("secrets", "db"))
	w.refuse(errs.NotFound, remove("secrets", "not-yet"))
	w.must(put(pool("a", 1)))
	w.must(remove("secrets", "db"))
	if w.store.Read().Secret("db") != nil || w.lastEvent().GetMessage() != "secret db was deleted" {
		t.Errorf("event %v", w.lastEvent())
	}
	w.refuse(errs.NotFound, remove("secrets", "db"))
	// Machines may remember revision 1: another secret of the name goes on from there.
	if left := w.store.Read().LastSecret("db"); len(left.GetCiphertext()) > 0 || left.GetRevision() != 1 {
		t.Errorf("left is %v", left)
	}
	w.refuse(errs.Conflict, putSecret(secret("db", 1, 1, "other")))
	w.must(putSecret(secret("db", 2, 1, "other")))
	if got := w.store.Read().Secret("db"); got.GetMetadata().GetGeneration() != 1 || got.GetMetadata().GetDeleted() != nil {
		t.Errorf("secret %v", got)
	}
	w.must(remove("secrets", "db"))
	w.must(putKey(2, 2, 2)) // what is left of a secret needs no key
	before := w.snapshot()
	if err := w.fsm.Restore(bytes.NewReader(before)); err != nil || !bytes.Equal(before, w.snapshot()) || w.store.Read().LastSecret("db").GetRevision() != 2 {
		t.Errorf("restored: %v", err)
	}
}

func TestDataKeyLeavesNoSecretBehind(t *testing.T) {
	w := initialised(t)
	w.must(putKey(1, 1, 1))
	for _, name := range []string{"a", "b", "c"} {
		w.must(putSecret(secret(name, 1, 1, "old")))
	}
	// A further member changes nothing about the data keys.
	w.must(putKey(2, 1, 1))
	w.refuse(errs.Conflict, putKey(3, 2, 2))
	w.refuse(errs.Conflict, putKey(3, 2, 2, secret("a", 1, 2, "new"), secret("b", 1, 2, "new")))
	w.refuse(errs.Conflict, putKey(3, 1, 2, secret("a", 2, 2, "new")))
	w.refuse(errs.Conflict, putKey(3, 1, 2, secret("d", 1, 2, "new")))
	w.refuse(errs.Invalid, putKey(3, 1, 2, secret("a", 1, 1, "new")))
	w.refuse(errs.Invalid, putKey(3, 3, 2))
	// A row of level 2 says nothing of its keys.
	w.refuse(errs.Conflict, putKey(3, 0, 0))
	w.must(putKey(3, 1, 2, secret("a", 1, 2, "new")))
	w.refuse(errs.Conflict, putSecret(secret("d", 1, 1, "old")))
	w.refuse(errs.Conflict, putKey(4, 2, 2))
	w.must(putKey(4, 1, 2, secret("b", 1, 2, "new"), secret("c", 1, 2, "new")))
	w.must(putKey(5, 2, 2))
	for s := range w.store.Read().Secrets() {
		if string(s.GetCiphertext()) != "new" || s.GetKeyVersion() != 2 || s.GetRevision() != 1 || s.GetMetadata().GetGeneration() != 1 {
			t.Errorf("secret %v", s)
		}
	}
}

func TestAuthorityPurpose(t *testing.T) {
	w := initialised(t)
	authority := func(id byte, purpose, state string) *raftlogv1.Command {
		return &raftlogv1.Command{Kind: &raftlogv1.Command_PutAuthority{PutAuthority: &raftlogv1.PutAuthority{Authority: &raftlogv1.Authority{
			Id: string(bytes.Repeat([]byte{id}, 64)), State: state, Purpose: purpose}}}}
	}
	w.must(authority('a', "", "active"))
	w.refuse(errs.Invalid, authority('b', "code", "active"))
	w.refuse(errs.Conflict, authority('a', "ssh", "active"))
	w.must(authority('b', "ssh", "active"))
	w.refuse(errs.Conflict, authority('c', "ssh", "active"))
	w.must(authority('c', "ssh", "prepared"))
	w.must(authority('b', "ssh", "retired"))
	w.must(authority('c', "ssh", "active"))
}

func beginReboot(id, boot string, in time.Duration, w *world) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_BeginReboot{BeginReboot: &raftlogv1.BeginReboot{
		Id: id, BootId: boot, Reason: "a new kernel", Deadline: timestamppb.New(start.Add(time.Duration(w.index)*time.Second + in))}}}
}

func booted(id, boot string) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_ReportMachine{ReportMachine: &raftlogv1.ReportMachine{
		Id: id, Agent: &provisionrv1.AgentStatus{BootId: boot}}}}
}

func TestReboot(t *testing.T) {
	w := initialised(t)
	w.must(put(pool("a", 1)))
	w.serving("m-1", "a", 1)
	w.must(booted("m-1", "b1"))
	reboot := func() *provisionrv1.Reboot { return w.store.Read().Machine("m-1").GetStatus().GetReboot() }
	w.refuse(errs.NotFound, beginReboot("m-2", "b1", time.Minute, w))
	w.refuse(errs.Conflict, beginReboot("m-1", "b0", time.Minute, w))
	w.refuse(errs.Invalid, beginReboot("m-1", "b1", 0, w))
	w.must(beginReboot("m-1", "b1", time.Minute, w))
	w.refuse(errs.Conflict, beginReboot("m-1", "b1", time.Minute, w))
	w.must(booted("m-1", "b1"))
	if reboot().GetBootId() != "b1" || reboot().GetReason() != "a new kernel" {
		t.Fatalf("reboot %v", reboot())
	}
	w.must(booted("m-1", "b2"))
	if reboot() != nil || w.lastEvent().GetReason() != "RebootDone" {
		t.Fatalf("reboot %v after %v", reboot(), w.lastEvent())
	}
	if last := w.store.Read().Machine("m-1").GetStatus().GetLastReboot(); last.GetBootId() != "b1" {
		t.Errorf("last reboot %v", last)
	}
	// One that does not happen ends with its deadline, at the next change of the phase or the next try.
	w.must(beginReboot("m-1", "b2", 2*time.Second, w))
	w.must(move("m-1", unreachable, ready))
	w.must(move("m-1", unreachable, unreachable))
	if reboot() != nil {
		t.Fatalf("overdue reboot %v", reboot())
	}
	w.must(beginReboot("m-1", "b2", 2*time.Second, w))
	w.must(put(pool("b", 1)))
	w.must(beginReboot("m-1", "b2", time.Minute, w))
	w.die("m-1", unreachable)
	if reboot() != nil {
		t.Errorf("gone, with reboot %v", reboot())
	}
}

// TestRebootsKeepTheBudget: of two that were decided at the same time the second is refused.
func TestRebootsKeepTheBudget(t *testing.T) {
	w := initialised(t)
	w.must(put(pool("a", 2)))
	for i, id := range []string{"m-1", "m-2"} {
		w.serving(id, "a", uint32(i+1))
		w.must(booted(id, "b"))
	}
	w.must(beginReboot("m-1", "b", time.Minute, w))
	w.refuse(errs.Conflict, beginReboot("m-2", "b", time.Minute, w))
	w.must(booted("m-1", "b2"))
	w.must(beginReboot("m-2", "b", time.Minute, w))
}

func TestLevelThree(t *testing.T) {
	spec := func(change func(*provisionrv1.PoolSpec)) *raftlogv1.Command {
		o := pool("a", 1)
		o.GetPool().Spec.Files = []*provisionrv1.File{{Path: "/a", Content: proto.String("x"), Mode: "0644"}}
		o.GetPool().Spec.Firewall = &provisionrv1.Firewall{SshFrom: []string{"any"}, Rules: []*provisionrv1.FirewallRule{{Name: "x", From: []string{"any"}}}}
		change(o.GetPool().Spec)
		return put(o)
	}
	mirrored := network("n", "10.89.0.0/24")
	mirrored.GetNetwork().Spec.NoProxy = []string{"x"}
	for name, tt := range map[string]struct {
		c    *raftlogv1.Command
		want uint32
	}{
		"as ever":      {spec(func(*provisionrv1.PoolSpec) {}), 1},
		"default mode": {spec(func(s *provisionrv1.PoolSpec) { s.Mode = "enforce" }), 1},
		"absent user":  {spec(func(s *provisionrv1.PoolSpec) { s.Users = []*provisionrv1.UserAccount{{Name: "x", Absent: true}} }), 1},
		"audit":        {spec(func(s *provisionrv1.PoolSpec) { s.Mode = "audit" }), 3},
		"sysctl":       {spec(func(s *provisionrv1.PoolSpec) { s.Sysctl = map[string]string{"vm.swappiness": "1"} }), 3},
		"link":         {spec(func(s *provisionrv1.PoolSpec) { s.Files[0].Link = "/b" }), 3},
		"drop":         {spec(func(s *provisionrv1.PoolSpec) { s.Firewall.Rules[0].Drop = true }), 3},
		"role":         {spec(func(s *provisionrv1.PoolSpec) { s.Firewall.Rules[0].From = []string{"role:x"} }), 3},
		"template":     {spec(func(s *provisionrv1.PoolSpec) { s.Files[0].Template = proto.String(`{{ secret "x" }}`) }), 3},
		"fedora":       {spec(func(s *provisionrv1.PoolSpec) { s.Os = &provisionrv1.OperatingSystem{Distribution: "fedora"} }), 3},
		"network":      {put(mirrored), 3},
		"vpn":          {put(pool("a", 1), vpn("v", "10.90.0.0/24")), 3},
		"peer":         {put(peer("p", "v", 1)), 3},
		"facts":        {facts("m-1", 1), 3},
		"no facts":     {booted("m-1", "b"), 1},
		"secret":       {putSecret(secret("a", 1, 1, "x")), 3},
		"data key":     {putKey(1, 1, 1), 1},
		"resealed":     {putKey(1, 1, 1, secret("a", 1, 1, "x")), 3},
		"delete":       {remove("secrets", "a"), 3},
		"delete pool":  {remove("pools", "a"), 1},
	} {
		if got := Needs(tt.c); got != tt.want {
			t.Errorf("%s needs level %d, want %d", name, got, tt.want)
		}
	}
	w := newWorld(t)
	begin := initCommand()
	begin.GetInitCluster().Cluster.FeatureLevel = 2
	w.must(begin)
	w.must(put(pool("a", 1)))
	w.serving("m-1", "a", 1)
	for _, c := range []*raftlogv1.Command{
		put(vpn("v", "10.90.0.0/24")), facts("m-1", 1), putSecret(secret("a", 1, 1, "x")), putKey(1, 1, 1, secret("a", 1, 1, "x")),
		remove("vpns", "v"), beginReboot("m-1", "", time.Hour, w),
	} {
		w.refuse(errs.Unsupported, c)
	}
	w.must(putKey(1, 1, 1))
}
