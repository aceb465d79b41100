package fleet_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/fleet"
)

// hub is the sessions of one member, and its MemberService.
type hub struct {
	memberv1.UnimplementedMemberServiceServer
	mu       sync.Mutex
	revision uint64
	machines []string
	changed  chan struct{}
	asked    chan bool
}

func newHub(machines ...string) *hub {
	return &hub{revision: 1, machines: machines, changed: make(chan struct{}), asked: make(chan bool, 64)}
}

type local struct{ *hub }

func (l local) Sessions() (uint64, []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.revision, l.machines
}

func (l local) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l local) Exec(_ context.Context, id, slot string, _ *provisionrv1.ExecRequest, send func(*provisionrv1.ExecResponse) error) error {
	return send(&provisionrv1.ExecResponse{Machine: slot, Event: &provisionrv1.ExecResponse_Stdout{Stdout: []byte("here " + id)}})
}

func (l local) Verify(context.Context, string) error { return nil }

func (h *hub) set(machines ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.machines = machines
	h.revision++
	close(h.changed)
	h.changed = make(chan struct{})
}

type member struct{ *hub }

func (m member) Sessions(_ context.Context, r *memberv1.SessionsRequest) (*memberv1.SessionsResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	unchanged := r.GetRevision() == m.revision
	select {
	case m.asked <- unchanged:
	default:
	}
	if unchanged {
		return &memberv1.SessionsResponse{Revision: m.revision, Unchanged: true}, nil
	}
	return &memberv1.SessionsResponse{Revision: m.revision, Machines: m.machines}, nil
}

func (l local) Ask(_ context.Context, id string, _ *agentv1.Ask) (*agentv1.Answer, error) {
	return &agentv1.Answer{Id: "here " + id}, nil
}

func (m member) Ask(_ context.Context, r *memberv1.AskRequest) (*agentv1.Answer, error) {
	if r.GetTimeout().AsDuration() > 0 {
		return nil, errs.New(errs.Conflict, "within %s", r.GetTimeout().AsDuration().Round(time.Hour))
	}
	return &agentv1.Answer{Id: "there " + r.GetMachineId() + r.GetAsk().GetReboot().GetReason()}, nil
}

func (m member) Exec(r *memberv1.ExecRequest, stream grpc.ServerStreamingServer[provisionrv1.ExecResponse]) error {
	return stream.Send(&provisionrv1.ExecResponse{
		Machine: r.GetSlot(), Event: &provisionrv1.ExecResponse_Stdout{Stdout: []byte("there " + r.GetMachineId())},
	})
}

func (m member) Verify(context.Context, *memberv1.VerifyRequest) (*memberv1.VerifyResponse, error) {
	return nil, errs.New(errs.Timeout, "no proof came")
}

type conns map[string]*grpc.ClientConn

func (c conns) Conn(_ context.Context, name string) (*grpc.ClientConn, error) {
	if conn := c[name]; conn != nil {
		return conn, nil
	}
	return nil, errors.New("unreachable")
}

func TestFleet(t *testing.T) {
	here, there := newHub("m-1"), newHub("m-2")
	server := grpc.NewServer()
	memberv1.RegisterMemberServiceServer(server, member{there})
	listener := bufconn.Listen(1 << 16)
	go func() { _ = server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///s2", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	members := []string{"s1", "s2"}
	sessions, err := fleet.New(fleet.Config{
		Self: "s1", Local: local{here}, Conns: conns{"s2": conn}, Interval: 20 * time.Millisecond,
		Members: func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(members)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if machines, complete := sessions.Connected(); complete || !machines["m-1"] || machines["m-2"] {
		t.Errorf("before any question: %v, complete %v", machines, complete)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sessions.Run(ctx) }()
	await := func(what string, condition func(map[string]bool, bool) bool) {
		t.Helper()
		timeout := time.After(10 * time.Second)
		for {
			changed := sessions.Changed()
			machines, complete := sessions.Connected()
			if condition(machines, complete) {
				return
			}
			select {
			case <-changed:
			case <-time.After(20 * time.Millisecond):
			case <-timeout:
				t.Fatalf("%s: %v, complete %v", what, machines, complete)
			}
		}
	}
	await("both members", func(m map[string]bool, complete bool) bool { return complete && m["m-1"] && m["m-2"] })
	for id, want := range map[string]string{"m-1": "here m-1", "m-2": "there m-2"} {
		var got string
		err := sessions.Exec(ctx, id, "web-1", &provisionrv1.ExecRequest{}, func(r *provisionrv1.ExecResponse) error {
			got = string(r.GetStdout())
			return nil
		})
		if err != nil || got != want {
			t.Errorf("Exec on %s: %q, %v; want %q", id, got, err, want)
		}
	}
	if err := sessions.Exec(ctx, "m-9", "web-9", &provisionrv1.ExecRequest{}, nil); !errs.Is(err, errs.Unavailable) {
		t.Errorf("Exec on a machine without a session: %v", err)
	}
	if err := sessions.Verify(ctx, "m-1"); err != nil {
		t.Errorf("Verify here: %v", err)
	}
	if err := sessions.Verify(ctx, "m-2"); !errs.Is(err, errs.Timeout) {
		t.Errorf("Verify there: %v", err)
	}
	question := &agentv1.Ask{Kind: &agentv1.Ask_Reboot{Reboot: &agentv1.Reboot{Reason: " why"}}}
	for id, want := range map[string]string{"m-1": "here m-1", "m-2": "there m-2 why"} {
		if answer, err := sessions.Ask(ctx, id, question); err != nil || answer.GetId() != want {
			t.Errorf("Ask %s: %v, %v; want %q", id, answer, err, want)
		}
	}
	if _, err := sessions.Ask(ctx, "m-9", question); !errs.Is(err, errs.Unavailable) {
		t.Errorf("Ask a machine without a session: %v", err)
	}
	hour, stop := context.WithTimeout(ctx, time.Hour)
	if _, err := sessions.Ask(hour, "m-2", question); !errs.Is(err, errs.Conflict) || err.Error() != "within 1h0m0s" {
		t.Errorf("Ask there, bounded: %v", err)
	}
	stop()
	for unchanged := range there.asked {
		if unchanged {
			break
		}
	}
	there.set("m-3")
	await("a change elsewhere", func(m map[string]bool, complete bool) bool { return complete && !m["m-2"] && m["m-3"] })
	here.set()
	await("a change here", func(m map[string]bool, _ bool) bool { return !m["m-1"] })
	server.Stop()
	await("a member that is gone", func(m map[string]bool, complete bool) bool { return !complete && !m["m-3"] })
	mu.Lock()
	members = members[:1]
	mu.Unlock()
	await("a member that was removed", func(_ map[string]bool, complete bool) bool { return complete })
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run returned %v", err)
	}
	_ = conn.Close()
}
