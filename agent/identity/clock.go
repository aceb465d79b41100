package identity

import (
	"sync"
	"time"
)

// clock knows the machine's own time and, once a server told its time, the servers'.
type clock struct {
	mu sync.Mutex
	// server is the servers' time at the moment anchor, which has a monotonic reading.
	server, anchor time.Time
	// offset is the servers' time less the machine's, as of the last run of the agent.
	offset time.Duration
}

// observe notes that a server's clock said server between sent and received, which have monotonic readings.
func (c *clock) observe(server, sent, received time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server, c.anchor = server, sent.Add(received.Sub(sent)/2)
}

// now is the best guess of the servers' time.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.anchor.IsZero() {
		return time.Now().Add(c.offset)
	}
	return c.server.Add(time.Since(c.anchor))
}

// candidates are the times at which a certificate may be valid, the best guess first.
func (c *clock) candidates() []time.Time {
	c.mu.Lock()
	offset := c.offset
	c.mu.Unlock()
	wall := time.Now()
	times := []time.Time{c.now(), wall}
	if offset != 0 {
		times = append(times, wall.Add(offset))
	}
	return times
}

// skew is how far the machine's clock is ahead of the servers'; zero while no server told its time.
// It follows later steps of the machine's clock.
func (c *clock) skew() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.anchor.IsZero() {
		return 0
	}
	now := time.Now()
	return now.Round(0).Sub(c.server.Add(now.Sub(c.anchor)).Round(0))
}
