package session

import (
	"context"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	"github.com/provisionr/provisionr/server/state"
)

// restFactor is how many times as long as a pass the hub rests at least before the next: it bounds what a flood of
// changes may cost to a sixth of a processor.
const restFactor = 5

// push keeps every session at its machine's newest desired state until ctx ends. Changes of the state are gathered, new
// sessions are served at once.
func (h *Hub) push(ctx context.Context) {
	rest := time.NewTimer(0)
	defer rest.Stop()
	changed := h.watch()
	var due <-chan time.Time // The rest, once something has changed.
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.fresh:
			h.pass(false)
		case <-changed:
			changed, due = nil, rest.C
		case <-due:
			changed, due = h.watch(), nil
			start := time.Now()
			h.pass(true)
			rest.Reset(max(h.cfg.PushInterval, restFactor*time.Since(start)))
		}
	}
}

func (h *Hub) watch() <-chan struct{} {
	return h.cfg.State.Watch(state.TablePools, state.TableMachines, state.TableSlots, state.TableClaims, state.TableZones,
		state.TableNetworks, state.TableMembers, state.TableAuthorities, state.TableCluster,
		state.TableVpns, state.TableVpnPeers, state.TableSecrets)
}

// pass offers sessions what their machines should be: to all of them, or only to those that have not been told yet.
func (h *Hub) pass(all bool) {
	snapshot := h.cfg.State.Read()
	trusts := map[string]*agentv1.Trust{}
	for _, s := range h.all() {
		if !all && s.out.started() {
			continue
		}
		m := snapshot.Machine(s.machine)
		if m == nil {
			s.end(errs.New(errs.Denied, "machine %s is not known any more", s.machine))
			continue
		}
		if err := standing(m); err != nil {
			s.end(err)
			continue
		}
		compiled, err := h.compiler.Compile(snapshot, s.machine)
		if err != nil {
			h.cfg.Logger.Error("cannot compile desired state", "machine", s.machine, "error", err)
			continue
		}
		if trusts[s.network] == nil {
			trusts[s.network] = h.trust(snapshot, s.network)
		}
		s.out.offerTrust(trusts[s.network])
		s.out.offer(compiled)
	}
}
