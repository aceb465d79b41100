package dnszone

import (
	"cmp"
	"slices"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// reserve is how many of the machines that may share a name are known, so that losing one seldom means to look at all.
const reserve = 4 * zone.MaxShared

// share is a ready slot.
type share struct {
	rank uint64
	slot string
}

func compareShares(a, b share) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.slot, b.slot))
}

// group is the ready slots of a pool or a role.
type group struct {
	// best are those with the lowest ranks, in order, at most reserve.
	best []share
	// partial says that there may be others.
	partial bool
}

// shared returns those that share the group's names.
func (g *group) shared() []share {
	if g == nil {
		return nil
	}
	return g.best[:min(len(g.best), zone.MaxShared)]
}

// set notes whether a slot is ready. It reports whether the slot is, or was, among those that share the names, and whether
// the group does not know any more who these are: then it must be made anew.
func (g *group) set(slot string, ready bool) (touched, unknown bool) {
	s := share{zone.Rank(slot), slot}
	at, present := slices.BinarySearchFunc(g.best, s, compareShares)
	switch {
	case present && !ready:
		g.best = slices.Delete(g.best, at, at+1)
	case !present && ready && (at < len(g.best) || !g.partial):
		g.best = slices.Insert(g.best, at, s)
		if len(g.best) > reserve {
			g.best, g.partial = g.best[:reserve], true
		}
	case !present:
		// Beyond the known ones, or not ready before either.
		return false, g.partial && len(g.best) < zone.MaxShared
	}
	return at < zone.MaxShared, g.partial && len(g.best) < zone.MaxShared
}
