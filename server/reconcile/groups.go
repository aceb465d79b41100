package reconcile

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// Times of firewall groups.
const (
	// firewallDrift is how long a group that was made right is trusted to be so still.
	firewallDrift = 10 * time.Minute
	// firewallRest gathers changes of a group whose pool is as it was, as those of other pools' machines.
	firewallRest = 2 * time.Second
	// groupsInterval is the time between lists of groups, groupsRetry after one that failed.
	groupsInterval = 5 * time.Minute
	groupsRetry    = 30 * time.Second
)

// EnsuredFirewall is a pool's group as this leader has made it.
type EnsuredFirewall struct {
	// Hash of the compiled firewall, and the pool that it was compiled from.
	Hash       string
	UID        string
	Generation uint64
	At         time.Time
}

// Groups is one list of a provider's firewall groups.
type Groups struct {
	// Known says that the list is complete.
	Known   bool
	Started time.Time
	// Pools that have a group.
	Pools []string
}

// firewalls has the group of every pool made as its firewall says, where the provider has groups, and those of pools that
// are no more deleted.
func (p *planner) firewalls() {
	for pool := range p.Snapshot.Pools() {
		name, providerName := pool.GetMetadata().GetName(), state.ProviderName(pool)
		listing := p.Listings[providerName]
		if !listing.Known || !listing.Grouped || pool.GetMetadata().GetDeleted() != nil || !p.usable(p.Snapshot.NetworkOf(pool)) {
			continue
		}
		f := FirewallOf(p.Snapshot, pool)
		uid, generation := pool.GetMetadata().GetUid(), pool.GetMetadata().GetGeneration()
		hash := firewallHash(uid, f)
		done, ok := p.Firewalls[name]
		switch {
		case !ok || done.UID != uid || done.Generation != generation:
		case done.Hash != hash && p.due(done.At.Add(firewallRest)):
		case p.due(done.At.Add(firewallDrift)):
		default:
			continue
		}
		p.add(Action{
			Op: EnsureFirewall, Pool: name, Provider: providerName, Generation: generation, Firewall: &f,
			Ensured: &EnsuredFirewall{Hash: hash, UID: uid, Generation: generation},
		})
	}
	for _, name := range slices.Sorted(maps.Keys(p.Groups)) {
		for _, pool := range p.Groups[name].Pools {
			if p.Groups[name].Known && p.groupless(name, pool) {
				p.add(Action{Op: DeleteFirewall, Pool: pool, Provider: name})
			}
		}
	}
}

// groupless says that nothing can need the group of a pool at a provider: the pool is no more, or elsewhere, and so are its
// machines, for as long as one may still appear.
func (p *planner) groupless(providerName, name string) bool {
	listing := p.Listings[providerName]
	if !listing.Known || ownsGroup(p.Snapshot, providerName, name) {
		return false
	}
	for m := range p.Snapshot.MachinesOf(name) {
		if m.GetSpec().GetProvider() != providerName {
			continue
		}
		if m.GetStatus().GetPhase() != gone || !p.due(m.GetStatus().GetSince().AsTime().Add(listing.Capabilities.SettleWindow)) {
			return false
		}
	}
	return true
}

// ownsGroup says that the pool exists and has its machines from the provider.
func ownsGroup(s *state.Snapshot, providerName, name string) bool {
	pool := s.Pool(name)
	return pool != nil && state.ProviderName(pool) == providerName
}

// grouped is the outcome of one list of groups.
type grouped struct {
	provider string
	groups   Groups
}

// listGroups lists a provider's firewall groups until ctx ends: at first at once, then at each interval and when kicked.
func (t *term) listGroups(ctx context.Context, name string, kick <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-kick:
		case <-timer.C:
		}
		started := time.Now()
		pools, err := t.groupsOnce(ctx, name)
		next := groupsInterval
		if err != nil {
			next = groupsRetry
		}
		select {
		case t.results <- result{groups: &grouped{name, Groups{Known: err == nil, Started: started, Pools: pools}}, at: started, err: err}:
		case <-ctx.Done():
			return
		}
		timer.Reset(next)
	}
}

func (t *term) groupsOnce(ctx context.Context, name string) ([]string, error) {
	p, err := t.Providers.Provider(name)
	if err != nil {
		return nil, err
	}
	groups, ok := p.(provider.FirewallGroups)
	if !ok {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.ListTimeout)
	defer cancel()
	return groups.Firewalls(ctx)
}

// takeGroups makes a list of groups the newest of its provider.
func (t *term) takeGroups(g *grouped, err error) {
	a := t.accounts[g.provider]
	if a == nil {
		return
	}
	if err != nil && a.groups.Known {
		t.Logger.Warn("cannot list the provider's firewall groups", "provider", g.provider, "error", err)
	}
	a.groups = g.groups
	slices.Sort(a.groups.Pools)
}

// groupsOf finds a provider's firewall groups and waits for a quorum to confirm the leadership.
func (c caller) groupsOf(ctx context.Context, a Action) (provider.FirewallGroups, error) {
	p, err := c.prepare(ctx, a)
	if err != nil {
		return nil, err
	}
	groups, ok := p.(provider.FirewallGroups)
	if !ok {
		return nil, provider.Errorf(provider.Unknown, "provider %s has no firewall groups any more", a.Provider)
	}
	return groups, nil
}

// ensureFirewall makes a pool's group right. Its machines wait for that, so a person hears of it where it cannot be.
func (c caller) ensureFirewall(ctx context.Context, a Action) result {
	ctx, cancel := context.WithTimeout(ctx, ensureTimeout)
	defer cancel()
	groups, err := c.groupsOf(ctx, a)
	if err != nil {
		return result{err: err}
	}
	pool := c.Store.Read().Pool(a.Pool)
	if pool.GetMetadata().GetUid() != a.Ensured.UID || pool.GetMetadata().GetGeneration() != a.Generation || pool.GetMetadata().GetDeleted() != nil {
		return result{err: errs.New(errs.Canceled, "the pool has changed: %w", context.Canceled)}
	}
	c.Hook("ensure firewall.before")
	err = groups.EnsureFirewall(ctx, *a.Firewall)
	c.Hook("ensure firewall.called")
	if err != nil && ctx.Err() == nil {
		return result{err: err, event: &provisionrv1.Event{
			Reason: "FirewallFailed", Warning: true, Pool: a.Pool, Message: kindName(err) + ": the firewall group of pool " + a.Pool + ": " + err.Error(),
		}}
	}
	return result{err: err}
}

// deleteFirewall deletes a group, unless its pool exists again by now.
func (c caller) deleteFirewall(ctx context.Context, a Action) error {
	ctx, cancel := context.WithTimeout(ctx, ensureTimeout)
	defer cancel()
	groups, err := c.groupsOf(ctx, a)
	if err != nil {
		return err
	}
	if ownsGroup(c.Store.Read(), a.Provider, a.Pool) {
		return errs.New(errs.Canceled, "the pool exists again: %w", context.Canceled)
	}
	c.Hook("delete firewall.before")
	err = groups.DeleteFirewall(ctx, a.Pool)
	c.Hook("delete firewall.called")
	return err
}
