//go:build machine

package interop

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// explanations is the table. Of several entries that match, the first counts.
var explanations = slices.Concat(malformedExplanations, refusedExplanations, answerExplanations, courtesyExplanations)

// malformedExplanations are about queries that at least one server calls malformed.
var malformedExplanations = []explanation{
	{
		asked: "malformed queries, and others that get an error code", peers: onlyNSD, fields: replies,
		ours: "the code, each time", theirs: "the code to a few in a second, to the others silence, over TCP the end of the connection",
		why: "Nobody has to answer everything. Ours are limited by RateLimit, and then for unknown sources only.", rfc: "RFC 1035 4.1.1, RFC 7766 6.2.1",
		match: func(d difference) bool {
			return d.silence() && d.codes(dns.RcodeFormatError, dns.RcodeNotImplemented, dns.RcodeNotAuth, dns.RcodeRefused)
		},
	},
	{
		asked: "a question that cannot be read, or more or fewer questions than one", peers: onlyKnot, fields: replies,
		ours: "FORMERR", theirs: "silence, over TCP the end of the connection",
		why: "We: whoever asks should know why there is no answer.", rfc: "RFC 1035 4.1.1, RFC 9619 4",
		match: func(d difference) bool { return d.silence() && d.malformed() && !d.shape.asked },
	},
	{
		asked: "AA, TC, RA, Z or a code in a query", peers: onlyNSD, fields: decisions,
		ours: "the answer", theirs: "FORMERR, or silence after a few",
		why: "Both may: these mean nothing in a query. We are liberal, as Knot is.", rfc: "RFC 1035 4.1.1",
		match: func(d difference) bool {
			s := d.shape
			return (s.aa || s.tc || s.ra || s.z || s.rcode != 0) && (d.silence() || d.theirCodes(dns.RcodeFormatError))
		},
	},
	{
		asked: "records in the answer, authority or additional section of a query", peers: onlyNSD, fields: decisions,
		ours: "the answer", theirs: "FORMERR, or silence after a few",
		why: "Both may: they mean nothing to us. Knot ignores them too.", rfc: "RFC 1035 4.1.1",
		match: func(d difference) bool {
			return len(d.shape.others) > 0 && (d.silence() || d.theirCodes(dns.RcodeFormatError))
		},
	},
	{
		asked: "a record in a query whose data is not of its type", peers: onlyKnot, fields: decisions,
		ours: "the answer", theirs: "FORMERR",
		why: "Both may: what means nothing to us is not looked at.", rfc: "RFC 1035 4.1.3",
		match: func(d difference) bool { return len(d.shape.others) > 0 && d.theirCodes(dns.RcodeFormatError) },
	},
	{
		asked: "a record in a query whose owner is no name", peers: both, fields: decisions,
		ours: "the answer", theirs: "FORMERR",
		why: "Both may: what means nothing to us is not looked at.", rfc: "RFC 1035 4.1.4",
		match: func(d difference) bool {
			return d.shape.asked && d.shape.left < 0 && !d.malformed() && (d.silence() || d.theirCodes(dns.RcodeFormatError))
		},
	},
	{
		asked: "octets behind the last record", peers: onlyNSD, fields: decisions,
		ours: "FORMERR", theirs: "the answer",
		why: "We, as Knot: the counters and the length of the message say two things.", rfc: "RFC 1035 4.1",
		match: func(d difference) bool { return d.malformed() && d.shape.left > 0 },
	},
	{
		asked: "no question and no cookie", peers: onlyNSD, fields: decisions,
		ours: "FORMERR", theirs: "NOERROR without records",
		why: "We: only a question for a cookie has no question.", rfc: "RFC 9619 4, RFC 7873 5.4",
		match: func(d difference) bool {
			return d.malformed() && d.shape.questions == 0 && d.theirCodes(dns.RcodeSuccess)
		},
	},
	{
		asked: "no question, but a cookie", peers: onlyKnot, fields: decisions,
		ours: "NOERROR with a server cookie", theirs: "FORMERR",
		why: "We, and NSD.", rfc: "RFC 7873 5.4",
		match: func(d difference) bool {
			return d.codes(dns.RcodeSuccess) && d.shape.questions == 0 && d.theirCodes(dns.RcodeFormatError)
		},
	},
	{
		asked: "an OPT record whose owner is not the root", peers: onlyKnot, fields: decisions,
		ours: "FORMERR", theirs: "the answer",
		why: "We, and NSD: it must be the root.", rfc: "RFC 6891 6.1.2",
		match: func(d difference) bool {
			return d.malformed() && slices.ContainsFunc(d.shape.opts, func(o optShape) bool { return o.named })
		},
	},
	{
		asked: "more than 1536 octets over UDP, 4096 over TCP", peers: both, fields: decisions,
		ours: "FORMERR", theirs: "the answer",
		why: "We say that we take 1232 over UDP; over TCP no query of ours is as large, and its memory is bounded.", rfc: "RFC 6891 6.2.5",
		match: func(d difference) bool {
			return d.malformed() && len(d.probe.msg) > 1536 && (!d.tcp || len(d.probe.msg) > 4096)
		},
	},
	{
		asked: "malformed queries", peers: onlyKnot, fields: []string{"connection"},
		ours: "the connection stays open", theirs: "it is closed",
		why: "Both may. The length before each message says where the next begins.", rfc: "RFC 7766 6.2.1",
		match: func(d difference) bool { return d.codes(dns.RcodeFormatError) },
	},
	{
		asked: "a response in place of a query, or less than a header", peers: both, fields: []string{"connection"},
		ours: "the connection is closed", theirs: "it stays open",
		why: "Both may: whoever sends that is no client.", rfc: "RFC 7766 6.2.1",
		match: func(d difference) bool { return d.ours["reply"] == "silence" && d.ours["connection"] == "closed" },
	},
	{
		asked: "malformed queries whose question can be read", peers: onlyNSD, fields: []string{"question"},
		ours: "the question is repeated", theirs: "it is not",
		why: "We, as Knot: an answer has header, question and OPT record even then.", rfc: "RFC 6891 7",
		match: func(d difference) bool {
			return d.malformed() && d.ours["question"] == "repeated" && d.theirs["question"] == "none"
		},
	},
	{
		asked: "malformed queries whose question cannot be read", peers: both, fields: []string{"flags"},
		ours: "RD is repeated", theirs: "it is not",
		why: "We: RD is copied into the response.", rfc: "RFC 1035 4.1.1",
		match: func(d difference) bool {
			return d.malformed() && strings.TrimSuffix(d.ours["flags"], " rd") == d.theirs["flags"]
		},
	},
	{
		asked: "an OPT record and something malformed", peers: both, fields: []string{"opt"},
		ours: "FORMERR with an OPT record", theirs: "FORMERR without",
		why: "We: it tells from servers that do not know EDNS.", rfc: "RFC 6891 7",
		match: func(d difference) bool { return d.malformed() && d.theirs["opt"] == "none" },
	},
}

// refusedExplanations are about what is no question for records.
var refusedExplanations = []explanation{
	{
		asked: "opcodes other than QUERY and NOTIFY", peers: onlyNSD, fields: []string{"question", "opt"},
		ours: "NOTIMP with question and OPT record", theirs: "NOTIMP without",
		why: "We, as Knot.", rfc: "RFC 6891 6.1.1",
		match: func(d difference) bool { return d.codes(dns.RcodeNotImplemented) },
	},
	{
		asked: "opcodes other than QUERY and NOTIFY, malformed", peers: onlyKnot, fields: decisions,
		ours: "NOTIMP", theirs: "FORMERR, or silence",
		why: "We: the form of a message of an unknown opcode is unknown.", rfc: "RFC 1035 4.1.1",
		match: func(d difference) bool {
			return d.codes(dns.RcodeNotImplemented) && d.shape.left != 0 && (d.silence() || d.theirCodes(dns.RcodeFormatError))
		},
	},
	{
		asked: "opcodes other than QUERY, with AA, TC, RA, Z, AD or CD", peers: onlyNSD, fields: []string{"flags", "tc"},
		ours: "none is set", theirs: "they are repeated",
		why: "We: they are the server's to set.", rfc: "RFC 1035 4.1.1, RFC 4035 3.1.6",
		match: func(d difference) bool { return d.shape.opcode != dns.OpcodeQuery },
	},
	{
		asked: "opcodes other than QUERY and NOTIFY, of other classes than IN", peers: onlyKnot, fields: decisions,
		ours: "NOTIMP", theirs: "REFUSED",
		why: "Both may: both are true.", rfc: "RFC 1035 4.1.1",
		match: func(d difference) bool {
			return d.codes(dns.RcodeNotImplemented) && d.shape.class != dns.ClassINET && d.theirCodes(dns.RcodeRefused)
		},
	},
	{
		asked: "an EDNS version other than 0 and something malformed", peers: onlyNSD, fields: decisions,
		ours: "FORMERR", theirs: "BADVERS",
		why: "Both may: both are true.", rfc: "RFC 6891 6.1.3, 7",
		match: func(d difference) bool { return d.malformed() && d.theirs["code"] == "BADVERS" },
	},
	{
		asked: "an EDNS version other than 0, with DO or NSID", peers: onlyNSD, fields: []string{"opt", "options"},
		ours: "DO is repeated, NSID answered", theirs: "neither",
		why: "Both may: version 0 of both is meant.", rfc: "RFC 6891 6.1.3, RFC 3225 3",
		match: func(d difference) bool { return d.ours["code"] == "BADVERS" },
	},
	{
		asked: "an EDNS version other than 0, with CD", peers: onlyNSD, fields: []string{"flags"},
		ours: "CD is clear", theirs: "it is repeated",
		why: "We, as Knot: an authoritative server should clear it.", rfc: "RFC 4035 3.1.6",
		match: func(d difference) bool { return d.ours["code"] == "BADVERS" },
	},
	{
		asked: "UPDATE", peers: onlyKnot, fields: decisions,
		ours: "NOTIMP", theirs: "FORMERR",
		why: "We do not know that opcode; Knot knows it, and finds the zone section wrong.", rfc: "RFC 2136 3.1",
		match: func(d difference) bool { return d.shape.opcode == dns.OpcodeUpdate },
	},
	{
		asked: "NOTIFY", peers: both, fields: decisions,
		ours: "REFUSED", theirs: "NSD: NXDOMAIN; Knot: NOTAUTH",
		why: "Nobody's word is good here: we have no primary. No RFC has a code for that.", rfc: "RFC 1996 3.10",
		match: func(d difference) bool { return d.shape.opcode == dns.OpcodeNotify },
	},
	{
		asked: "version.bind in class CH, and its like", peers: both, fields: decisions,
		ours: "REFUSED", theirs: "what they are and of which version",
		why: "We say nothing of ourselves to everybody; NSID names a server, where the operator gave it a name.", rfc: "RFC 4892 4",
		match: func(d difference) bool { return d.shape.class == dns.ClassCHAOS && d.codes(dns.RcodeRefused) },
	},
	{
		asked: "class ANY", peers: both, fields: decisions,
		ours: "REFUSED", theirs: "the answer of class IN",
		why: "Both may: nobody has to be authoritative for all classes, and no client asks.", rfc: "RFC 1035 3.2.5",
		match: func(d difference) bool { return d.shape.class == dns.ClassANY && d.codes(dns.RcodeRefused) },
	},
	{
		asked: "classes other than IN and ANY", peers: both, fields: []string{"extended error"},
		ours: "REFUSED with extended error 20 (Not Authoritative)", theirs: "NSD: 21 (Not Supported); Knot: none",
		why: "All may.", rfc: "RFC 8914 4.21",
		match: func(d difference) bool { return d.codes(dns.RcodeRefused) && d.shape.class != dns.ClassINET },
	},
	{
		asked: "classes other than IN and ANY", peers: onlyNSD, fields: []string{"question"},
		ours: "the question is repeated", theirs: "it is not",
		why: "We, as Knot: an answer repeats the question.", rfc: "RFC 6891 7",
		match: func(d difference) bool { return d.codes(dns.RcodeRefused) && d.shape.class != dns.ClassINET },
	},
	{
		asked: "a TSIG record with a key that nobody has", peers: onlyNSD, fields: []string{"question"},
		ours: "the question is repeated", theirs: "it is not",
		why: "We, as Knot: an answer repeats the question.", rfc: "RFC 8945 5.2",
		match: func(d difference) bool {
			return d.codes(dns.RcodeNotAuth) && slices.Contains(d.shape.others, dns.TypeTSIG)
		},
	},
	{
		asked: "transfers without a key", peers: both, fields: decisions,
		ours: "REFUSED", theirs: "NOTAUTH where the name is no zone, NOTIMP for AXFR over UDP",
		why: "Both may: who has no key learns nothing, also not what our zones are.", rfc: "RFC 5936 2.2.1, 5",
		match: func(d difference) bool {
			return isTransfer(d) && d.theirCodes(dns.RcodeNotAuth, dns.RcodeNotImplemented)
		},
	},
	{
		asked: "type 0", peers: onlyKnot, fields: decisions,
		ours: "NODATA or NXDOMAIN", theirs: "NOTIMP",
		why: "We, and NSD: unknown types have no records.", rfc: "RFC 3597 3",
		match: func(d difference) bool { return d.shape.typ == 0 && d.theirCodes(dns.RcodeNotImplemented) },
	},
	{
		asked: "a server cookie that is not ours, over UDP", peers: onlyKnot, fields: decisions,
		ours: "the answer with a new cookie", theirs: "BADCOOKIE",
		why: "Both may: we ask for a cookie only where the rate is limited.", rfc: "RFC 7873 5.2.4",
		match: func(d difference) bool {
			return len(d.shape.opts) > 0 && d.shape.opts[0].cookie >= 0 && d.theirCodes(dns.RcodeBadCookie)
		},
	},
}

// isTransfer reports whether a difference is about a transfer.
func isTransfer(d difference) bool {
	return (d.shape.typ == dns.TypeAXFR || d.shape.typ == dns.TypeIXFR) && d.codes(dns.RcodeRefused)
}

// answerExplanations are about what answers hold.
var answerExplanations = []explanation{
	{
		asked: "ANY", peers: both, fields: append(sections, "tc"),
		ours: "HINFO \"RFC8482\"", theirs: "one RRset of the name",
		why: "All may.", rfc: "RFC 8482 4.1, 4.2",
		match: func(d difference) bool { return d.shape.typ == dns.TypeANY },
	},
	{
		asked: "NSEC or RRSIG of an alias in an unsigned zone", peers: onlyNSD, fields: append(sections, "code"),
		ours: "NODATA", theirs: "the alias is followed",
		why: "Both may: these types belong to the alias itself. Knot does as we do.", rfc: "RFC 2181 10.1, RFC 4034 3, 4",
		match: func(d difference) bool {
			return (d.shape.typ == dns.TypeNSEC || d.shape.typ == dns.TypeRRSIG) && strings.HasSuffix(d.shape.name, plainOrigin)
		},
	},
	{
		asked: "RRSIG", peers: both, fields: append(sections, "tc"),
		ours: "all signatures of the name", theirs: "one of them, as for ANY",
		why: "All may: no resolver asks.", rfc: "RFC 4035 3.1, RFC 8482 4",
		match: func(d difference) bool { return d.shape.typ == dns.TypeRRSIG },
	},
	{
		asked: "more than five aliases in a row", peers: both, fields: append(sections, "tc"),
		ours: "the first eight", theirs: "NSD: all, up to its own bound; Knot: five or six",
		why: "All may: the resolver goes on from the last.", rfc: "RFC 1034 4.3.2",
		match: func(d difference) bool { return strings.HasPrefix(d.shape.name, "chain") },
	},
	{
		asked: "NSEC3 of an alias", peers: onlyNSD, fields: append(sections, "code"),
		ours: "the alias is followed", theirs: "NODATA",
		why: "We, as Knot: NSEC3 records have owners of their own.", rfc: "RFC 1034 4.3.2, RFC 5155 3",
		match: func(d difference) bool { return d.shape.typ == dns.TypeNSEC3 },
	},
	{
		asked: "an alias of a name in another zone of the server", peers: both, fields: append(sections, "tc"),
		ours: "it is followed", theirs: "it is not",
		why: "All may; resolvers ask again for what they do not trust.", rfc: "RFC 1034 4.3.2",
		match: func(d difference) bool { return strings.HasPrefix(d.shape.name, "neighbour.signed.") },
	},
	{
		asked: "SRV", peers: onlyNSD, fields: []string{"additional"},
		ours: "the targets' addresses", theirs: "nothing: it is told to be brief",
		why: "Both may, and Knot does as we do.", rfc: "RFC 2782",
		match: func(d difference) bool { return d.shape.typ == dns.TypeSRV && d.theirs["additional"] == "" },
	},
	{
		asked: "answers of about as many octets as there may be, over UDP", peers: both, fields: []string{"tc"},
		ours: "TC", theirs: "the answer",
		why: "All may: we do not compress names in the data of records, so that ours are a little larger.", rfc: "RFC 1035 4.1.4, RFC 3597 4",
		match: func(d difference) bool { return !d.tcp && d.ours["tc"] == "true" && d.shape.limit() <= 513 },
	},
	{
		asked: "SRV of signed targets, with DO", peers: onlyKnot, fields: []string{"additional"},
		ours: "as many addresses as there is room for, each with its signature", theirs: "more addresses, some without",
		why: "Both may: additional records are a courtesy.", rfc: "RFC 4035 3.1.1",
		match: func(d difference) bool {
			return !d.tcp && d.shape.typ == dns.TypeSRV && len(d.shape.opts) > 0 && d.shape.opts[0].do
		},
	},
	{
		asked: "NS whose servers' addresses are in another zone of the server", peers: both, fields: []string{"additional"},
		ours: "their addresses", theirs: "nothing",
		why: "All may: additional records are a courtesy.", rfc: "RFC 1034 4.3.2",
		match: func(d difference) bool {
			return d.shape.typ == dns.TypeNS && !strings.HasSuffix(d.shape.name, plainOrigin) && d.theirs["additional"] == ""
		},
	},
}

// courtesyExplanations are about what may be left out.
var courtesyExplanations = []explanation{
	{
		asked: "questions over TCP with an OPT record", peers: both, fields: []string{"keepalive"},
		ours: "the idle time of the connection", theirs: "nothing",
		why: "Both may.", rfc: "RFC 7828 3.3.2",
		match: func(d difference) bool { return d.tcp && d.ours["keepalive"] == "given" },
	},
}
