package fleet

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Local is the agents connected to this member.
type Local interface {
	// Sessions returns their machine ids and a number that changes with them.
	Sessions() (revision uint64, machineIDs []string)
	Exec(ctx context.Context, machineID, slot string, req *provisionrv1.ExecRequest, send func(*provisionrv1.ExecResponse) error) error
	Verify(ctx context.Context, machineID string) error
	Ask(ctx context.Context, machineID string, ask *agentv1.Ask) (*agentv1.Answer, error)
	// Changed is closed at the next change.
	Changed() <-chan struct{}
}

// Config of a Fleet. All fields without a default are required.
type Config struct {
	// Self is this member's name.
	Self string
	// Members returns the names of all members, this one included.
	Members func() []string
	Local   Local
	// Conns reaches the other members.
	Conns interface {
		Conn(ctx context.Context, member string) (*grpc.ClientConn, error)
	}
	// Interval between questions to a member, and the bound of one. Default: 1s.
	Interval time.Duration
}

// Fleet knows which agents are connected to any member, by asking the others again and again. An answer counts for five
// intervals.
type Fleet struct {
	config Config

	mu      sync.Mutex
	members map[string]view
	changed chan struct{}
}

type view struct {
	revision uint64
	machines []string
	at       time.Time
}

// New returns sessions that are incomplete until Run has asked every member.
func New(c Config) (*Fleet, error) {
	if c.Self == "" || c.Members == nil || c.Local == nil || c.Conns == nil {
		return nil, errs.New(errs.Internal, "cannot gather sessions: a required field of the configuration is missing")
	}
	if c.Interval == 0 {
		c.Interval = time.Second
	}
	return &Fleet{config: c, members: map[string]view{}, changed: make(chan struct{})}, nil
}

// Run asks until ctx ends.
func (f *Fleet) Run(ctx context.Context) error {
	tick := time.NewTicker(f.config.Interval)
	defer tick.Stop()
	for {
		local := f.config.Local.Changed()
		f.set(f.config.Self, f.localSessions())
		f.ask(ctx)
		// Local changes are passed on at once, between the ticks too.
		for again := true; again; {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				again = false
			case <-local:
				local = f.config.Local.Changed()
				f.set(f.config.Self, f.localSessions())
			}
		}
	}
}

func (f *Fleet) localSessions() view {
	revision, machines := f.config.Local.Sessions()
	return view{revision: revision, machines: machines, at: time.Now()}
}

// ask asks all other members at the same time.
func (f *Fleet) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, f.config.Interval)
	defer cancel()
	current := map[string]bool{}
	var all sync.WaitGroup
	for _, name := range f.config.Members() {
		current[name] = true
		if name != f.config.Self {
			all.Go(func() { f.askMember(ctx, name) })
		}
	}
	all.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.members, func(name string, _ view) bool { return name != f.config.Self && !current[name] })
}

func (f *Fleet) askMember(ctx context.Context, name string) {
	conn, err := f.config.Conns.Conn(ctx, name)
	if err != nil {
		return
	}
	f.mu.Lock()
	known := f.members[name]
	f.mu.Unlock()
	asked := time.Now()
	answer, err := memberv1.NewMemberServiceClient(conn).Sessions(ctx, &memberv1.SessionsRequest{Revision: known.revision})
	if err != nil {
		return
	}
	if answer.GetUnchanged() {
		f.set(name, view{revision: known.revision, machines: known.machines, at: asked})
		return
	}
	f.set(name, view{revision: answer.GetRevision(), machines: answer.GetMachines(), at: asked})
}

func (f *Fleet) set(name string, s view) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, known := f.members[name]
	f.members[name] = s
	if !known || before.revision != s.revision {
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// Connected returns the connected machines. Complete is false where some member's answer is missing or too old.
func (f *Fleet) Connected() (machines map[string]bool, complete bool) {
	machines, complete = map[string]bool{}, true
	for _, name := range f.config.Members() {
		f.mu.Lock()
		s, known := f.members[name]
		f.mu.Unlock()
		if name == f.config.Self {
			s, known = f.localSessions(), true
		}
		if !known || time.Since(s.at) > 5*f.config.Interval {
			complete = false
			continue
		}
		for _, id := range s.machines {
			machines[id] = true
		}
	}
	return machines, complete
}

// Changed is closed at the next change.
func (f *Fleet) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// holder returns the member that has the machine's session.
func (f *Fleet) holder(machineID string) (string, error) {
	if slices.Contains(f.localSessions().machines, machineID) {
		return f.config.Self, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, s := range f.members {
		if name != f.config.Self && slices.Contains(s.machines, machineID) {
			return name, nil
		}
	}
	return "", errs.New(errs.Unavailable, "the agent of machine %s is not connected", machineID).
		WithHint("`provisionr describe machine %s` says why; its console may say more", machineID)
}
