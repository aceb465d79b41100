package api

import (
	"context"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

const (
	defaultExecTimeout = 60 * time.Second
	maxExecTimeout     = time.Hour
	// execGrace is what a machine has beyond the command's timeout to say that it was cut off.
	execGrace = 15 * time.Second
)

// selected returns the running machines that a selector names, of which there is one at least.
func (s *machineService) selected(ctx context.Context, selector string) ([]*provisionrv1.Machine, error) {
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	machines, err := selectMachines(snapshot, selector)
	if err == nil && len(machines) == 0 {
		err = errs.New(errs.NotFound, "cannot find a running machine in %q", selector)
	}
	return machines, err
}

// Exec streams what the machines' commands print, mixed as it comes, each message with its machine's name. That one
// machine fails is a message of the stream, not the call's error.
func (s *machineService) Exec(req *provisionrv1.ExecRequest, stream grpc.ServerStreamingServer[provisionrv1.ExecResponse]) error {
	timeout, err := bounded("timeout", req.Timeout, defaultExecTimeout, maxExecTimeout)
	if err != nil {
		return err
	}
	machines, err := s.selected(stream.Context(), req.Selector)
	if err != nil {
		return err
	}
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	order := &provisionrv1.ExecRequest{
		Selector: req.Selector, Command: req.Command, Stdin: req.Stdin, Timeout: durationpb.New(timeout),
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	out := &sender[provisionrv1.ExecResponse]{stream: stream, fail: cancel}
	fanOut(machines, func(m *provisionrv1.Machine) {
		if ctx.Err() == nil {
			s.execOn(ctx, m, order, timeout+execGrace, out)
		}
	})
	return context.Cause(ctx)
}

// execOn runs the command on one machine and sends what it prints.
func (s *machineService) execOn(ctx context.Context, m *provisionrv1.Machine, req *provisionrv1.ExecRequest, most time.Duration, out *sender[provisionrv1.ExecResponse]) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	slot := m.GetSpec().GetSlot()
	send := func(r *provisionrv1.ExecResponse) error {
		r.Machine = slot
		return out.send(r)
	}
	err := s.Agents.Exec(ctx, m.GetMetadata().GetName(), slot, req, send)
	if err == nil {
		return
	}
	// An error of the stream itself has reached the sender already.
	_ = send(&provisionrv1.ExecResponse{Event: &provisionrv1.ExecResponse_Error{Error: explained(err)}})
}

// sender lets several machines send on one stream, and ends all when one cannot: the client is gone.
type sender[T any] struct {
	mu     sync.Mutex
	stream grpc.ServerStreamingServer[T]
	fail   context.CancelCauseFunc
}

func (s *sender[T]) send(r *T) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.stream.Send(r)
	if err != nil {
		s.fail(err)
	}
	return err
}

func cutPool(selector string) (name string, ok bool) { return strings.CutPrefix(selector, "pool/") }

// validHead returns the first bytes of a text, as UTF-8.
func validHead(s string, most int) string {
	return strings.ToValidUTF8(s[:min(len(s), most)], "\uFFFD")
}

// validTail returns the last bytes of a text, as UTF-8, which a protobuf string must be.
func validTail(s string, most int) string {
	if len(s) > most {
		s = s[len(s)-most:]
		for len(s) > 0 && !utf8.RuneStart(s[0]) {
			s = s[1:]
		}
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
