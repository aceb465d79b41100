package dnsserver

import (
	"context"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// turns is how many batches a reader answers before it lets other goroutines have the processor.
const turns = 8

// errorPause is how long a reader or accepter rests after an error of the kernel, such as no memory or too many files.
const errorPause = 50 * time.Millisecond

// serveUDP reads and answers until the server stops, and closes the socket.
func (s *Server) serveUDP(ctx context.Context, socket *socket, wildcard bool, c *counters) {
	r := reader{responder: responder{s: s}, socket: socket, batch: newBatch(wildcard), counters: c}
	defer socket.close()
	defer r.waiting.Wait()
	r.run(ctx)
}

// reader answers the queries of one socket.
type reader struct {
	responder
	socket   *socket
	batch    *batch
	counters *counters
	messages [batchSize][]byte
	queries  [batchSize]zone.Query
	verdicts [batchSize]zone.Verdict
	// waiting are the queries that wait for a slower answer.
	waiting sync.WaitGroup
}

func (r *reader) run(ctx context.Context) {
	var n int
	var errno unix.Errno
	read := func(uintptr) bool {
		n, errno = r.batch.read(r.socket.fd)
		return errno != unix.EAGAIN
	}
	for turn := 1; ; turn++ {
		if turn%turns == 0 {
			if ctx.Err() != nil {
				return
			}
			runtime.Gosched()
		}
		if r.socket.watched || !read(0) {
			if err := r.socket.watch(true); err != nil {
				pause(ctx)
				continue
			}
			if r.socket.read(read) != nil {
				if ctx.Err() != nil {
					return
				}
				pause(ctx)
				continue
			}
		}
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			pause(ctx)
			continue
		case n == batchSize:
			// There is more to come. Where it cannot be told so, the poller sees it all, which costs time and no more.
			_ = r.socket.watch(false)
		}
		r.answer(ctx, n)
		r.counters.add(&r.tally)
		if !r.write(ctx) {
			return
		}
		r.batch.reset(n)
	}
}

// pause rests for errorPause.
func pause(ctx context.Context) {
	timer := time.NewTimer(errorPause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// answer makes the answers to the n queries that were read.
func (r *reader) answer(ctx context.Context, n int) {
	r.refresh(time.Now())
	for i := range n {
		r.messages[i], _ = r.batch.query(i)
	}
	r.set.ParseAll(r.messages[:n], r.queries[:n], r.verdicts[:n])
	for i := range n {
		_, cut := r.batch.query(i)
		from := r.batch.source(i)
		answer, next := r.respond(r.batch.room(), &r.queries[i], r.verdicts[i], cut, from.Addr())
		if next == stepDone {
			r.batch.answer(i, answer)
			continue
		}
		p := r.batch.take(i, from)
		p.max, p.options = r.reply.Max, append([]byte(nil), r.reply.Options...)
		r.later(ctx, p, next)
	}
	r.settle()
	r.set = nil // A reader that waits keeps no zones alive that nobody serves any more.
}

// write sends the queued answers. It reports false when ctx has ended meanwhile.
func (r *reader) write(ctx context.Context) bool {
	for from := 0; from < r.batch.queued; {
		n, errno := r.batch.write(r.socket.fd, from)
		switch errno {
		case 0:
			from += n
		case unix.EAGAIN:
			if !r.socket.writable(ctx) {
				return false
			}
		case unix.EINTR:
		default:
			// A destination that cannot be, as port 0, or that the firewall forbids.
			r.tally[statUnsent]++
			from++
		}
	}
	return true
}

// later answers a packet in a goroutine, or drops it where too many wait.
func (r *reader) later(ctx context.Context, p packet, next step) {
	s, socket := r.s, r.socket
	select {
	case s.slow <- struct{}{}:
	default:
		r.tally[statOverflowed]++
		return
	}
	r.waiting.Go(func() {
		defer func() { <-s.slow }()
		send := func(msg []byte) error {
			switch {
			case len(msg) == 0:
				return nil
			case len(msg) > p.max:
				return ErrTooLarge
			}
			for {
				switch errno := p.send(socket.fd, msg); errno {
				case 0:
					return nil
				case unix.EAGAIN:
					if !socket.writable(ctx) {
						return ctx.Err()
					}
				default:
					return errno
				}
			}
		}
		// A lost answer is what UDP clients are ready for; they ask again.
		switch next {
		case stepFallback:
			p.max = zone.MaxMessage
			_ = send(s.cfg.Fallback(ctx, p.data, false))
		case stepSpecial:
			if s.cfg.Special(ctx, p.from, p.data, false, p.options, send) != nil {
				s.counters[0].n[statUnsent].Add(1)
			}
		case stepOnline:
			_ = send(p.fit(s.cfg.Online(ctx, s.set.Load(), p.data, false)))
		}
	})
}

// fit adds the answer's options to a message, or truncates it where it is larger than the source may get.
func (p *packet) fit(msg []byte) []byte {
	msg = zone.WithOptions(msg, p.options)
	if len(msg) <= p.max {
		return msg
	}
	var q zone.Query
	zone.Parse(p.data, &q)
	msg = q.Refuse(nil, zone.Success, &zone.Reply{Max: p.max, Options: p.options})
	if len(msg) > 2 {
		msg[2] |= flagTC
	}
	return msg
}
