package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func want(hashes ...[]byte) *agentv1.AgentMessage {
	return &agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Want{Want: &agentv1.Want{Hashes: hashes}}}
}

func reportMessage(r *agentv1.Report) *agentv1.AgentMessage {
	return &agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Report{Report: r}}
}

func isAck(m *agentv1.ServerMessage) bool { return m.GetReportAck() != nil }

func TestDesiredStateIsPushed(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.mustConnect(m)
	d := a.hearDesired()
	if got := DesiredHash(m.log.store.Read(), a.id); got != fmt.Sprintf("%x", d.GetHash()) {
		t.Errorf("pushed %x, compiled %s", d.GetHash(), got)
	}
	bodies := map[string][]byte{}
	for _, ref := range d.GetComponents() {
		a.say(want(ref.GetHash()))
		c := a.hear(func(m *agentv1.ServerMessage) bool { return m.GetComponent() != nil }).GetComponent()
		if string(c.GetHash()) != string(ref.GetHash()) {
			t.Fatalf("component %x, wanted %x", c.GetHash(), ref.GetHash())
		}
		bodies[ref.GetName()] = c.GetBody()
	}
	var own agentv1.MachineComponent
	if err := proto.Unmarshal(bodies["machine"], &own); err != nil || own.GetFqdn() != "zk-1.p.internal" {
		t.Errorf("machine %v, error %v", &own, err)
	}
	m.log.must(t, apply(poolObject("zk", &provisionrv1.PoolSpec{
		Size: 3, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}, Variables: map[string]string{"a": "b"},
	})))
	if next := a.hearDesired(); string(next.GetHash()) == string(d.GetHash()) || next.GetPoolGeneration() != d.GetPoolGeneration()+1 {
		t.Errorf("after a change: %v", next)
	}
}

// TestOnlyChangesArePushed: what changes nothing for a machine is not sent to it.
func TestOnlyChangesArePushed(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.mustConnect(m)
	first := a.hearDesired()
	m.log.must(t, apply(poolObject("other", &provisionrv1.PoolSpec{Size: 1, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}})))
	m.log.launch(t, "other", 1)
	m.log.launch(t, "zk", 2)
	second := a.hearDesired()
	names := func(d *agentv1.Desired) (out []string) {
		for _, ref := range d.GetComponents() {
			out = append(out, fmt.Sprintf("%s=%x", ref.GetName(), ref.GetHash()[:4]))
		}
		return out
	}
	before, after := names(first), names(second)
	changed := slices.DeleteFunc(slices.Clone(after), func(s string) bool { return slices.Contains(before, s) })
	if len(changed) != 1 || !strings.HasPrefix(changed[0], "members/zk/0=") {
		t.Errorf("changed %v, before %v, after %v", changed, before, after)
	}
}

func TestReports(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.mustConnect(m)
	a.say(reportMessage(&agentv1.Report{
		Sequence: 7, DesiredHash: []byte{1, 2}, PoolGeneration: 1, Converged: true,
		Proofs: []*agentv1.Proof{{Assumption: "dns.forward", Machine: a.id, State: agentv1.ProofState_PROOF_STATE_FAILED, Expected: "x", Found: "y"}},
		Changes: []*agentv1.ResourceChange{
			{Resource: "file//etc/motd", Diff: "-a +b", Drift: true},
			{Resource: "package/x", Error: "no such package"},
			{Resource: "file//etc/first", Diff: "new"},
		},
	}))
	if ack := a.hear(isAck).GetReportAck(); ack.GetSequence() != 7 {
		t.Errorf("ack of %d", ack.GetSequence())
	}
	s := m.log.store.Read()
	status := s.Machine(a.id).GetStatus().GetAgent()
	if !status.GetConverged() || status.GetDesiredHash() != "0102" || status.GetVersion() != "1.0" || status.GetBootId() != "boot-1" {
		t.Errorf("status %v", status)
	}
	if p := s.Proof(a.id, "dns.forward", a.id); p.GetState() != provisionrv1.ProofState_PROOF_STATE_FAILED || p.GetDesiredHash() != "0102" {
		t.Errorf("proof %v", p)
	}
	got := reasons(s)
	if !slices.Contains(got, "DriftRepaired") || !slices.Contains(got, "ResourceFailed") {
		t.Errorf("events %v", got)
	}
}

// TestReportsArePaced: a machine that reports and drifts without end is heard in the end, and fills no history.
func TestReportsArePaced(t *testing.T) {
	m := start(t, nil)
	m.tells, m.told = newPace(time.Hour, 3), newPace(100*time.Millisecond, 2)
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.mustConnect(m)
	for i := range uint64(20) {
		a.say(reportMessage(&agentv1.Report{Sequence: i + 1, Changes: []*agentv1.ResourceChange{{Resource: "file//a", Drift: true}}}))
	}
	a.hear(func(m *agentv1.ServerMessage) bool { return m.GetReportAck().GetSequence() == 20 })
	told := 0
	for e := range m.log.store.Read().Events(0) {
		if e.GetReason() == "DriftRepaired" {
			told++
		}
	}
	if told != 3 {
		t.Errorf("%d events", told)
	}
}

// TestReportsAreNotLost: what cannot be committed is not acknowledged, and is committed later with what came since.
func TestReportsAreNotLost(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.mustConnect(m)
	m.log.fail(errs.New(errs.Unavailable, "no leader"))
	proof := func(name string) []*agentv1.Proof {
		return []*agentv1.Proof{{Assumption: name, Machine: a.id, State: agentv1.ProofState_PROOF_STATE_PROVEN}}
	}
	a.say(reportMessage(&agentv1.Report{Sequence: 1, Proofs: proof("one")}))
	a.say(reportMessage(&agentv1.Report{Sequence: 2, Converged: true, Proofs: proof("two")}))
	deadline := time.Now().Add(patience)
	for !strings.Contains(m.records.String(), "cannot commit reports") {
		if time.Now().After(deadline) {
			t.Fatal("the failure is not logged")
		}
		<-time.After(time.Millisecond)
	}
	m.log.fail(nil)
	for ack := uint64(0); ack != 2; {
		ack = a.hear(isAck).GetReportAck().GetSequence()
	}
	s := m.log.store.Read()
	if s.Proof(a.id, "one", a.id) == nil || s.Proof(a.id, "two", a.id) == nil || !s.Machine(a.id).GetStatus().GetAgent().GetConverged() {
		t.Errorf("machine %v", s.Machine(a.id).GetStatus())
	}
}

func TestNewerSessionReplacesOlder(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	changed := m.Changed()
	a.mustConnect(m)
	<-changed
	revision, ids := m.Sessions()
	if !slices.Equal(ids, []string{a.id}) || revision == 0 {
		t.Errorf("sessions %v at %d", ids, revision)
	}
	since, ok := m.ConnectedSince(a.id)
	if !ok || time.Since(since) > time.Minute {
		t.Errorf("connected since %v, %v", since, ok)
	}
	older := *a
	if _, err := a.connect(m, "127.0.0.1", "boot-2"); err != nil { // It rebooted.
		t.Fatal(err)
	}
	if err := older.end(); !errs.Is(err, errs.Conflict) {
		t.Errorf("the older session ended with %v", err)
	}
	if next, ids := m.Sessions(); !slices.Equal(ids, []string{a.id}) || next <= revision {
		t.Errorf("sessions %v at %d after %d", ids, next, revision)
	}
	a.hearDesired()
}

func TestExec(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.mustConnect(m)
	var got []string
	done := make(chan error, 1)
	go func() {
		done <- m.Exec(t.Context(), a.id, "zk-1", &provisionrv1.ExecRequest{Command: []string{"echo", "hi"}, Stdin: []byte("in")}, func(r *provisionrv1.ExecResponse) error {
			got = append(got, fmt.Sprintf("%s %s%s%d", r.GetMachine(), r.GetStdout(), r.GetStderr(), r.GetExit()))
			return nil
		})
	}()
	order := a.hear(func(m *agentv1.ServerMessage) bool { return m.GetExec() != nil }).GetExec()
	if !slices.Equal(order.GetCommand(), []string{"echo", "hi"}) || string(order.GetStdin()) != "in" {
		t.Errorf("order %v", order)
	}
	say := func(out *agentv1.ExecOutput) {
		out.Id = order.GetId()
		a.say(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_ExecOutput{ExecOutput: out}})
	}
	say(&agentv1.ExecOutput{Event: &agentv1.ExecOutput_Stdout{Stdout: []byte("out")}})
	say(&agentv1.ExecOutput{Event: &agentv1.ExecOutput_Stderr{Stderr: []byte("err")}})
	say(&agentv1.ExecOutput{Event: &agentv1.ExecOutput_Exit{Exit: 3}})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if wanted := []string{"zk-1 out0", "zk-1 err0", "zk-1 3"}; !slices.Equal(got, wanted) {
		t.Errorf("%q, want %q", got, wanted)
	}
}

func TestExecEnds(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	ignore := func(*provisionrv1.ExecResponse) error { return nil }
	req := &provisionrv1.ExecRequest{Command: []string{"sleep"}}
	if err := m.Exec(t.Context(), a.id, "zk-1", req, ignore); !errs.Is(err, errs.NotFound) {
		t.Errorf("without a session: %v", err)
	}
	if err := m.Verify(t.Context(), a.id); !errs.Is(err, errs.NotFound) {
		t.Errorf("verify without a session: %v", err)
	}
	a.mustConnect(m)
	isExec := func(m *agentv1.ServerMessage) bool { return m.GetExec() != nil }
	run := func(ctx context.Context) chan error {
		done := make(chan error, 1)
		go func() { done <- m.Exec(ctx, a.id, "zk-1", req, ignore) }()
		return done
	}
	t.Run("caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := run(ctx)
		id := a.hear(isExec).GetExec().GetId()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		a.hear(func(m *agentv1.ServerMessage) bool { return m.GetExecCancel().GetId() == id })
	})
	t.Run("session ends", func(t *testing.T) {
		done := run(t.Context())
		a.hear(isExec)
		if err := a.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errs.Is(err, errs.Unavailable) {
			t.Errorf("error %v", err)
		}
	})
}

func TestVerify(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.mustConnect(m)
	done := make(chan error, 1)
	go func() { done <- m.LocalVerify(t.Context(), a.id) }()
	id := a.hear(func(m *agentv1.ServerMessage) bool { return m.GetVerify() != nil }).GetVerify().GetId()
	a.say(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_VerifyDone{VerifyDone: &agentv1.VerifyDone{Id: id}}})
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestSlowConsumer: an agent that does not read loses its session, and what waited for it is bounded.
func TestSlowConsumer(t *testing.T) {
	m := start(t, func(c *Config) { c.SendTimeout = 100 * time.Millisecond })
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.mustConnect(m)
	changed := m.Changed()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// Nobody reads at the agent: the first message fills the windows, the second waits.
	done := make(chan error, 2)
	for range 2 {
		go func() {
			done <- m.Exec(ctx, a.id, "zk-1", &provisionrv1.ExecRequest{Command: []string{"cat"}, Stdin: make([]byte, 1<<20)}, func(*provisionrv1.ExecResponse) error { return nil })
		}()
	}
	for range 2 {
		if err := <-done; !errs.Is(err, errs.Unavailable) {
			t.Fatalf("error %v", err)
		}
	}
	<-changed
	if err := a.end(); err == nil {
		t.Error("the session goes on")
	}
}

func TestOutboxIsBounded(t *testing.T) {
	o := newOutbox()
	for range maxQueued + 1 {
		o.add(&agentv1.ServerMessage{})
	}
	if _, err := o.next(); !errs.Is(err, errs.Exhausted) {
		t.Errorf("messages: %v", err)
	}
	o = newOutbox()
	o.want(make([][]byte, maxWanted))
	o.want(make([][]byte, 1))
	if _, err := o.next(); !errs.Is(err, errs.Exhausted) {
		t.Errorf("components: %v", err)
	}
}

func TestTrustIsPushed(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.mustConnect(m)
	a.hearDesired()
	s2 := &provisionrv1.Member{Metadata: named("s2"), FeatureLevel: 1, AgentAddress: "192.0.2.2:7444"}
	m.log.must(t, putMember(s2))
	trust := a.hear(func(m *agentv1.ServerMessage) bool { return m.GetTrust() != nil }).GetTrust()
	if !slices.Equal(trust.GetEndpoints(), []string{"10.88.0.1:7444", "192.0.2.2:7444"}) {
		t.Errorf("endpoints %v", trust.GetEndpoints())
	}
}

// TestLaggingMember: a machine whose key this member has not heard of yet makes it look at the leader first.
func TestLaggingMember(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	before := m.log.syncs
	a.mustConnect(m)
	if m.log.syncs != before {
		t.Error("asked the leader without need")
	}
	if _, err := m.record(t.Context(), a.id, func(*provisionrv1.Machine) bool { return false }); err != nil || m.log.syncs != before+1 {
		t.Errorf("error %v, %d syncs", err, m.log.syncs-before)
	}
}

func TestDeletionEndsTheSession(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.mustConnect(m)
	a.hearDesired()
	m.log.phase(t, a.id, provisionrv1.Phase_PHASE_TERMINATING)
	if err := a.end(); !errs.Is(err, errs.Denied) {
		t.Errorf("error %v", err)
	}
}
