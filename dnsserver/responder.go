package dnsserver

import (
	"net/netip"
	"time"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// amplification is how many times as large as the query an answer over UDP may be where its source may be forged.
const amplification = 3

const flagTC = 0x02

// step is what is left to do for a query.
type step uint8

const (
	// stepDone: it has its answer, or gets none.
	stepDone step = iota
	stepFallback
	stepSpecial
	stepOnline
)

// responder answers the queries that one goroutine reads. It does not allocate.
type responder struct {
	s   *Server
	tcp bool
	// set, unix and secrets are those of the batch, asker who sent the last query of it.
	set     *zone.Set
	unix    uint32
	secrets secrets
	asker   asker
	// trusted says of the query that its source is not forged, or is allowed to be.
	trusted bool
	query   *zone.Query
	reply   zone.Reply
	// options is the memory of reply's.
	options [128]byte
	tally   tally
}

// asker is what is known of a source. One that asks much is looked up once in a batch.
type asker struct {
	addr  netip.Addr
	known bool
	// bucket is where the limiter counts its answers, accounts the counts of the batch.
	bucket   bucket
	accounts [kindSlow + 1]account
}

// refresh takes up the zones, time and secrets of now.
func (r *responder) refresh(now time.Time) {
	r.set, r.unix, r.asker.addr = r.s.set.Load(), uint32(now.Unix()), netip.Addr{}
	if r.s.cfg.Cookies != nil {
		r.secrets = r.s.cfg.Cookies()
	}
}

// respond appends the answer to a parsed message to dst, or says what else it takes. A message that was cut is malformed.
func (r *responder) respond(dst []byte, query *zone.Query, verdict zone.Verdict, cut bool, from netip.Addr) ([]byte, step) {
	r.tally[statQueries]++
	r.query = query
	if verdict == zone.Drop {
		r.tally[statIgnored]++
		return dst, stepDone
	}
	if from != r.asker.addr {
		r.settle()
		r.asker.addr, r.asker.known, r.asker.bucket = from, r.s.known(from), r.s.limiter.bucket(from)
	}
	genuine := r.meet()
	switch {
	case cut:
		return r.fail(dst, zone.FormatError), stepDone
	case verdict == zone.Fail:
		return r.fail(dst, r.failure(genuine)), stepDone
	case r.set == nil:
		return r.explain(dst, zone.ServerFailure, errorNotReady), stepDone
	case verdict == zone.Special:
		return r.special(dst)
	}
	start := len(dst)
	dst, outcome := r.set.Answer(dst, r.query, &r.reply)
	k := kindPositive
	switch outcome {
	case zone.Positive:
		r.tally[statPositive]++
	case zone.Truncated:
		r.tally[statTruncated]++
	case zone.NoData:
		r.tally[statNoData]++
		k = kindNoData
	case zone.NoName:
		r.tally[statNameError]++
		k = kindNameError
	case zone.Sign:
		return r.online(dst)
	default:
		return r.foreign(dst)
	}
	return r.limit(dst, start, k), stepDone
}

// permit counts an answer to the source of the query.
func (r *responder) permit(k kind) permit {
	if r.s.limiter == nil {
		return permitAnswer
	}
	a := &r.asker.accounts[k]
	if a.entry == nil {
		*a = r.s.limiter.open(r.asker.bucket, k, r.unix)
	}
	return r.s.limiter.take(a)
}

// settle has the limiter know of all answers so far.
func (r *responder) settle() {
	for i := range r.asker.accounts {
		r.asker.accounts[i].close()
	}
}

// meet finds out what the source may get, and makes the options of the answer. It reports whether the query has a valid
// server cookie.
func (r *responder) meet() (genuine bool) {
	options := r.options[:0]
	if cookie := r.query.Cookie(); cookie != nil && r.hasCookies() {
		var fresh bool
		genuine, fresh = r.secrets.check(cookie, r.asker.addr, r.unix)
		options = appendOption(options, zone.OptionCookie, clientCookie+serverCookie)
		if fresh {
			options = append(options, cookie...)
		} else {
			options = r.secrets.give(options, cookie, r.asker.addr, r.unix)
		}
	}
	if genuine {
		r.tally[statCookies]++
	}
	r.trusted = r.tcp || genuine || r.asker.known
	switch {
	case r.tcp:
		r.reply.Max = zone.MaxMessage
		if r.query.EDNS() {
			options = appendKeepalive(options, r.s.cfg.IdleTimeout)
		}
	default:
		r.reply.Max = min(r.query.Size(), zone.MaxUDP)
	}
	size := r.query.Len()
	if !r.trusted {
		r.reply.Max = min(r.reply.Max, amplification*size)
	}
	// A courtesy, which must not cost the answer its room.
	if id := r.s.cfg.ID; id != "" && r.query.NSID() && (r.trusted || len(options)+optionHeader+len(id) <= size) {
		options = append(appendOption(options, zone.OptionNSID, len(id)), id...)
	}
	r.reply.Options = options
	return genuine
}

func (r *responder) hasCookies() bool { return r.secrets[0] != [16]byte{} }

// failure returns the code of a query that needs no look-up.
func (r *responder) failure(genuine bool) zone.Rcode {
	code := r.query.Code()
	// Without a question, the cookie is what is asked for (RFC 7873 section 5.4).
	switch {
	case code != zone.Success:
		return code
	case !r.hasCookies():
		return zone.FormatError
	case len(r.query.Cookie()) > clientCookie && !genuine:
		return zone.BadCookie
	}
	return zone.Success
}

// foreign is for questions about names that no zone has.
func (r *responder) foreign(dst []byte) ([]byte, step) {
	if r.s.cfg.Fallback == nil {
		return r.explain(dst, zone.Refused, errorNotAuthoritative), stepDone
	}
	return r.slow(dst, stepFallback)
}

// special is for what is more than a question.
func (r *responder) special(dst []byte) ([]byte, step) {
	switch {
	case r.s.cfg.Special != nil:
		return r.slow(dst, stepSpecial)
	case r.query.Opcode() == zone.OpcodeNotify:
		return r.fail(dst, zone.NotImplemented), stepDone
	}
	return r.explain(dst, zone.Refused, errorProhibited), stepDone
}

// online is for what has to be signed first. That costs so much that who is no known source gets only so many of it, even
// where it is where it says.
func (r *responder) online(dst []byte) ([]byte, step) {
	if r.s.cfg.Online == nil {
		return r.fail(dst, zone.ServerFailure), stepDone
	}
	if r.trusted && !r.asker.known && r.permit(kindSlow) != permitAnswer {
		r.tally[statLimited]++
		return r.fail(dst, zone.ServerFailure), stepDone
	}
	return r.slow(dst, stepOnline)
}

// slow limits what costs more than a look-up before it costs it.
func (r *responder) slow(dst []byte, next step) ([]byte, step) {
	if !r.trusted {
		switch r.permit(kindSlow) {
		case permitNone:
			r.tally[statLimited]++
			return dst, stepDone
		case permitSlip:
			return r.slip(dst), stepDone
		}
	}
	r.tally[statDeferred]++
	return dst, next
}

// explain answers with a code and an extended error.
func (r *responder) explain(dst []byte, code zone.Rcode, extended uint16) []byte {
	r.reply.Options = appendError(r.reply.Options, extended)
	return r.fail(dst, code)
}

// fail answers with a code alone.
func (r *responder) fail(dst []byte, code zone.Rcode) []byte {
	if code == zone.Refused {
		r.tally[statRefused]++
	} else {
		r.tally[statFailed]++
	}
	start := len(dst)
	return r.limit(r.query.Refuse(dst, code, &r.reply), start, kindError)
}

// limit keeps back the answer that starts at start, where its source has had enough of that kind.
func (r *responder) limit(dst []byte, start int, k kind) []byte {
	if r.trusted {
		return dst
	}
	switch r.permit(k) {
	case permitNone:
		r.tally[statLimited]++
		return dst[:start]
	case permitSlip:
		return r.slip(dst[:start])
	}
	return dst
}

// slip answers what makes a real client come back by a way that cannot be forged: with the cookie that it is given
// (RFC 7873 section 5.2.3), or over TCP.
func (r *responder) slip(dst []byte) []byte {
	r.tally[statSlipped]++
	if r.query.Cookie() != nil && r.hasCookies() {
		return r.query.Refuse(dst, zone.BadCookie, &r.reply)
	}
	start := len(dst)
	dst = r.query.Refuse(dst, zone.Success, &r.reply)
	dst[start+2] |= flagTC
	return dst
}
