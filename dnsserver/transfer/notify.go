package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/provisionr/provisionr/dnsserver/tsig"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

// Times of NOTIFY (RFC 1996 section 3.6, which leaves them open).
const (
	// notifyRest is the least time between two messages about one zone to one secondary.
	notifyRest = time.Second
	// notifyFirst is how long the first answer is waited for, after which the message is sent again. The time doubles with each
	// try, up to notifyLast, for as long as the secondary is one.
	notifyFirst = 2 * time.Second
	notifyLast  = time.Minute
	// maxNotify bounds the sockets that wait for an answer; further secondaries wait for one of them.
	maxNotify = 64
)

// target is a zone and a secondary that follows it.
type target struct {
	origin  string
	address netip.AddrPort
}

// notices are what the secondaries are still to be told.
type notices struct {
	wake chan struct{}

	mu sync.Mutex
	// news are the origins that changed since Run last looked.
	news map[string]bool
	// pending has an entry for each target that is being told: true if there was a change since the message under way.
	pending map[target]bool
	// codes are those of targets that did not want to be told.
	codes map[target]zone.Rcode
}

// Notify has the secondaries of the zones told that these changed. It does not wait. What was told before Run runs is told then.
func (s *Server) Notify(origins ...string) {
	s.notices.mu.Lock()
	for _, origin := range origins {
		s.notices.news[origin] = true
	}
	s.notices.mu.Unlock()
	select {
	case s.notices.wake <- struct{}{}:
	default: // It is awake already and sees this too.
	}
}

// Run tells secondaries of changes until ctx ends, which is not an error. Only one Run runs at a time.
func (s *Server) Run(ctx context.Context) error {
	var tellers sync.WaitGroup
	defer tellers.Wait()
	s.notices.mu.Lock()
	s.notices.pending = map[target]bool{}
	s.notices.mu.Unlock()
	sockets := make(chan struct{}, maxNotify)
	for {
		for _, t := range s.newTargets() {
			tellers.Go(func() { s.follow(ctx, t, sockets) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.notices.wake:
		}
	}
}

// newTargets takes the news and returns the targets that nobody is telling yet; the others are told once more.
func (s *Server) newTargets() []target {
	s.notices.mu.Lock()
	news := s.notices.news
	s.notices.news = map[string]bool{}
	s.notices.mu.Unlock()
	var idle []target
	for origin := range news {
		for _, secondary := range s.cfg.Policy(origin).Secondaries {
			t := target{origin, secondary.Address}
			s.notices.mu.Lock()
			if _, told := s.notices.pending[t]; !told {
				idle = append(idle, t)
			}
			s.notices.pending[t] = true
			s.notices.mu.Unlock()
		}
	}
	return idle
}

// take reports whether the target is to be told of a change. If not, it forgets the target.
func (n *notices) take(t target) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.pending[t] {
		delete(n.pending, t)
		return false
	}
	n.pending[t] = false
	return true
}

// speakFor notes that the next message speaks for whatever changed until now.
func (n *notices) speakFor(t target) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pending[t] = false
}

// maxCodes bounds the targets whose refusals are remembered.
const maxCodes = 10000

// answered reports whether the code of a target's answer is another one than before.
func (n *notices) answered(t target, code zone.Rcode) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	changed := n.codes[t] != code
	switch {
	case code == zone.Success:
		delete(n.codes, t)
	case changed:
		if len(n.codes) >= maxCodes {
			clear(n.codes) // Targets that are gone leave theirs behind.
		}
		n.codes[t] = code
	}
	return changed
}

// follow tells one target of changes until there are none left to tell.
func (s *Server) follow(ctx context.Context, t target, sockets chan struct{}) {
	log := s.cfg.Logger.With("zone", t.origin, "secondary", t.address)
	for s.notices.take(t) {
		failed := false
		for wait := notifyFirst; ; wait = min(2*wait, notifyLast) {
			started := time.Now()
			err := s.tell(ctx, t, min(wait, 2*notifyFirst), sockets, log)
			if ctx.Err() != nil {
				return
			}
			if failed = failed && !errors.Is(err, errGone); err == nil || errors.Is(err, errGone) {
				break
			}
			if !failed {
				failed = true
				log.Warn("cannot notify secondary, trying again", "error", err)
			}
			if !pause(ctx, wait-time.Since(started)) {
				return
			}
			s.notices.speakFor(t)
		}
		if failed {
			log.Info("secondary answers again")
		}
		if !pause(ctx, notifyRest) {
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

var (
	errNoAnswer = errors.New("no answer")
	errGone     = errors.New("the zone or its secondary is gone")
)

// tell sends one NOTIFY of the version that is being answered from and waits for the answer. Where the zone or the secondary is
// none any more, it is errGone.
func (s *Server) tell(ctx context.Context, t target, wait time.Duration, sockets chan struct{}, log *slog.Logger) error {
	select {
	case sockets <- struct{}{}:
		defer func() { <-sockets }()
	case <-ctx.Done():
		return ctx.Err()
	}
	zones, secondaries := s.cfg.Set().Zones(), s.cfg.Policy(t.origin).Secondaries
	z := slices.IndexFunc(zones, func(z *zone.Zone) bool { return z.Origin() == t.origin })
	i := slices.IndexFunc(secondaries, func(s Secondary) bool { return s.Address == t.address })
	if z < 0 || i < 0 {
		return errGone
	}
	conn, err := s.cfg.Dial(ctx, t.address)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // That ends the reading; there is nothing to lose.
	defer func() {
		if stop() {
			_ = conn.Close()
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	msg := notification(zones[z])
	a := awaited{query: msg}
	if key := secondaries[i].Key; !key.IsZero() {
		msg, a.session = tsig.Begin(key, msg, time.Now())
	}
	if _, err := conn.Write(msg); err != nil {
		return err
	}
	code, err := a.read(conn)
	switch {
	case err != nil || !s.notices.answered(t, code):
	case code == zone.Success:
		log.Info("secondary wants to be notified again")
	default:
		log.Warn("secondary does not want to be notified", "rcode", uint16(code), "serial", zones[z].Serial())
	}
	return err
}

// notification makes a NOTIFY (RFC 1996 section 3.7) that names the version.
func notification(z *zone.Zone) []byte {
	const authoritative = 0x04
	msg := make([]byte, headerSize, 512)
	binary.BigEndian.PutUint16(msg, uint16(rand.Uint32()))
	msg[2] = zone.OpcodeNotify<<3 | authoritative
	msg[5], msg[7] = 1, 1
	msg = appendName(msg, z.Origin())
	msg = append(msg, 0, byte(zone.TypeSOA), 0, classIN)
	return appendBody(append(msg, 0xc0, headerSize), z.SOA())
}

// awaited is a query of ours whose answer is awaited.
type awaited struct {
	// query is without its TSIG record.
	query   []byte
	session *tsig.Session
}

// read waits for the answer and returns its code. What is no answer to the query, or not signed as it has to be, might be sent
// by anybody and is passed over, but named if nothing better comes.
func (a awaited) read(conn net.Conn) (zone.Rcode, error) {
	buf := make([]byte, 4096)
	wrong := errNoAnswer
	// The bound is for a flood: it must not keep the reader busy for as long as it lasts.
	for range 64 {
		n, err := conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, wrong
		}
		if err != nil {
			return 0, err
		}
		code, err := a.accept(buf[:n])
		if err == nil {
			return code, nil
		}
		wrong = err
	}
	return 0, wrong
}

func (a awaited) accept(msg []byte) (zone.Rcode, error) {
	const response, opcode = 0x80, 0x78
	if len(msg) < headerSize || [2]byte(msg) != [2]byte(a.query) || msg[2]&response == 0 || msg[2]&opcode != a.query[2]&opcode {
		return 0, errors.New("what came is no answer to this")
	}
	if a.session != nil {
		if _, err := a.session.Accept(msg, time.Now()); err != nil {
			return 0, fmt.Errorf("cannot verify the answer with code %d: %w", msg[3]&0xf, err)
		}
	}
	return zone.Rcode(msg[3] & 0xf), nil
}
