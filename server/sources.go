package server

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/provisionr/provisionr/server/state"
)

// sources are those that are answered without limit: the networks of the machines, and the zones' secondaries.
type sources struct {
	known atomic.Pointer[knownSources]
}

type knownSources struct {
	networks    []netip.Prefix
	secondaries map[netip.Addr]bool
}

func (k *sources) has(addr netip.Addr) bool {
	known := k.known.Load()
	return known != nil && (known.secondaries[addr] || slices.ContainsFunc(known.networks, func(p netip.Prefix) bool { return p.Contains(addr) }))
}

func knownOf(s *state.Snapshot) *knownSources {
	known := &knownSources{secondaries: map[netip.Addr]bool{}}
	for n := range s.Networks() {
		if prefix, err := netip.ParsePrefix(n.GetSpec().GetCidr()); err == nil {
			known.networks = append(known.networks, prefix)
		}
	}
	for z := range s.Zones() {
		for _, secondary := range z.GetSpec().GetTransfer().GetSecondaries() {
			// IP or IP:PORT: the port is where it is told of changes, not where it asks from.
			if addr, err := netip.ParseAddr(secondary.GetAddress()); err == nil {
				known.secondaries[addr.Unmap()] = true
			} else if at, err := netip.ParseAddrPort(secondary.GetAddress()); err == nil {
				known.secondaries[at.Addr().Unmap()] = true
			}
		}
	}
	return known
}

func (k *sources) follow(ctx context.Context, store *state.Store) error {
	for {
		changed := store.Watch(state.TableNetworks, state.TableZones)
		k.known.Store(knownOf(store.Read()))
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
