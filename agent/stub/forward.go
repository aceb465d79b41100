package stub

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

const (
	// restDown is for how long remembered answers are given at once after no server answered.
	restDown = 5 * time.Second
	// maxServers bounds how many servers are tried for one question, and so how long it takes.
	maxServers = 5
	// maxAlike is how many queries with one question may be in flight.
	maxAlike = 16
	// staleTTL is the TTL of remembered answers, in seconds (RFC 8767 section 5).
	staleTTL = 30
)

// forward answers what the replica does not.
func (s *Stub) forward(ctx context.Context, query []byte, tcp bool) []byte {
	key, question := zone.Key(query)
	if key == "" {
		return zone.Failure(nil, query, zone.FormatError)
	}
	w := s.world.Load()
	if w.set.Covers(query) {
		return s.askServers(ctx, w.servers, query, key, question, tcp)
	}
	upstreams := slices.DeleteFunc(slices.Clone(s.cfg.Upstreams()), func(a netip.AddrPort) bool { return a == s.cfg.Addr })
	if len(upstreams) == 0 {
		return zone.Failure(nil, query, zone.Refused)
	}
	answer := s.calls.do(query, key, tcp, func() []byte { return try(ctx, upstreams, query, question, tcp, s.cfg.UpstreamTimeout) })
	if answer == nil {
		return zone.Failure(nil, query, zone.ServerFailure)
	}
	return readdress(answer, query, question)
}

// askServers asks the cluster's servers, and falls back on what they once answered.
func (s *Stub) askServers(ctx context.Context, servers []netip.AddrPort, query []byte, key string, question int, tcp bool) []byte {
	if tcp {
		key += "tcp" // An answer over TCP may be too large for UDP.
	}
	if time.Now().UnixNano() < s.down.Load() {
		if answer := s.stale.get(key); answer != nil {
			return readdress(answer, query, question)
		}
	}
	answer := s.calls.do(query, key, tcp, func() []byte { return try(ctx, servers, query, question, tcp, s.cfg.ServerTimeout) })
	switch {
	case answer == nil:
		s.down.Store(time.Now().Add(restDown).UnixNano())
	case conclusive(answer):
		s.down.Store(0)
		s.stale.put(key, answer)
		return readdress(answer, query, question)
	}
	if remembered := s.stale.get(key); remembered != nil {
		return readdress(remembered, query, question)
	}
	if answer != nil {
		return readdress(answer, query, question)
	}
	return zone.Failure(nil, query, zone.ServerFailure)
}

// try asks servers one after the other until one has a conclusive answer. Else it returns the last answer, or nil.
func try(ctx context.Context, servers []netip.AddrPort, query []byte, question int, tcp bool, timeout time.Duration) (last []byte) {
	for _, server := range servers[:min(len(servers), maxServers)] {
		answer, err := exchange(ctx, server, query, question, tcp, timeout)
		if ctx.Err() != nil {
			return last
		}
		if err != nil {
			continue
		}
		if last = answer; conclusive(answer) {
			return answer
		}
	}
	return last
}

// conclusive reports whether an answer says what is so, rather than that the server cannot tell.
func conclusive(answer []byte) bool {
	code := zone.Rcode(answer[3] & 0xf)
	return code == zone.Success || code == zone.NameError
}

// readdress copies an answer to one query for another with the same question: its id and its spelling of the name.
func readdress(answer, query []byte, question int) []byte {
	out := slices.Clone(answer)
	copy(out, query[:2])
	copy(out[headerSize:headerSize+question], query[headerSize:])
	return out
}

// calls are the questions in flight. Equal queries wait for one answer.
type calls struct {
	mu        sync.Mutex
	running   map[string]*call
	questions map[string]int
}

type call struct {
	done   chan struct{}
	answer []byte
}

// do returns what ask returns, to all who ask alike meanwhile. It returns nil where too many ask nearly alike: a
// question that comes back through another resolver ends here.
func (c *calls) do(query []byte, key string, tcp bool, ask func() []byte) []byte {
	alike := string(query[2:])
	if tcp {
		alike += "tcp"
	}
	c.mu.Lock()
	if running := c.running[alike]; running != nil {
		c.mu.Unlock()
		<-running.done
		return running.answer
	}
	if c.questions[key] >= maxAlike {
		c.mu.Unlock()
		return nil
	}
	own := &call{done: make(chan struct{})}
	c.running[alike] = own
	c.questions[key]++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.running, alike)
		if c.questions[key]--; c.questions[key] == 0 {
			delete(c.questions, key)
		}
		close(own.done)
	}()
	own.answer = ask()
	return own.answer
}
