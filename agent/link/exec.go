package link

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/provisionr/provisionr/agent/host"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// maxPiece is the most output that one message carries.
	maxPiece           = 32 << 10
	defaultExecTimeout = 5 * time.Minute
	maxExecTimeout     = 24 * time.Hour
)

// execs are the commands under way in a session.
type execs struct {
	mu      sync.Mutex
	running map[string]context.CancelFunc
}

func (e *execs) add(id string, cancel context.CancelFunc) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, twice := e.running[id]; twice || len(e.running) >= maxExecs {
		return false
	}
	if e.running == nil {
		e.running = make(map[string]context.CancelFunc)
	}
	e.running[id] = cancel
	return true
}

func (e *execs) remove(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.running, id)
}

func (e *execs) cancel(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if cancel := e.running[id]; cancel != nil {
		cancel()
	}
}

// exec starts a command for an operator. It ends at its timeout, when canceled, and with the session.
func (s *session) exec(ctx context.Context, e *agentv1.Exec) error {
	fail := func(message string) error {
		return s.say(ctx, output(e.Id, &agentv1.ExecOutput{Event: &agentv1.ExecOutput_Error{Error: message}}))
	}
	if len(e.Command) == 0 {
		return fail("no command")
	}
	timeout := defaultExecTimeout
	if e.Timeout != nil {
		timeout = min(e.Timeout.AsDuration(), maxExecTimeout)
	}
	run, cancel := context.WithCancel(ctx)
	if !s.execs.add(e.Id, cancel) {
		cancel()
		return fail("too many commands at once on this machine, or one with the same id")
	}
	s.Logger.Info("running a command for an operator", "id", e.Id, "program", e.Command[0])
	s.tasks.Go(func() {
		defer cancel()
		defer s.execs.remove(e.Id)
		stdout := pieces(func(p []byte) error {
			return s.say(run, output(e.Id, &agentv1.ExecOutput{Event: &agentv1.ExecOutput_Stdout{Stdout: p}}))
		})
		stderr := pieces(func(p []byte) error {
			return s.say(run, output(e.Id, &agentv1.ExecOutput{Event: &agentv1.ExecOutput_Stderr{Stderr: p}}))
		})
		command := host.Command{Path: e.Command[0], Args: e.Command[1:], Stdin: bytes.NewReader(e.Stdin), Timeout: timeout}
		exit, err := s.Runner.Stream(run, command, stdout, stderr)
		end := &agentv1.ExecOutput{Event: &agentv1.ExecOutput_Exit{Exit: int32(exit)}}
		if err != nil {
			end.Event = &agentv1.ExecOutput_Error{Error: err.Error()}
		}
		// Said to the session, not to the command's own context, which may have been canceled.
		_ = s.say(ctx, output(e.Id, end))
	})
	return nil
}

func output(id string, o *agentv1.ExecOutput) *agentv1.AgentMessage {
	o.Id = id
	return &agentv1.AgentMessage{Kind: &agentv1.AgentMessage_ExecOutput{ExecOutput: o}}
}

// pieces is a writer that hands on copies of at most maxPiece bytes.
type pieces func(p []byte) error

func (f pieces) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), maxPiece)
		if err := f(bytes.Clone(p[:n])); err != nil {
			return written, err
		}
		written += n
		p = p[n:]
	}
	return written, nil
}
