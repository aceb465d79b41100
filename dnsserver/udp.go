package dnsserver

import (
	"context"
	"net"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// turns is how many batches a reader answers before it lets other goroutines have the processor.
const turns = 8

// errorPause is how long a reader or accepter rests after an error of the kernel, such as no memory or too many files.
const errorPause = 50 * time.Millisecond

// serveUDP reads and answers until the socket is closed.
func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn, wildcard bool, c *counters) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	r := reader{responder: responder{s: s}, raw: raw, batch: newBatch(wildcard), counters: c}
	defer r.waiting.Wait()
	return r.run(ctx)
}

// reader answers the queries of one socket.
type reader struct {
	responder
	raw      syscall.RawConn
	batch    *batch
	counters *counters
	messages [batchSize][]byte
	queries  [batchSize]zone.Query
	verdicts [batchSize]zone.Verdict
	// waiting are the queries that wait for a slower answer.
	waiting sync.WaitGroup
}

func (r *reader) run(ctx context.Context) error {
	var n, sent int
	var errno unix.Errno
	// The poller of the runtime waits, in the place of the system calls, so that no processor is blocked.
	read := func(fd uintptr) bool {
		n, errno = r.batch.read(fd)
		return errno != unix.EAGAIN
	}
	write := func(fd uintptr) bool {
		var done bool
		sent, done = r.write(fd, sent)
		return done
	}
	for turn := 1; ; turn++ {
		if err := r.raw.Read(read); err != nil {
			return nil // It was closed.
		}
		if errno != 0 {
			if errno != unix.EINTR {
				pause(ctx)
			}
			continue
		}
		r.answer(ctx, n)
		r.counters.add(&r.tally)
		if sent = 0; r.batch.queued > 0 {
			if err := r.raw.Write(write); err != nil {
				return nil
			}
		}
		r.batch.reset(n)
		if turn%turns == 0 {
			runtime.Gosched()
		}
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
	r.set = nil // A reader that waits keeps no zones alive that nobody serves any more.
}

// write sends the queued answers from the given one on. It reports whether that is done with; else the socket is full.
func (r *reader) write(fd uintptr, from int) (int, bool) {
	for from < r.batch.queued {
		n, errno := r.batch.write(fd, from)
		switch errno {
		case 0:
			from += n
		case unix.EAGAIN:
			return from, false
		case unix.EINTR:
		default:
			// A destination that cannot be, as port 0, or that the firewall forbids.
			r.tally[statUnsent]++
			from++
		}
	}
	return from, true
}

// later answers a packet in a goroutine, or drops it where too many wait.
func (r *reader) later(ctx context.Context, p packet, next step) {
	s, raw := r.s, r.raw
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
			var errno unix.Errno
			err := raw.Write(func(fd uintptr) bool {
				errno = p.send(fd, msg)
				return errno != unix.EAGAIN
			})
			if err == nil && errno != 0 {
				err = errno
			}
			return err
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
