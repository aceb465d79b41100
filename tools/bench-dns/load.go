package main

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// sockets times window is how many queries are outstanding: 512.
const sockets = 8

// lost is when a query without an answer is given up.
const lost = 300 * time.Millisecond

// sampled is how often an answer is read whole; of the others the code is looked at.
const sampled = 64

// errSilent is the error of a load that nothing answered: the server begins only, or the host has much else to do.
var errSilent = errors.New("no answer came")

// load is what to send.
type load struct {
	port    int
	queries []query
	length  time.Duration
	// rate of queries in a second, sent whatever comes back. Zero sends as fast as answers come.
	rate float64
	// cpu to stay on, or -1.
	cpu int
	// sample is after how many answers one is read whole; 0 takes answers for what they are, as the echo's.
	sample int
}

// outcome of a load.
type outcome struct {
	answered, lost int
	took           time.Duration
	// latency is counted with a rate only, from when the query was due.
	latency histogram
}

func (o *outcome) perSecond() float64 { return float64(o.answered) / o.took.Seconds() }

// flight is a query on its way. Its id is slot | turn*window.
type flight struct {
	id    uint16
	busy  bool
	query int32
	since time.Duration
}

// lane is a socket with its flights.
type lane struct {
	*socket
	flights [window]flight
	free    []uint16
}

// generator runs a load on one thread.
type generator struct {
	load
	lanes []*lane
	next  int
	seen  int
	begin time.Time
	swept time.Duration
	outcome
}

// run sends the load. Answers that are wrong are an error.
func (l load) run() (*outcome, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := stayOn(l.cpu); err != nil {
		return nil, err
	}
	g := &generator{load: l}
	for range sockets {
		s, err := openSocket(l.port)
		if err != nil {
			return nil, err
		}
		defer s.close()
		n := &lane{socket: s}
		for i := range uint16(window) {
			n.flights[i].id = i
			n.free = append(n.free, i)
		}
		g.lanes = append(g.lanes, n)
	}
	g.begin = time.Now()
	var err error
	if l.rate > 0 {
		err = g.open()
	} else {
		err = g.closed()
	}
	g.took = time.Since(g.begin)
	if err == nil && g.answered == 0 {
		err = errSilent
	}
	return &g.outcome, err
}

// stayOn has this thread run on one processor, or on all.
func stayOn(cpu int) error {
	var set unix.CPUSet
	for i := range runtime.NumCPU() {
		if cpu < 0 || cpu == i {
			set.Set(i)
		}
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("cannot stay on processor %d: %w", cpu, err)
	}
	return nil
}

// closed keeps all slots busy.
func (g *generator) closed() error {
	for now := time.Duration(0); now < g.length; now = time.Since(g.begin) {
		moved := 0
		for _, n := range g.lanes {
			got, err := g.collect(n)
			if err != nil {
				return err
			}
			moved += got + g.fill(n, len(n.free), now, 0)
		}
		// With a processor of its own it never sleeps: waking it would be work of the server's.
		if moved == 0 && g.cpu < 0 {
			g.wait()
		}
		g.expire(now)
	}
	return nil
}

// open sends at the rate and looks for answers meanwhile, without ever sleeping.
func (g *generator) open() error {
	gap := time.Duration(float64(time.Second) / g.rate)
	due, now := time.Duration(0), time.Duration(0)
	for due < g.length && now < 2*g.length {
		for _, n := range g.lanes {
			if _, err := g.collect(n); err != nil {
				return err
			}
			now = time.Since(g.begin)
			if count := min(int((now-due)/gap), window/4); count > 0 {
				// Where no slot is free the queries stay due, and their wait counts.
				due += time.Duration(g.fill(g.roomiest(), count, due, gap)) * gap
			}
		}
		g.expire(now)
	}
	return nil
}

func (g *generator) roomiest() *lane {
	best := g.lanes[0]
	for _, n := range g.lanes {
		if len(n.free) > len(best.free) {
			best = n
		}
	}
	return best
}

// fill sends as many queries as are wanted and have slots, each due gap after the one before, and returns how many.
func (g *generator) fill(n *lane, want int, due, gap time.Duration) int {
	count := min(want, len(n.free))
	if count == 0 {
		return 0
	}
	for i, slot := range n.free[len(n.free)-count:] {
		f := &n.flights[slot]
		f.id += window
		f.query, f.since = int32((g.next+i)%len(g.queries)), due+time.Duration(i)*gap
		packet := g.queries[f.query].packet
		packet[0], packet[1] = byte(f.id>>8), byte(f.id)
		n.put(i, packet)
	}
	sent := n.send(count)
	first := len(n.free) - count
	for _, slot := range n.free[first : first+sent] {
		n.flights[slot].busy = true
	}
	n.free = append(n.free[:first], n.free[first+sent:]...)
	g.next = (g.next + sent) % len(g.queries)
	return sent
}

// collect takes what has come on a lane.
func (g *generator) collect(n *lane) (int, error) {
	count := n.receive()
	if count == 0 {
		return 0, nil
	}
	now := time.Since(g.begin)
	for i := range count {
		answer := n.packet(i)
		if len(answer) < header {
			return 0, errCut
		}
		id := uint16(answer[0])<<8 | uint16(answer[1])
		f := &n.flights[id%window]
		if !f.busy || f.id != id {
			// It was given up before.
			continue
		}
		if err := g.judge(&g.queries[f.query], answer); err != nil {
			return 0, fmt.Errorf("an answer to query %x is wrong: %w", g.queries[f.query].packet, err)
		}
		f.busy = false
		n.free = append(n.free, id%window)
		g.answered++
		if g.rate > 0 {
			g.latency.add(now - f.since)
		}
	}
	return count, nil
}

func (g *generator) judge(q *query, answer []byte) error {
	if g.sample == 0 {
		return nil
	}
	if g.seen++; g.seen%g.sample == 0 {
		return check(q, answer)
	}
	want := byte(0)
	if q.kind == missing {
		want = 3
	}
	if code := answer[3] & 15; code != want {
		return fmt.Errorf("its code is %d, not %d", code, want)
	}
	return nil
}

// wait sleeps until something comes, for 20 ms at most.
func (g *generator) wait() {
	var fds [sockets]unix.PollFd
	for i, n := range g.lanes {
		fds[i] = unix.PollFd{Fd: int32(n.fd), Events: unix.POLLIN}
	}
	// An interrupted wait is a short one.
	_, _ = unix.Poll(fds[:], 20)
}

// expire gives up what has no answer for long. It looks only now and then.
func (g *generator) expire(now time.Duration) {
	if now-g.swept < lost/8 {
		return
	}
	g.swept = now
	for _, n := range g.lanes {
		for i := range n.flights {
			if f := &n.flights[i]; f.busy && now-f.since > lost {
				f.busy = false
				n.free = append(n.free, uint16(i))
				g.lost++
			}
		}
	}
}
