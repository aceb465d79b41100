package agent

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/link"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func proof(machine string, state agentv1.ProofState) *agentv1.Proof {
	return &agentv1.Proof{Assumption: "peer.dns", Machine: machine, State: state}
}

func TestOnlyChangesOfProofsAreReported(t *testing.T) {
	const proven, failed = agentv1.ProofState_PROOF_STATE_PROVEN, agentv1.ProofState_PROOF_STATE_FAILED
	r := newReporter("test", link.NewOutbox(), func() time.Duration { return 0 })
	var got []*agentv1.Proof
	r.send = func(report *agentv1.Report) { got = append(got, report.Proofs...) }
	for _, step := range []struct {
		name string
		set  []*agentv1.Proof
		all  bool
		want string
	}{
		{"first", []*agentv1.Proof{proof("a", failed), proof("b", proven)}, false, "a:2 b:1"},
		{"same", []*agentv1.Proof{proof("a", failed), proof("b", proven)}, false, ""},
		{"changed", []*agentv1.Proof{proof("a", proven), proof("b", proven)}, false, "a:1"},
		{"after a new session", []*agentv1.Proof{proof("a", proven), proof("b", proven)}, false, "a:1 b:1"},
		{"only once", []*agentv1.Proof{proof("a", proven), proof("b", proven)}, false, ""},
		{"asked for", []*agentv1.Proof{proof("a", proven), proof("b", proven)}, true, "a:1 b:1"},
		{"gone", []*agentv1.Proof{proof("a", proven)}, false, "b:0"},
	} {
		got = nil
		if step.name == "after a new session" {
			r.connected()
		}
		r.proven(step.set, step.all)
		var words []string
		for _, p := range got {
			words = append(words, p.Machine+":"+string(rune('0'+p.State)))
		}
		if text := strings.Join(words, " "); text != step.want {
			t.Errorf("%s: %q, want %q", step.name, text, step.want)
		}
	}
}

func TestStatusTellsWhatIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		skew := time.Duration(0)
		r := newReporter("test", link.NewOutbox(), func() time.Duration { return skew })
		var messages []string
		r.send = func(report *agentv1.Report) { messages = append(messages, report.Message) }
		state := &desired.State{Hash: []byte("h"), PoolGeneration: 2}
		r.now("file//quick")
		r.now("package/all")
		time.Sleep(time.Minute)
		synctest.Wait()
		r.done(converge.Report{Epoch: state, Run: &converge.Run{}})
		r.done(converge.Report{Epoch: state, Run: &converge.Run{}})
		skew = -24 * time.Hour
		r.done(converge.Report{Epoch: state, Run: &converge.Run{}})
		r.done(converge.Report{Epoch: state, Run: &converge.Run{Outcomes: []converge.Outcome{{Resource: "x/y", Err: errors.New("no")}}}})
		want := "changing package/all||the machine's clock is 24h0m0s behind the servers'|x/y: no"
		if got := strings.Join(messages, "|"); got != want {
			t.Errorf("messages %q, want %q", got, want)
		}
	})
}

// A timer that fired just before the run ended must not have the last word.
func TestSlowIsNotToldAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporter("test", link.NewOutbox(), func() time.Duration { return 0 })
		var last *agentv1.Report
		r.send = func(report *agentv1.Report) { last = report }
		r.now("package/all")
		r.mu.Lock()
		time.Sleep(slow) // the timer's function waits for the lock
		r.stopBusy()
		r.put(&agentv1.Report{Converged: true}, nil, nil)
		r.mu.Unlock()
		synctest.Wait()
		if !last.Converged {
			t.Errorf("the last word is %v", last)
		}
	})
}

func TestMessagesCanBeEncoded(t *testing.T) {
	for name, text := range map[string]string{"cut": strings.Repeat("ö", 600) + strings.Repeat("x…", 600), "odd": "x" + strings.Repeat("ö", 600), "raw": "said \xff"} {
		if _, err := proto.Marshal(&agentv1.Report{Message: clip(text)}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
