package zone

// denial appends the NSEC records that prove a negative answer (RFC 4035 section 3.1.3). It reports whether they fit.
func (a *answer) denial(z *Zone, rel []byte, outcome Outcome) bool {
	origin := a.owner + len(rel)
	if outcome == NoData {
		if n, _ := z.node(rel); n.find(TypeNSEC) != "" {
			return a.put(n.find(TypeNSEC), 8, a.owner, true)
		}
	}
	// An empty non-terminal has no NSEC; the one before proves that there is no data, as it does that there is no name.
	var buf [maxName + 2]byte
	first := z.order.before(appendSortKey(buf[:0], rel))
	if !a.putDenial(z, first, origin) {
		return false
	}
	if outcome == NoData {
		return true
	}
	// Nor is there a wildcard that would have been expanded: *.<closest encloser>.
	for {
		rel = rel[1+int(rel[0]):]
		if _, ok := z.node(rel); ok {
			break
		}
	}
	second := z.order.before(append(appendSortKey(buf[:0], rel), '*', 0))
	return second == first || a.putDenial(z, second, origin)
}

// putDenial appends the NSEC record of the name that a sort key stands for, with its signatures. The zone's origin is at
// an offset of the message.
func (a *answer) putDenial(z *Zone, key string, origin int) bool {
	var buf [maxName]byte
	rel := appendKeyName(buf[:0], key)
	n, ok := z.node(rel)
	if !ok {
		return true
	}
	s := n.find(TypeNSEC)
	if s == "" || len(rel) == 0 {
		return s == "" || a.put(s, 8, origin, true)
	}
	if len(a.out)+len(rel)+s.size()+s.sigSize() > a.limit {
		return false
	}
	owner := len(a.out) - a.start
	a.out = append(append(a.out, rel...), 0xc0|byte(origin>>8), byte(origin))
	a.out = append(a.out, s.records()[2:]...)
	start := len(a.out)
	a.out = append(a.out, s.signatures()...)
	point(a.out[start:], owner)
	count(a.out[a.start:], 8, 1+s.sigCount())
	return true
}

// Neighbours returns the names with data right before and after a name in canonical order (RFC 4034 section 6.1), whether
// or not it exists itself: the order is a ring that begins with the origin. Only presigned zones keep the order; for
// others, and for what is no name of the zone, both are the origin.
func (z *Zone) Neighbours(name string) (before, after string) {
	rel, err := z.appendRelativeName(nil, name)
	if err != nil {
		return z.Origin(), z.Origin()
	}
	key := appendSortKey(nil, rel)
	last := z.order.before(key)
	if len(rel) == 0 && len(z.order) > 0 {
		c := z.order[len(z.order)-1]
		last = c.key(c.len() - 1)
	}
	return z.text(appendKeyName(nil, last)), z.text(appendKeyName(nil, z.order.after(key)))
}
