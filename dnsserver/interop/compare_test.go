//go:build machine

package interop

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// reply is what can be told apart in an answer, by field.
type reply map[string]string

// The fields of a reply, in the order in which they are compared.
var fields = []string{
	"reply", "code", "connection", "tc", "flags", "question", "answer", "authority", "additional", "spelling", "opt", "keepalive", "extended error", "options",
}

// decisive fields make the ones behind them follow.
const decisive = 2

// read takes an outcome apart.
func read(p probe, o outcome, tcp bool) reply {
	r := reply{"reply": "an answer"}
	if tcp {
		r["connection"] = "open"
		if o.closed {
			r["connection"] = "closed"
		}
	}
	if o.answer == nil {
		r["reply"] = "silence"
		return r
	}
	m := new(dns.Msg)
	if err := m.Unpack(o.answer); err != nil || !m.Response || len(p.msg) >= 2 && !bytes.Equal(p.msg[:2], o.answer[:2]) {
		r["reply"] = fmt.Sprintf("no answer: %x: %v", o.answer, err)
		return r
	}
	code := m.Rcode
	opt := m.IsEdns0()
	r["code"] = dns.RcodeToString[code]
	if code == dns.RcodeBadVers {
		r["code"] = "BADVERS"
	}
	r["tc"] = fmt.Sprint(m.Truncated)
	r["flags"] = flagsOf(m)
	r["question"] = questionOf(p.msg, o.answer, len(m.Question))
	r["opt"] = "none"
	if opt != nil {
		r["opt"] = fmt.Sprintf("version %d, size %d, do %t", opt.Version(), opt.UDPSize(), opt.Do())
		var options []string
		r["keepalive"], r["extended error"] = "none", "none"
		for _, option := range opt.Option {
			switch o := option.(type) {
			case *dns.EDNS0_EDE:
				r["extended error"] = fmt.Sprint(o.InfoCode)
			case *dns.EDNS0_TCP_KEEPALIVE:
				r["keepalive"] = "given"
			case *dns.EDNS0_NSID:
				options = append(options, "NSID "+o.Nsid)
			case *dns.EDNS0_COOKIE:
				options = append(options, fmt.Sprintf("COOKIE of %d", len(o.Cookie)/2))
			default:
				options = append(options, fmt.Sprintf("option %d", option.Option()))
			}
		}
		slices.Sort(options)
		r["options"] = strings.Join(options, ", ")
	}
	if m.Truncated {
		return r // What else it has is not for use (RFC 2181 section 9).
	}
	r["answer"], r["authority"], r["additional"] = records(m.Answer), records(m.Ns), records(m.Extra)
	r["spelling"] = spelling(m)
	return r
}

func flagsOf(m *dns.Msg) string {
	flags := []string{dns.OpcodeToString[m.Opcode]}
	if flags[0] == "" {
		flags[0] = fmt.Sprintf("opcode %d", m.Opcode)
	}
	for _, f := range []struct {
		set  bool
		name string
	}{{m.Authoritative, "aa"}, {m.RecursionDesired, "rd"}, {m.RecursionAvailable, "ra"}, {m.Zero, "z"}, {m.AuthenticatedData, "ad"}, {m.CheckingDisabled, "cd"}} {
		if f.set {
			flags = append(flags, f.name)
		}
	}
	return strings.Join(flags, " ")
}

// questionOf says whether an answer repeats the question octet by octet.
func questionOf(query, answer []byte, count int) string {
	end := len(answer)
	switch {
	case count == 0:
		return "none"
	case count > 1:
		return fmt.Sprint(count)
	}
	i := headerSize
	for i < end && answer[i] != 0 && answer[i] < 64 {
		i += 1 + int(answer[i])
	}
	i = min(i+5, end)
	if len(query) >= i && bytes.Equal(query[headerSize:i], answer[headerSize:i]) {
		return "repeated"
	}
	return "another"
}

// records returns a set of records, without OPT and TSIG, in an order of its own.
func records(rrs []dns.RR) string {
	var texts []string
	for _, rr := range rrs {
		switch rr.Header().Rrtype {
		case dns.TypeOPT:
			continue
		case dns.TypeTSIG:
			texts = append(texts, "TSIG error "+dns.RcodeToString[int(rr.(*dns.TSIG).Error)])
			continue
		}
		texts = append(texts, canonical(rr))
	}
	slices.Sort(texts)
	return strings.Join(texts, "\n")
}

// canonical returns a record with its names in lower case: compression spells them as the question does.
func canonical(rr dns.RR) string {
	h := rr.Header()
	data := strings.TrimPrefix(rr.String(), h.Name)
	switch h.Rrtype {
	case dns.TypeNS, dns.TypePTR, dns.TypeCNAME, dns.TypeSOA, dns.TypeSRV, dns.TypeNSEC:
		data = strings.ToLower(data)
	}
	return strings.ToLower(h.Name) + data
}

// spelling says whether the records of the name that was asked for spell it as the question did.
func spelling(m *dns.Msg) string {
	for _, rr := range m.Answer {
		if name := rr.Header().Name; len(m.Question) == 1 && name != m.Question[0].Name && strings.EqualFold(name, m.Question[0].Name) {
			return name
		}
	}
	return "as asked"
}

// difference is one field in which a peer's answer is not ours.
type difference struct {
	probe probe
	// shape is the probe's.
	shape shape
	tcp   bool
	peer  string
	field string
	// ours and theirs are the whole replies.
	ours, theirs reply
}

// compare returns where a peer's reply to a probe is another than ours.
func compare(p probe, tcp bool, peer string, ours, theirs reply) []difference {
	var found []difference
	for i, field := range fields {
		a, ok := ours[field]
		b, also := theirs[field]
		if !ok || !also || a == b {
			continue
		}
		found = append(found, difference{probe: p, shape: shapeOf(p.msg), tcp: tcp, peer: peer, field: field, ours: ours, theirs: theirs})
		if i < decisive {
			break
		}
	}
	return found
}

// String describes a difference for people.
func (d difference) String() string {
	return fmt.Sprintf("%s over %s: %s\n  ours %q\n  %s %q", d.probe, network(d.tcp), d.field, d.ours[d.field], d.peer, d.theirs[d.field])
}
