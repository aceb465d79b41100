package link_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/provisionr/provisionr/agent/agenttest"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func exec(id string, timeout time.Duration, command ...string) *agentv1.ServerMessage {
	return &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Exec{Exec: &agentv1.Exec{
		Id: id, Command: command, Stdin: []byte("in"), Timeout: durationpb.New(timeout),
	}}}
}

// ended is how a command ended.
type ended struct {
	stdout, stderr string
	exit           int32
	err            string
}

// collect reads messages until n commands have ended.
func collect(t *testing.T, s *agenttest.Session, n int) map[string]ended {
	t.Helper()
	all := make(map[string]ended)
	for n > 0 {
		o := s.Next(t).GetExecOutput()
		if o == nil {
			continue
		}
		e := all[o.Id]
		switch event := o.Event.(type) {
		case *agentv1.ExecOutput_Stdout:
			e.stdout += string(event.Stdout)
			if len(event.Stdout) > 32<<10 {
				t.Errorf("%d bytes in one piece", len(event.Stdout))
			}
		case *agentv1.ExecOutput_Stderr:
			e.stderr += string(event.Stderr)
		case *agentv1.ExecOutput_Exit:
			e.exit = event.Exit
			n--
		case *agentv1.ExecOutput_Error:
			e.err = event.Error
			n--
		}
		all[o.Id] = e
	}
	return all
}

func TestExec(t *testing.T) {
	s := agenttest.New(t, nil)
	start(t, newMachine(t, s))
	in := session(t, s)
	in.Give(t, exec("all", time.Minute, "sh", "-c", "cat; echo err >&2; exit 4"))
	in.Give(t, exec("much", time.Minute, "head", "-c", "1000000", "/dev/zero"))
	in.Give(t, exec("slow", 200*time.Millisecond, "sleep", "1000"))
	in.Give(t, exec("none", time.Minute, "no-such-program"))
	in.Give(t, exec("empty", time.Minute))
	got := collect(t, in, 5)
	if e := got["all"]; e != (ended{stdout: "in", stderr: "err\n", exit: 4}) {
		t.Errorf("all: %+v", e)
	}
	if e := got["much"]; len(e.stdout) != 1000000 || e.err != "" {
		t.Errorf("much: %d bytes, %s", len(e.stdout), e.err)
	}
	for id, want := range map[string]string{"slow": "killed", "none": "not found", "empty": "no command"} {
		if !strings.Contains(got[id].err, want) {
			t.Errorf("%s: %+v", id, got[id])
		}
	}
}

func TestExecBoundAndCancel(t *testing.T) {
	s := agenttest.New(t, nil)
	start(t, newMachine(t, s))
	in := session(t, s)
	ids := strings.Split("abcdefgh", "")
	for _, id := range ids {
		in.Give(t, exec(id, time.Minute, "sleep", "1000"))
	}
	in.Give(t, exec("ninth", time.Minute, "true"))
	if e := collect(t, in, 1)["ninth"]; !strings.Contains(e.err, "too many") {
		t.Errorf("ninth: %+v", e)
	}
	for _, id := range ids {
		in.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_ExecCancel{ExecCancel: &agentv1.ExecCancel{Id: id}}})
	}
	for id, e := range collect(t, in, len(ids)) {
		if !strings.Contains(e.err, "canceled") {
			t.Errorf("%s: %+v", id, e)
		}
	}
	in.Give(t, exec("again", time.Minute, "true"))
	if e := collect(t, in, 1)["again"]; e != (ended{}) {
		t.Errorf("again: %+v", e)
	}
}

func TestVerify(t *testing.T) {
	s := agenttest.New(t, nil)
	start(t, newMachine(t, s))
	in := session(t, s)
	in.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Verify{Verify: &agentv1.Verify{Id: "v1"}}})
	report := in.Next(t).GetReport()
	if report.GetMessage() != "verified" {
		t.Fatalf("report %v", report)
	}
	in.Give(t, ack(report.Sequence))
	if done := in.Next(t).GetVerifyDone(); done.GetId() != "v1" {
		t.Errorf("done %v", done)
	}
}
