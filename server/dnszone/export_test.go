package dnszone

import (
	"context"

	"github.com/provisionr/provisionr/server/state"
)

// Publish publishes a snapshot at once. It reports whether all zones were built anew.
func (p *Publisher) Publish(ctx context.Context, s *state.Snapshot) (anew bool, err error) {
	before := p.view
	err = p.publish(ctx, s)
	return p.view != before, err
}

// Group is a group of ready slots.
type Group = group

func (g *Group) Set(slot string, ready bool) (touched, unknown bool) { return g.set(slot, ready) }

func (g *Group) Shared() (slots []string) {
	for _, s := range g.shared() {
		slots = append(slots, s.slot)
	}
	return slots
}

// Forget drops what the publisher knows beside the zones.
func (p *Publisher) Forget() { p.view = nil }
