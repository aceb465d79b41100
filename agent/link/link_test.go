package link_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/agent/agenttest"
	"github.com/provisionr/provisionr/agent/cache"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/identity"
	"github.com/provisionr/provisionr/agent/link"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// rig is an agent's link on a machine of its own.
type rig struct {
	host     host.Host
	log      agenttest.Log
	outbox   *link.Outbox
	states   chan *desired.State
	identity *identity.Identity
	link     *link.Link
	// answered is sent to when an answer was given; asks of nothing wait for hang.
	answered, hang chan struct{}
}

// ask answers a reboot with its reason.
func (r *rig) ask(ctx context.Context, ask *agentv1.Ask) (*agentv1.Answer, func()) {
	if reboot := ask.GetReboot(); reboot != nil {
		return &agentv1.Answer{Error: "asked " + reboot.Reason}, func() { r.answered <- struct{}{} }
	}
	select {
	case <-ctx.Done():
	case <-r.hang:
	}
	return &agentv1.Answer{Error: "hung"}, nil
}

// start connects a machine that was bootstrapped until the test ends, or stop is called.
func start(t *testing.T, h host.Host) (r *rig, stop func()) {
	t.Helper()
	r = &rig{host: h, outbox: link.NewOutbox(), states: make(chan *desired.State, 16), answered: make(chan struct{}, 1), hang: make(chan struct{})}
	logger := r.log.Logger()
	var err error
	if r.identity, err = identity.Open(identity.Config{Host: h, Logger: logger}); err != nil {
		t.Fatal(err)
	}
	store, err := cache.Open(filepath.Join(h.Root, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := link.New(link.Config{
		Identity: r.identity, Store: store, Outbox: r.outbox, Runner: host.Processes{}, Logger: logger, AgentVersion: "test", Program: []byte("hash"), BootID: "boot",
		Desired: func(s *desired.State) { r.states <- s }, Ask: r.ask,
		Verify: func(context.Context) { r.outbox.Put(&agentv1.Report{Message: "verified"}) },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.link = l
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return r, stop
}

func newMachine(t *testing.T, s *agenttest.Server) host.Host {
	t.Helper()
	h, _, _ := hosttest.New(t)
	s.Bootstrap(t, h, agenttest.Token)
	return h
}

func session(t *testing.T, s *agenttest.Server) *agenttest.Session {
	t.Helper()
	return receive(t, s.Sessions)
}

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	panic("unreachable")
}

func give(t *testing.T, s *agenttest.Session, d *agentv1.Desired) {
	t.Helper()
	s.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Desired{Desired: d}})
}

func component(c *agentv1.Component) *agentv1.ServerMessage {
	return &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Component{Component: c}}
}

func ack(sequence uint64) *agentv1.ServerMessage {
	return &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_ReportAck{ReportAck: &agentv1.ReportAck{Sequence: sequence}}}
}

func TestJoinAndReceiveDesiredState(t *testing.T) {
	s := agenttest.New(t, nil)
	r, _ := start(t, newMachine(t, s))
	first := session(t, s)
	if h := first.Hello; h.BootId != "boot" || h.AgentVersion != "test" || string(h.Program) != "hash" || len(h.Have) != 0 || h.Clock == nil {
		t.Errorf("hello %v", h)
	}
	d, components := agenttest.Desired(t, &agentv1.PoolComponent{Variables: map[string]string{"v": "1"}})
	give(t, first, d)
	if want := first.Next(t).GetWant(); len(want.GetHashes()) != 2 {
		t.Fatalf("want %v", want)
	}
	for _, c := range components {
		first.Give(t, component(c))
	}
	if got := receive(t, r.states); got.Pool.Variables["v"] != "1" {
		t.Errorf("state %v", got.Pool)
	}

	// A change of the pool brings only the pool.
	d, components = agenttest.Desired(t, &agentv1.PoolComponent{Variables: map[string]string{"v": "2"}})
	give(t, first, d)
	if want := first.Next(t).GetWant(); len(want.GetHashes()) != 1 || string(want.Hashes[0]) != string(components[1].Hash) {
		t.Fatalf("want %v", want)
	}
	first.Give(t, component(components[1]))
	if got := receive(t, r.states); got.Pool.Variables["v"] != "2" {
		t.Errorf("state %v", got.Pool)
	}

	// After a break nothing is asked for: all is in the cache.
	first.End(nil)
	second := session(t, s)
	if len(second.Hello.Have) != 2 {
		t.Errorf("have %d components", len(second.Hello.Have))
	}
	give(t, second, d)
	receive(t, r.states)
	s.Lock()
	defer s.Unlock()
	if s.Joins != 1 {
		t.Errorf("joined %d times", s.Joins)
	}
}

func TestUnusableStateIsReported(t *testing.T) {
	s := agenttest.New(t, nil)
	r, _ := start(t, newMachine(t, s))
	in := session(t, s)
	d, components := agenttest.Desired(t, &agentv1.PoolComponent{Services: []*agentv1.Service{{Name: "no ending"}}})
	give(t, in, d)
	in.Next(t)
	for _, c := range components {
		in.Give(t, component(c))
	}
	if report := in.Next(t).GetReport(); report.GetConverged() || !strings.Contains(report.GetMessage(), "no ending") {
		t.Errorf("report %v", report)
	}
	d, components = agenttest.Desired(t, &agentv1.PoolComponent{})
	give(t, in, d)
	in.Next(t)
	in.Give(t, component(components[1]))
	if got := receive(t, r.states); got.Pool.Name != "p" {
		t.Errorf("state %v", got)
	}
}

func TestReportSurvivesServer(t *testing.T) {
	s := agenttest.New(t, nil)
	r, _ := start(t, newMachine(t, s))
	in := session(t, s)
	r.outbox.Put(&agentv1.Report{PoolGeneration: 1, Changes: []*agentv1.ResourceChange{{Resource: "file//a"}}})
	if got := in.Next(t).GetReport(); got.GetPoolGeneration() != 1 {
		t.Fatalf("report %v", got)
	}
	s.Stop()
	r.outbox.Put(&agentv1.Report{PoolGeneration: 2, Changes: []*agentv1.ResourceChange{{Resource: "file//b"}}})
	s.Listen(t, s.Addr)
	in = session(t, s)
	report := in.Next(t).GetReport()
	if report.GetPoolGeneration() != 2 || len(report.GetChanges()) != 2 {
		t.Fatalf("report %v", report)
	}
	in.Give(t, ack(report.Sequence))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.outbox.Flush(ctx); err != nil {
		t.Error(err)
	}
}

func TestOtherServerIsFound(t *testing.T) {
	a := agenttest.New(t, nil)
	b := agenttest.New(t, a.Authority)
	a.Trust.Endpoints = []string{a.Addr, b.Addr}
	b.Trust = a.Trust
	start(t, newMachine(t, a))
	var next *agenttest.Server
	select {
	case <-a.Sessions:
		a.Stop()
		next = b
	case <-b.Sessions:
		b.Stop()
		next = a
	case <-time.After(patience):
		t.Fatal("no session")
	}
	if in := session(t, next); in.Hello == nil {
		t.Error("no hello")
	}
}

func TestTokenRefused(t *testing.T) {
	s := agenttest.New(t, nil)
	s.Refuse = errs.New(errs.Denied, "the join token is used").WithHint("replace the machine")
	r, _ := start(t, newMachine(t, s))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	line := r.log.Wait(ctx, t, "the join token is used", "replace the machine")
	if strings.Contains(r.log.String(), agenttest.Token) {
		t.Errorf("the token is in the log: %s", line)
	}
	s.Lock()
	s.Refuse = nil
	s.Unlock()
	session(t, s)
}

func TestForeignServerIsRefused(t *testing.T) {
	right, wrong := agenttest.New(t, nil), agenttest.New(t, nil)
	right.Addr = wrong.Addr // the pins of one, the address of the other
	r, _ := start(t, newMachine(t, right))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r.log.Wait(ctx, t, "no certificate in its chain has a pinned key")
	wrong.Lock()
	defer wrong.Unlock()
	if wrong.Joins != 0 || r.identity.Joined() {
		t.Error("joined a foreign server")
	}
}

func TestRenewsOverTheSession(t *testing.T) {
	s := agenttest.New(t, nil)
	s.TTL = time.Minute // more than half of its life is over, for it is back-dated by an hour
	r, _ := start(t, newMachine(t, s))
	session(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r.log.Wait(ctx, t, "certificate renewed")
	s.Lock()
	defer s.Unlock()
	if s.Keys[0] != s.Keys[len(s.Keys)-1] {
		t.Error("renewed with another key")
	}
}

func TestExpired(t *testing.T) {
	for _, tt := range []struct {
		name string
		// later is how far the server's clock moves while the machine is off.
		later time.Duration
		line  string
	}{
		{"by a day", 50 * time.Hour, "certificate renewed"},
		{"beyond the grace", 24*time.Hour + agenttest.Grace + time.Hour, "cannot keep a session"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := agenttest.New(t, nil)
			h := newMachine(t, s)
			_, stop := start(t, h)
			session(t, s)
			stop()
			s.Lock()
			s.Now = func() time.Time { return time.Now().Add(tt.later) }
			s.Unlock()
			r, _ := start(t, h)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r.log.Wait(ctx, t, tt.line)
		})
	}
}

// TestClockWrongByADay joins a server whose certificate begins tomorrow, as seen from the machine.
func TestClockWrongByADay(t *testing.T) {
	s := agenttest.New(t, nil)
	s.SetClock(t, 24*time.Hour)
	h := newMachine(t, s)
	r, stop := start(t, h)
	session(t, s)
	if skew := r.identity.Skew(); skew > -23*time.Hour || skew < -25*time.Hour {
		t.Errorf("skew %s", skew)
	}
	stop()
	// The correction is kept over a restart of the agent.
	start(t, h)
	session(t, s)
}

// TestClockPutRight starts an agent that remembers a correction which no longer holds.
func TestClockPutRight(t *testing.T) {
	s := agenttest.New(t, nil)
	h := newMachine(t, s)
	_, stop := start(t, h)
	session(t, s)
	stop()
	const file = "/var/lib/provisionr-agent/identity/state.json"
	data, err := h.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wrong := fmt.Sprintf(`"clock_offset_ns": %d`, 400*24*time.Hour)
	data = bytes.Replace(data, []byte(`"clock_offset_ns": 0`), []byte(wrong), 1)
	if !bytes.Contains(data, []byte(wrong)) {
		t.Fatalf("no offset in %s", data)
	}
	if err := h.WriteFile(file, data, host.Attributes{}); err != nil {
		t.Fatal(err)
	}
	start(t, h)
	session(t, s)
}
