package zone

import "slices"

// Outcome says what became of a question.
type Outcome uint8

const (
	// Foreign: the set does not have the name. Nothing was appended.
	Foreign Outcome = iota
	// Positive: there are records.
	Positive
	// NoData: the name exists, but has no records of the type.
	NoData
	// NoName: the name does not exist.
	NoName
	// Truncated: the answer does not fit; one with TC was appended.
	Truncated
	// Sign: signatures are asked of a zone that signs online. Nothing was appended.
	Sign
)

// maxChain bounds the aliases that one answer follows.
const maxChain = 8

// answer is an answer in the making.
type answer struct {
	set   *Set
	q     *Query
	r     *Reply
	out   []byte
	start int
	// limit is how long out may get, OPT left aside.
	limit int
	// owner is the offset in the message of the name that is being looked up.
	owner int
}

// Answer appends to dst the answer to a query with the verdict Ask. It never exceeds the reply's bound, and does not
// allocate where dst has room.
func (s *Set) Answer(dst []byte, q *Query, r *Reply) ([]byte, Outcome) {
	if q.class != classIN {
		return dst, Foreign
	}
	z, size := q.place.zone, int(q.place.size)
	if s == nil || q.place.set != s {
		z, size = s.zoneOf(q.Name())
	}
	if z == nil {
		return dst, Foreign
	}
	if z.mode == Online && q.do {
		q.place = place{}
		return dst, Sign
	}
	// Field by field: a literal is copied in larger pieces than it was written in, for which the processor has to wait.
	var a answer
	a.set, a.q, a.r = s, q, r
	a.start, a.owner = len(dst), headerSize
	a.limit = a.start + r.Max
	if q.edns {
		a.limit -= optSize + len(r.Options)
	}
	a.out = q.begin(dst, Success, flagAA, r.Max)
	outcome, code := Truncated, Success
	if int(q.end) <= r.Max { // Without the question, owners would point to nothing.
		outcome, code = a.lookup(z, q.name[:size])
	}
	q.place = place{} // It would keep zones alive that nobody serves any more.
	switch outcome {
	case Foreign, Sign:
		return dst, outcome
	case Truncated:
		clear(a.out[a.start+6 : a.start+headerSize])
		a.out = a.out[:min(len(a.out), a.start+int(q.end))]
		a.out[a.start+2] |= flagTC
	}
	a.out[a.start+3] = byte(code)
	return q.finish(a.out, a.start, code, r), outcome
}

// lookup answers about a name, of which rel is what stands before the zone's origin, and follows aliases.
func (a *answer) lookup(z *Zone, rel []byte) (Outcome, Rcode) {
	outcome, code, alias := a.step(z, rel)
	if alias == "" {
		return outcome, code
	}
	var name [maxName]byte
	var chain [maxChain]string
	for i := range chain {
		if slices.Contains(chain[:i], alias) || alias == string(a.q.Name()) {
			return Positive, Success // A ring of aliases has been gone through once.
		}
		chain[i] = alias
		wire := name[:copy(name[:], alias)]
		z, size := a.set.zoneOf(wire)
		switch {
		case z == nil:
			return Positive, Success
		case z.mode == Online && a.q.do:
			return Sign, Success
		}
		if outcome, code, alias = a.step(z, wire[:size]); alias == "" {
			return outcome, code
		}
	}
	return Positive, Success
}

// node returns what a name has; the question's own may have been looked up already.
func (a *answer) node(z *Zone, rel []byte) (node, bool) {
	if p := &a.q.place; a.owner == headerSize && p.set == a.set && p.set != nil {
		return p.shard.findFrom(int(p.first), p.hash, rel)
	}
	return z.node(rel)
}

// step answers about one name. Where that is an alias, it returns the target, which is then what owner is the offset of.
func (a *answer) step(z *Zone, rel []byte) (outcome Outcome, code Rcode, alias string) {
	signed := a.q.do && z.mode == Presigned
	n, ok := a.node(z, rel)
	if !ok && z.partial {
		return Foreign, Success, ""
	}
	if !ok {
		outcome, code = a.negative(z, rel, NoName, signed)
		return outcome, code, ""
	}
	if s := n.find(a.q.typ); s != "" {
		at := len(a.out) - a.start
		if !a.put(s, 6, a.owner, signed) {
			return Truncated, Success, ""
		}
		a.additional(s, at)
		return Positive, Success, ""
	}
	s := n.find(TypeCNAME)
	switch {
	case a.q.typ == TypeANY:
		outcome, code = a.any(z, n, rel, signed)
	case a.q.typ == TypeRRSIG:
		outcome, code = a.allSignatures(z, n, rel, signed)
	case s == "" || a.q.typ == TypeNSEC:
		outcome, code = a.negative(z, rel, NoData, signed)
	default:
		target := len(a.out) - a.start + fixed
		if !a.put(s, 6, a.owner, signed) {
			return Truncated, Success, ""
		}
		a.owner = target
		return Positive, Success, s.records()[fixed:]
	}
	return outcome, code, ""
}

// put appends an RRset with its signatures to the section whose counter is at offset section of the header. It
// appends nothing where there is no room.
func (a *answer) put(s rrset, section, owner int, signed bool) bool {
	size, records := s.size(), s.count()
	if signed {
		size, records = size+s.sigSize(), records+s.sigCount()
	}
	if len(a.out)+size > a.limit {
		return false
	}
	start := len(a.out)
	if stride := s.stride(); stride != 0 {
		// The id is as good as random, and costs nothing.
		first := (int(a.q.msg[0])<<8 | int(a.q.msg[1])) % s.count() * stride
		a.out = append(a.out, s[rrsetSize+first:rrsetSize+s.size()]...)
		a.out = append(a.out, s[rrsetSize:rrsetSize+first]...)
	} else {
		a.out = append(a.out, s.records()...)
	}
	if signed {
		a.out = append(a.out, s.signatures()...)
	}
	if owner != headerSize {
		point(a.out[start:], owner)
	}
	count(a.out[a.start:], section, records)
	return true
}

// point makes an offset the owner of all records, which are in the form of answers.
func point(records []byte, owner int) {
	for i := 0; i < len(records); i += fixed + int(records[i+10])<<8 + int(records[i+11]) {
		records[i], records[i+1] = 0xc0|byte(owner>>8), byte(owner)
	}
}

// any answers ANY with the least that is an answer (RFC 8482): a record that says so or, where it had to be signed, one RRset.
func (a *answer) any(z *Zone, n node, rel []byte, signed bool) (Outcome, Rcode) {
	if n.empty() {
		return a.negative(z, rel, NoData, signed)
	}
	least := z.hinfo
	if signed {
		off, _ := n.sets()
		least = rrset(n[off:])
	}
	if !a.put(least, 6, a.owner, signed) {
		return Truncated, Success
	}
	return Positive, Success
}

// allSignatures answers RRSIG with every signature of the name.
func (a *answer) allSignatures(z *Zone, n node, rel []byte, signed bool) (Outcome, Rcode) {
	off, sets := n.sets()
	found := 0
	for ; sets > 0; sets-- {
		s := rrset(n[off:])
		off += s.len()
		if len(a.out)+s.sigSize() > a.limit {
			return Truncated, Success
		}
		start := len(a.out)
		a.out = append(a.out, s.signatures()...)
		point(a.out[start:], a.owner)
		found += s.sigCount()
	}
	if found == 0 {
		return a.negative(z, rel, NoData, signed)
	}
	count(a.out[a.start:], 6, found)
	return Positive, Success
}

// negative answers that there is no such name, or no such data, with the SOA (RFC 2308) and, where they are asked for,
// the NSEC records that prove it (RFC 4035 section 3.1.3).
func (a *answer) negative(z *Zone, rel []byte, outcome Outcome, signed bool) (Outcome, Rcode) {
	if z.partial && a.q.typ != TypeA && a.q.typ != TypeAAAA && a.q.typ != TypePTR && a.q.typ != TypeANY {
		return Foreign, Success // The name is known for its addresses alone.
	}
	code := Success
	if outcome == NoName {
		code = NameError // Also behind an alias (RFC 6604 section 2.1).
	}
	// Only an origin near the longest makes it too large; without the SOA it could not be remembered.
	if !a.put(z.negative, 8, a.owner+len(rel), signed) {
		return Truncated, code
	}
	if signed && !a.denial(z, rel, outcome) {
		return Truncated, code
	}
	return outcome, code
}

// maxExtra bounds the names whose addresses one answer adds.
const maxExtra = 32

// additional adds the addresses of the targets of SRV and NS records, which stand at an offset of the message. They are a
// courtesy: what has no room is left out.
func (a *answer) additional(s rrset, at int) {
	skip := 0
	switch s.typ() {
	case TypeSRV:
		skip = 6
	case TypeNS:
	default:
		return
	}
	records := s.records()
	var name [maxName]byte
	for i, off := 0, 0; i < maxExtra && off < len(records); i++ {
		target := records[off+fixed+skip : off+fixed+dataSize(records[off:])]
		owner := at + off + fixed + skip
		if !targeted(records[:off], target, skip) && owner < 0x4000 {
			wire := name[:copy(name[:], target)]
			if z, size := a.set.zoneOf(wire); z != nil {
				if n, ok := z.node(wire[:size]); ok {
					signed := a.q.do && z.mode == Presigned
					for _, typ := range [...]Type{TypeA, TypeAAAA} {
						if s := n.find(typ); s != "" {
							a.put(s, 10, owner, signed)
						}
					}
				}
			}
		}
		off += fixed + dataSize(records[off:])
	}
}

// targeted reports whether one of the records has the target.
func targeted(records, target string, skip int) bool {
	for off := 0; off < len(records); off += fixed + dataSize(records[off:]) {
		if records[off+fixed+skip:off+fixed+dataSize(records[off:])] == target {
			return true
		}
	}
	return false
}
