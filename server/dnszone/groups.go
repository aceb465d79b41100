package dnszone

import (
	"cmp"
	"slices"
)

// Bounds of the answer for a name that many machines share.
const (
	// maxShared is how many machines such a name has at most: the ready ones with the lowest ranks, which are the same on
	// every server and stay when others come and go.
	maxShared = 24
	// reserve is how many of them are known, so that losing one seldom means to look at all.
	reserve = 4 * maxShared
)

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
	return g.best[:min(len(g.best), maxShared)]
}

// set notes whether a slot is ready. It reports whether the slot is, or was, among those that share the names, and whether
// the group does not know any more who these are: then it must be made anew.
func (g *group) set(slot string, ready bool) (touched, unknown bool) {
	s := share{rank(slot), slot}
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
		return false, g.partial && len(g.best) < maxShared
	}
	return at < maxShared, g.partial && len(g.best) < maxShared
}

// rank orders the ready slots of a group as if at random. All servers must agree on it: it never changes. It is FNV-1a with
// the finish of SplitMix64, for names that differ in their last digits only.
func rank(slot string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(slot) {
		h = (h ^ uint64(slot[i])) * 1099511628211
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
