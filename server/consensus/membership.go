package consensus

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/provisionr/provisionr/internal/errs"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

const (
	// promoteInterval is how often the leader looks whether a new member has caught up.
	promoteInterval = 250 * time.Millisecond
	// promoteWithin is how many entries behind a new member gets its vote.
	promoteWithin = 256
	// statusTimeout bounds the question for a member's status.
	statusTimeout = 2 * time.Second
	// changeTimeout is how long Raft may take to accept a change of members.
	changeTimeout = 10 * time.Second
)

// AddMember adds a member to the Raft configuration, through the leader. It has no vote until it runs and has caught
// up, so that a member that never starts does not endanger the majority.
func (n *Node) AddMember(ctx context.Context, name, raftAddr string) error {
	_, err := toLeader(ctx, n, writeTimeout, "add server "+name,
		func(ctx context.Context) (struct{}, error) { return struct{}{}, n.AddServerLocal(ctx, name, raftAddr) },
		func(ctx context.Context, leader memberv1.MemberServiceClient) (struct{}, error) {
			_, err := leader.AddServer(ctx, &memberv1.AddServerRequest{Name: name, RaftAddress: raftAddr})
			return struct{}{}, err
		})
	return err
}

// RemoveMember takes a member out of the Raft configuration, through the leader. One that is not in it is no error.
func (n *Node) RemoveMember(ctx context.Context, name string) error {
	_, err := toLeader(ctx, n, writeTimeout, "remove server "+name,
		func(ctx context.Context) (struct{}, error) { return struct{}{}, n.RemoveServerLocal(ctx, name) },
		func(ctx context.Context, leader memberv1.MemberServiceClient) (struct{}, error) {
			_, err := leader.RemoveServer(ctx, &memberv1.RemoveServerRequest{Name: name})
			return struct{}{}, err
		})
	return err
}

// AddServerLocal adds a member as the leader.
func (n *Node) AddServerLocal(ctx context.Context, name, raftAddr string) error {
	if name == "" || raftAddr == "" {
		return errs.New(errs.Invalid, "a server needs a name and an address")
	}
	r := n.raft.Load()
	for _, s := range r.GetConfiguration().Configuration().Servers {
		switch {
		case string(s.ID) == name && string(s.Address) == raftAddr:
			return nil
		case string(s.Address) == raftAddr:
			return errs.New(errs.Conflict, "server %s has the address %s", s.ID, raftAddr).WithHint("remove it first, or give the new server another address")
		}
	}
	if n.suffrage(name) == raft.Voter {
		// A voter that moved keeps its vote.
		return n.changed(ctx, "add server "+name, r.AddVoter(raft.ServerID(name), raft.ServerAddress(raftAddr), 0, changeTimeout))
	}
	return n.changed(ctx, "add server "+name, r.AddNonvoter(raft.ServerID(name), raft.ServerAddress(raftAddr), 0, changeTimeout))
}

// RemoveServerLocal removes a member as the leader.
func (n *Node) RemoveServerLocal(ctx context.Context, name string) error {
	r := n.raft.Load()
	if r.State() != raft.Leader {
		return n.notLeader()
	}
	if n.suffrage(name) < 0 {
		return nil
	}
	if name == n.config.Name && n.alone() {
		return errs.New(errs.Conflict, "server %s is the only one", name)
	}
	return n.changed(ctx, "remove server "+name, r.RemoveServer(raft.ServerID(name), 0, changeTimeout))
}

// Servers returns the names of the Raft configuration as far as this member knows it, with a vote or without one yet.
func (n *Node) Servers() []string {
	var names []string
	for _, s := range n.raft.Load().GetConfiguration().Configuration().Servers {
		names = append(names, string(s.ID))
	}
	return names
}

func (n *Node) changed(ctx context.Context, what string, future raft.Future) error {
	if err := n.await(ctx, future); err != nil {
		return raftError(what, err)
	}
	return nil
}

// promote gives new members their votes while this member leads.
func (n *Node) promote() {
	tick := time.NewTicker(promoteInterval)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		if !n.IsLeader() {
			continue
		}
		r := n.raft.Load()
		for _, s := range r.GetConfiguration().Configuration().Servers {
			if s.Suffrage != raft.Nonvoter || !n.caughtUp(string(s.ID)) {
				continue
			}
			if err := n.changed(n.ctx, "give server "+string(s.ID)+" a vote", r.AddVoter(s.ID, s.Address, 0, changeTimeout)); err != nil {
				n.config.Logger.Warn("new member has no vote yet", "member", s.ID, "error", err)
				continue
			}
			n.config.Logger.Info("new member has caught up and votes", "member", s.ID)
		}
	}
}

func (n *Node) caughtUp(name string) bool {
	status, err := n.statusOf(n.ctx, name)
	return err == nil && status.GetAppliedIndex()+promoteWithin >= n.config.Store.Read().Version().GetIndex()
}

func (n *Node) statusOf(ctx context.Context, name string) (*provisionrv1.MemberStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	conn, err := n.config.Conns.Conn(ctx, name)
	if err != nil {
		return nil, err
	}
	return memberv1.NewMemberServiceClient(conn).Status(ctx, &memberv1.StatusRequest{})
}

// Members answers what this member knows of every member now, by name. It asks them all at once; one that does not
// answer is unreachable. Sessions of this member itself are left to the caller.
func (n *Node) Members(ctx context.Context) ([]*provisionrv1.MemberStatus, error) {
	snapshot := n.config.Store.Read()
	known := map[string]*provisionrv1.Member{}
	for m := range snapshot.Members() {
		known[m.GetMetadata().GetName()] = m
	}
	for _, s := range n.raft.Load().GetConfiguration().Configuration().Servers {
		if known[string(s.ID)] == nil {
			known[string(s.ID)] = &provisionrv1.Member{Metadata: &provisionrv1.Metadata{Name: string(s.ID)}, RaftAddress: string(s.Address)}
		}
	}
	leader := n.Leader()
	var mu sync.Mutex
	var all []*provisionrv1.MemberStatus
	var wg sync.WaitGroup
	for name, member := range known {
		wg.Go(func() {
			var status *provisionrv1.MemberStatus
			var err error
			if name == n.config.Name {
				status = n.Status()
			} else if status, err = n.statusOf(ctx, name); err != nil {
				status = &provisionrv1.MemberStatus{Health: "unreachable"}
			}
			// What this member knows of the configuration counts, not what each believes of itself.
			status.Member, status.Leader, status.Voter = member, name == leader, n.suffrage(name) == raft.Voter
			mu.Lock()
			defer mu.Unlock()
			all = append(all, status)
		})
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b *provisionrv1.MemberStatus) int {
		return strings.Compare(a.GetMember().GetMetadata().GetName(), b.GetMember().GetMetadata().GetName())
	})
	return all, nil
}
