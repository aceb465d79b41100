package session

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/state"
)

func raise(level uint32) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_SetFeatureLevel{SetFeatureLevel: &raftlogv1.SetFeatureLevel{Level: level}}}
}

// raised is a member of a cluster at the newest level.
func raised(t testing.TB, edit func(*Config)) *member {
	t.Helper()
	m := start(t, edit)
	m.log.must(t, putMember(&provisionrv1.Member{
		Metadata: named("s1"), FeatureLevel: fsm.Level, AgentAddress: "192.0.2.1:7444", DnsAddress: "0.0.0.0:5353", NetworkHosts: map[string]string{"local": "10.88.0.1"},
	}), raise(fsm.Level))
	return m
}

func isAsk(m *agentv1.ServerMessage) bool { return m.GetAsk() != nil }

func answer(a *agentv1.Answer) *agentv1.AgentMessage {
	return &agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Answer{Answer: a}}
}

var aProbe = &agentv1.Ask{Id: "not this one", Kind: &agentv1.Ask_Probe{Probe: &agentv1.Probe{Address: "10.88.0.9", Ports: []uint32{22}}}}

func TestAsk(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	if _, err := m.Ask(t.Context(), a.id, aProbe); !errs.Is(err, errs.NotFound) {
		t.Errorf("without a session: %v", err)
	}
	a.mustConnect(m)
	type outcome struct {
		answer *agentv1.Answer
		err    error
	}
	ask := func(ctx context.Context, q *agentv1.Ask) (id string, done chan outcome) {
		done = make(chan outcome, 1)
		go func() {
			got, err := m.LocalAsk(ctx, a.id, q)
			done <- outcome{got, err}
		}()
		return a.hear(isAsk).GetAsk().GetId(), done
	}
	t.Run("answered", func(t *testing.T) {
		id, done := ask(t.Context(), aProbe)
		reached := &agentv1.ReachList{Reached: []*agentv1.Reach{{Port: 22, Greeting: "SSH-2.0"}}}
		a.say(answer(&agentv1.Answer{Id: "of another time"}))
		a.say(answer(&agentv1.Answer{Id: id, Kind: &agentv1.Answer_Reached{Reached: reached}}))
		a.say(answer(&agentv1.Answer{Id: id}))
		if got := <-done; got.err != nil || got.answer.GetReached().GetReached()[0].GetGreeting() != "SSH-2.0" {
			t.Errorf("%v, error %v", got.answer, got.err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		id, done := ask(t.Context(), aProbe)
		a.say(answer(&agentv1.Answer{Id: id, Error: "no such thing"}))
		if got := <-done; !errs.Is(got.err, errs.Conflict) || got.err.Error() != "zk-1: no such thing" {
			t.Errorf("error %v", got.err)
		}
	})
	t.Run("not answered", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, done := ask(ctx, aProbe)
		if got := <-done; !errs.Is(got.err, errs.Timeout) || !strings.Contains(errs.HintOf(got.err), "agents upgrade zk-1") {
			t.Errorf("error %v, hint %q", got.err, errs.HintOf(got.err))
		}
	})
	t.Run("caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		_, done := ask(ctx, aProbe)
		cancel()
		if got := <-done; !errors.Is(got.err, context.Canceled) {
			t.Errorf("error %v", got.err)
		}
	})
	t.Run("reboot of another boot", func(t *testing.T) {
		_, err := m.Ask(t.Context(), a.id, &agentv1.Ask{Kind: &agentv1.Ask_Reboot{Reboot: &agentv1.Reboot{BootId: "boot-0"}}})
		if !errs.Is(err, errs.Conflict) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("too large", func(t *testing.T) {
		large := &agentv1.Preview{Components: []*agentv1.Component{{Body: make([]byte, maxAsk)}}}
		if _, err := m.Ask(t.Context(), a.id, &agentv1.Ask{Kind: &agentv1.Ask_Preview{Preview: large}}); !errs.Is(err, errs.Exhausted) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("session ends", func(t *testing.T) {
		_, done := ask(t.Context(), aProbe)
		if err := a.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if got := <-done; !errs.Is(got.err, errs.Canceled) {
			t.Errorf("error %v", got.err)
		}
	})
}

func TestFacts(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.mustConnect(m)
	report := func(sequence uint64, facts *agentv1.Facts) *provisionrv1.Facts {
		t.Helper()
		a.say(reportMessage(&agentv1.Report{Sequence: sequence, Facts: facts}))
		a.hear(func(m *agentv1.ServerMessage) bool { return m.GetReportAck().GetSequence() == sequence })
		return m.log.store.Read().Machine(a.id).GetStatus().GetFacts()
	}
	facts := &agentv1.Facts{OsRelease: "Debian", Kernel: "6.1", SshHostKeys: []string{"ssh-ed25519 AAAA"}, Cpus: 2, RebootRequired: strings.Repeat("x", 999)}
	if got := report(1, facts); got != nil {
		t.Errorf("at level 1: %v", got)
	}
	m.log.must(t, putMember(&provisionrv1.Member{Metadata: named("s1"), FeatureLevel: fsm.Level, AgentAddress: "192.0.2.1:7444"}), raise(fsm.Level))
	// What was said before is kept, and committed with the next report.
	got := report(2, nil)
	if got.GetOsRelease() != "Debian" || got.GetCpus() != 2 || len(got.GetSshHostKeys()) != 1 || len(got.GetRebootRequired()) != maxFact {
		t.Errorf("facts %v", got)
	}
	if report(3, facts); m.log.facts != 1 {
		t.Errorf("facts that did not change were committed %d times", m.log.facts)
	}
	if next := report(4, &agentv1.Facts{Cpus: 4}); next.GetCpus() != 4 || next.GetOsRelease() != "" {
		t.Errorf("facts %v", next)
	}
}

func TestAuditedDifferencesAreEvents(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.mustConnect(m)
	a.say(reportMessage(&agentv1.Report{Sequence: 1, Changes: []*agentv1.ResourceChange{
		{Resource: "file//etc/motd", Diff: "-old\n+new", Drift: true, Audit: true}, {Resource: "file//etc/issue", Diff: "-was\n+is", Drift: true},
	}}))
	a.hear(isAck)
	events := map[string]string{}
	for e := range m.log.store.Read().Events(0) {
		events[e.GetReason()] = e.GetMessage()
	}
	if got := events["AuditDifference"]; !strings.Contains(got, "file//etc/motd") || !strings.Contains(got, "-old\n+new") || !strings.Contains(got, "left as it is") {
		t.Errorf("audit %q", got)
	}
	if got := events["DriftRepaired"]; !strings.Contains(got, "-was\n+is") {
		t.Errorf("drift %q", got)
	}
}

func TestProgramOfAnAgentIsKnown(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.program = []byte{0xab, 0xcd}
	a.mustConnect(m)
	a.say(reportMessage(&agentv1.Report{Sequence: 1}))
	a.hear(isAck)
	if got := m.log.store.Read().Machine(a.id).GetStatus().GetAgent().GetProgram(); got != "abcd" {
		t.Errorf("program %q", got)
	}
}

// TestDesiredStateFollowsSecrets: a new value reaches the machines that refer to it at once.
func TestDesiredStateFollowsSecrets(t *testing.T) {
	m := raised(t, nil)
	m.log.must(t, putSecret("db", 1), apply(poolObject("app", &provisionrv1.PoolSpec{
		Size: 1, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}, Files: []*provisionrv1.File{{Path: "/etc/db", Secret: "db"}},
	})))
	a := m.join(t, m.log.launch(t, "app", 1))
	a.mustConnect(m)
	first := a.hearDesired()
	m.log.must(t, putSecret("db", 2))
	if next := a.hearDesired(); string(next.GetHash()) == string(first.GetHash()) {
		t.Error("a new revision is no new desired state")
	}
	m.eventually(t, "the secret has two revisions", func(s *state.Snapshot) bool { return s.Secret("db").GetRevision() == 2 })
}
