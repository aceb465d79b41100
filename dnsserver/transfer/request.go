package transfer

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/provisionr/provisionr/dnsserver/tsig"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

// Extended errors (RFC 8914 section 4) as EDNS options.
var (
	prohibited       = []byte{0, 15, 0, 2, 0, 18}
	notAuthoritative = []byte{0, 15, 0, 2, 0, 20}
)

// request is a query that is being answered.
type request struct {
	server *Server
	set    *zone.Set
	from   netip.AddrPort
	tcp    bool
	// options are those of the server for the answer's OPT record.
	options []byte
	send    func(msg []byte) error

	q zone.Query
	// query is the message without its TSIG record, zone the one that the question lies in, or nil.
	query []byte
	zone  *zone.Zone
	// session signs the answer; it is nil where the query was not signed.
	session *tsig.Session
}

func (r *request) answer(ctx context.Context, query []byte) error {
	r.query = query
	verdict := zone.Parse(query, &r.q)
	switch {
	case verdict == zone.Drop:
		return nil
	case verdict == zone.Fail:
		return r.refuse(r.q.Code(), nil)
	case verdict == zone.Ask:
		return r.question(ctx)
	case !r.q.Signed():
		return r.refuse(zone.Refused, prohibited)
	}
	r.zone = r.set.Zone(&r.q)
	var keys []tsig.Key
	if r.zone != nil {
		keys = r.server.cfg.Policy(r.zone.Origin()).Keys
	}
	stripped, session, err := tsig.Verify(keys, query, time.Now())
	if err != nil {
		return r.refuse(zone.FormatError, nil)
	}
	r.query, r.session = stripped, session
	verdict = zone.Parse(stripped, &r.q)
	if code := session.Code(); code != tsig.OK {
		r.server.cfg.Logger.DebugContext(ctx, "dns query with a bad signature", "from", r.from, "error", code.String())
		return r.refuse(zone.NotAuthoritative, nil)
	}
	switch {
	case verdict == zone.Fail:
		return r.refuse(r.q.Code(), nil)
	case verdict == zone.Ask:
		return r.question(ctx)
	case r.isTransfer():
		return r.transfer(ctx)
	}
	return r.refuse(zone.Refused, prohibited) // We have no primary that could tell us something.
}

func (r *request) isTransfer() bool {
	return r.q.Opcode() == zone.OpcodeQuery && (r.q.Type() == zone.TypeAXFR || r.q.Type() == zone.TypeIXFR)
}

// limit returns how large the answer may be, in octets, TSIG record left aside.
func (r *request) limit() int {
	limit := zone.MaxMessage
	if !r.tcp {
		limit = min(r.q.Size(), zone.MaxUDP)
	}
	if r.session != nil {
		limit -= r.session.Overhead()
	}
	return limit
}

// refuse answers with nothing but a code.
func (r *request) refuse(code zone.Rcode, options []byte) error {
	return r.reply(r.q.Refuse(nil, code, &zone.Reply{Max: r.limit(), Options: slices.Concat(r.options, options)}))
}

// reply sends an answer of one message. Where that is more than the sender may get over UDP, it is told to come over TCP.
func (r *request) reply(msg []byte) error {
	if len(msg) < headerSize {
		return nil
	}
	if len(msg) > r.limit() {
		msg = r.truncated()
	}
	if r.session == nil {
		return r.send(msg)
	}
	again := *r.session // A message that was not sent is not what the next one follows.
	err := r.send(r.session.Sign(msg, time.Now()))
	if err != nil && !r.tcp && again.Code() == tsig.OK {
		err = r.send(again.Sign(r.truncated(), time.Now()))
	}
	return err
}

// truncated returns an answer of nothing but TC.
func (r *request) truncated() []byte {
	const truncated = 0x02
	msg := r.q.Refuse(nil, zone.Success, &zone.Reply{Max: r.limit(), Options: r.options})
	msg[2] |= truncated
	return msg
}

// question answers an ordinary question, as secondaries ask for the SOA.
func (r *request) question(ctx context.Context) error {
	msg, outcome := r.set.Answer(nil, &r.q, &zone.Reply{Max: r.limit(), Options: r.options})
	switch outcome {
	case zone.Foreign:
		return r.refuse(zone.Refused, notAuthoritative)
	case zone.Sign:
		if r.server.cfg.Online == nil {
			return r.refuse(zone.ServerFailure, nil)
		}
		msg = zone.WithOptions(r.server.cfg.Online(ctx, r.set, r.query, r.tcp), r.options)
	}
	return r.reply(msg)
}

// transfer answers AXFR and IXFR with a good key.
func (r *request) transfer(ctx context.Context) error {
	z, incremental := r.zone, r.q.Type() == zone.TypeIXFR
	var serial uint32
	switch {
	case z == nil || string(appendName(nil, z.Origin())) != string(r.q.Name()):
		return r.refuse(zone.NotAuthoritative, nil)
	case z.Mode() == zone.Online:
		return r.refuse(zone.Refused, prohibited)
	case !r.tcp && !incremental: // RFC 5936 section 4.2: there is no such thing.
		return r.refuse(zone.FormatError, nil)
	}
	if incremental {
		var ok bool
		if serial, ok = requestSerial(r.query, len(r.q.Name())); !ok {
			return r.refuse(zone.FormatError, nil)
		}
	}
	w := newWriter(ctx, &r.q, r.query, r.options, r.session, r.send)
	// RFC 1995 section 2: the SOA alone says that there is nothing new, and over UDP that TCP is to be used.
	if incremental && (!r.tcp || z.Serial() == serial || newer(serial, z.Serial())) {
		if err := w.all(appendRecord(nil, z.SOA())); err != nil {
			return err
		}
		return r.reply(w.message())
	}
	select {
	case r.server.slots <- struct{}{}:
		defer func() { <-r.server.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	start, kind, err := time.Now(), "AXFR", error(nil)
	if incremental {
		kind, err = w.difference(z, r.server.journal(z.Origin()), serial)
	} else {
		err = w.zone(z)
	}
	if err == nil {
		err = w.flush()
	}
	log := r.server.cfg.Logger.With("zone", z.Origin(), "secondary", r.from, "key", r.session.Key().Name(), "kind", kind, "serial", z.Serial())
	if err != nil {
		log.WarnContext(ctx, "zone transfer broke off", "error", err)
		return err
	}
	level := slog.LevelInfo
	if kind == "IXFR" {
		level = slog.LevelDebug // There is one each second while machines come and go.
	}
	log.Log(ctx, level, "zone transferred", "records", w.records, "octets", w.octets, "messages", w.messages, "duration", time.Since(start))
	return nil
}

// zone writes the whole zone (RFC 5936 section 2.2).
func (w *writer) zone(z *zone.Zone) error {
	var buf []byte
	for r := range z.All() {
		buf = appendRecord(buf[:0], r)
		if err := w.all(buf); err != nil {
			return err
		}
	}
	return w.all(appendRecord(buf[:0], z.SOA()))
}

// difference writes what leads from the version with the serial to the zone (RFC 1995 section 4), or the whole zone where that
// is not known or no shorter. It returns which.
func (w *writer) difference(z *zone.Zone, j *Journal, serial uint32) (string, error) {
	deltas, size, ok := j.between(serial, z.Serial())
	if !ok || !longer(z, size) {
		return "AXFR", w.zone(z)
	}
	soa := appendRecord(nil, z.SOA())
	if err := w.all(soa); err != nil {
		return "IXFR", err
	}
	for _, d := range deltas {
		if err := w.all(d.records); err != nil {
			return "IXFR", err
		}
	}
	return "IXFR", w.all(soa)
}

// longer reports whether the zone's records have more than size octets.
func longer(z *zone.Zone, size int) bool {
	for r := range z.All() {
		if size -= len(r.Name) + 1 + fixed + len(r.Data); size < 0 {
			return true
		}
	}
	return false
}
