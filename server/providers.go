package server

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/spec"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// rebuildAfter is how long to wait before a provider that could not be made is tried again: a person may have installed what
// it needs.
const rebuildAfter = 30 * time.Second

// keeper keeps the providers that run on this member as the Provider objects say: those of clouds on every member, for each
// may come to lead; those bound to a host on their owner alone. It follows the objects while the member runs.
//
// One goroutine calls sync at a time. The registry may be read at any time.
type keeper struct {
	self     string
	store    *state.Store
	registry *provider.Registry
	// build makes the provider of an object.
	build func(*provisionrv1.Provider) (provider.Provider, error)
	// say has the cluster told that a provider cannot be made. It is best effort.
	say func(ctx context.Context, p *provisionrv1.Provider, err error)
	log *slog.Logger

	kept map[string]*kept
}

// kept is a provider that runs here.
type kept struct {
	spec *provisionrv1.ProviderSpec
	// stop ends what the provider runs beside its calls, and waits for it.
	stop func()
	// err says why it could not be made.
	err error
}

// runner is a provider that works beside its calls.
type runner interface {
	Run(ctx context.Context) error
}

// run follows the objects until ctx ends.
func (k *keeper) run(ctx context.Context) error {
	defer k.stopAll()
	for {
		changed := k.store.Watch(state.TableProviders)
		var again <-chan time.Time
		if !k.sync(ctx, k.store.Read()) {
			again = time.After(rebuildAfter)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-again:
		}
	}
}

// sync makes what is missing or has changed and removes what is not to run here. It reports whether all could be made.
func (k *keeper) sync(ctx context.Context, s *state.Snapshot) (complete bool) {
	if k.kept == nil {
		k.kept = map[string]*kept{}
	}
	complete = true
	wanted := map[string]bool{}
	for p := range s.Providers() {
		name, b := p.GetMetadata().GetName(), builderOf(p)
		if b.build == nil || b.bound && spec.Owner(p) != k.self {
			continue
		}
		wanted[name] = true
		if old := k.kept[name]; old == nil || old.err != nil || !proto.Equal(old.spec, p.GetSpec()) {
			k.replace(ctx, p, b)
		}
		complete = complete && k.kept[name].err == nil
	}
	for name, old := range k.kept {
		if !wanted[name] {
			k.registry.Set(name, nil)
			old.stop()
			delete(k.kept, name)
			k.log.Info("provider removed", "provider", name)
		}
	}
	return complete
}

// replace stops the provider that ran for the object before it makes another: two would share a host.
func (k *keeper) replace(ctx context.Context, p *provisionrv1.Provider, b builder) {
	name := p.GetMetadata().GetName()
	old := k.kept[name]
	if old != nil {
		k.registry.Set(name, nil)
		old.stop()
	}
	made, err := k.build(p)
	if err != nil {
		caps := provider.Capabilities{HostBound: b.bound}
		if b.capabilities != nil {
			caps = b.capabilities(p)
		}
		k.kept[name] = &kept{spec: p.GetSpec(), stop: func() {}, err: err}
		k.registry.Set(name, broken{err, caps})
		if old == nil || old.err == nil || old.err.Error() != err.Error() {
			k.log.Error("cannot make provider", "provider", name, "kind", spec.ProviderKind(p), "err", err)
			k.say(ctx, p, err)
		}
		return
	}
	k.kept[name] = &kept{spec: p.GetSpec(), stop: k.start(ctx, name, made)}
	k.registry.Set(name, made)
	k.log.Info("provider runs", "provider", name, "kind", spec.ProviderKind(p))
}

// start runs what a provider does beside its calls.
func (k *keeper) start(ctx context.Context, name string, p provider.Provider) (stop func()) {
	r, ok := p.(runner)
	if !ok {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.Run(ctx); err != nil && ctx.Err() == nil {
			k.log.Error("provider stopped", "provider", name, "err", err)
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

func (k *keeper) stopAll() {
	for name, p := range k.kept {
		k.registry.Set(name, nil)
		p.stop()
	}
	k.kept = nil
}

// sayTimeout bounds the wait for the cluster to take an event.
const sayTimeout = 10 * time.Second

// sayBroken records an event about a provider that this member cannot make: one member speaks for all.
func (s *Server) sayBroken(ctx context.Context, p *provisionrv1.Provider, err error) {
	if owner := spec.Owner(p); owner != s.config.Name && (owner != "" || !s.node.IsLeader()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, sayTimeout)
	defer cancel()
	_, failed := s.node.Do(ctx, s.caller(), rand.Text(), &raftlogv1.Command{Kind: &raftlogv1.Command_RecordEvent{
		RecordEvent: &raftlogv1.RecordEvent{Event: &provisionrv1.Event{
			Reason: "ProviderFailed", Warning: true, Message: "provider " + p.GetMetadata().GetName() + " on member " + s.config.Name + ": " + err.Error(),
		}},
	}})
	if failed != nil && ctx.Err() == nil {
		s.config.Logger.Warn("cannot record an event", "err", failed)
	}
}
