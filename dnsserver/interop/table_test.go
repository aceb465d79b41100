//go:build machine

package interop

import (
	"slices"

	"github.com/miekg/dns"
)

// explanation is an entry of the table of differences.
type explanation struct {
	// asked, ours and theirs are for people.
	asked, ours, theirs string
	// peers are those that differ.
	peers []string
	// why says who is right, and rfc by what.
	why, rfc string
	// fields are those that it explains.
	fields []string
	match  func(d difference) bool
}

// explains reports whether the entry is about a difference.
func (e explanation) explains(d difference) bool {
	return slices.Contains(e.peers, d.peer) && slices.Contains(e.fields, d.field) && e.match(d)
}

var (
	both      = []string{"nsd", "knot"}
	onlyNSD   = []string{"nsd"}
	onlyKnot  = []string{"knot"}
	replies   = []string{"reply"}
	decisions = []string{"reply", "code"}
	sections  = []string{"answer", "authority", "additional"}
)

// codes reports whether our code is one of those.
func (d difference) codes(codes ...int) bool {
	return slices.ContainsFunc(codes, func(code int) bool { return d.ours["code"] == dns.RcodeToString[code] })
}

// theirCodes reports whether the peer's code is one of those.
func (d difference) theirCodes(codes ...int) bool {
	return slices.ContainsFunc(codes, func(code int) bool { return d.theirs["code"] == dns.RcodeToString[code] })
}

func (d difference) silence() bool { return d.theirs["reply"] == "silence" }

// malformed reports whether we found the query malformed.
func (d difference) malformed() bool { return d.codes(dns.RcodeFormatError) }
