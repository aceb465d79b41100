package stub

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/provisionr/provisionr/agent/dnsclient"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

const headerSize = 12

const (
	// restDown is for how long remembered answers are given at once after no server answered.
	restDown = 5 * time.Second
	// maxServers bounds how many servers are tried for one question, and so how long it takes.
	maxServers = 5
	// maxAlike is how many queries with one question may be in flight.
	maxAlike = 16
	// maxUpstream is how many queries may wait for upstreams. It leaves room for those about the cluster's names among the
	// 256 of [dnsserver.Config.MaxFallback].
	maxUpstream = 192
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
	defer s.upstream.Add(-1)
	if s.upstream.Add(1) > maxUpstream {
		return zone.Failure(nil, query, zone.ServerFailure)
	}
	answer, _ := s.calls.do(query, key, tcp, func() []byte { return try(ctx, upstreams, query, tcp, s.cfg.UpstreamTimeout) })
	if answer == nil {
		return zone.Failure(nil, query, zone.ServerFailure)
	}
	return readdress(answer, query, question)
}

// askServers asks the cluster's servers, and falls back on what they once answered.
func (s *Stub) askServers(ctx context.Context, servers []netip.AddrPort, query []byte, key string, question int, tcp bool) []byte {
	if time.Now().UnixNano() < s.down.Load() {
		if answer := s.remembered(query, key, question, tcp); answer != nil {
			return answer
		}
	}
	answer, asked := s.calls.do(query, key, tcp, func() []byte { return try(ctx, servers, query, tcp, s.cfg.ServerTimeout) })
	switch {
	case answer != nil && conclusive(answer):
		s.down.Store(0)
		s.stale.put(key, answer)
		return readdress(answer, query, question)
	case answer == nil && asked && ctx.Err() == nil:
		s.down.Store(time.Now().Add(restDown).UnixNano())
	}
	if remembered := s.remembered(query, key, question, tcp); remembered != nil {
		return remembered
	}
	if answer != nil {
		return readdress(answer, query, question)
	}
	return zone.Failure(nil, query, zone.ServerFailure)
}

// remembered answers with what the servers once answered, or returns nil. What was remembered may have come over TCP, or
// for another client: where it is larger than this one takes over UDP, it is to be asked for over TCP.
func (s *Stub) remembered(query []byte, key string, question int, tcp bool) []byte {
	answer := s.stale.get(key)
	if answer == nil {
		return nil
	}
	var q zone.Query
	if zone.Parse(query, &q); !tcp && len(answer) > q.Size() {
		return dnsclient.Cut(answer, query)
	}
	return readdress(answer, query, question)
}

// try asks servers one after the other, each for so long, until one has a conclusive answer. Else it returns the last answer,
// or nil.
func try(ctx context.Context, servers []netip.AddrPort, query []byte, tcp bool, timeout time.Duration) (last []byte) {
	network := "udp"
	if tcp {
		network = "tcp"
	}
	for _, server := range servers[:min(len(servers), maxServers)] {
		asking, cancel := context.WithTimeout(ctx, timeout)
		answer, err := dnsclient.Exchange(asking, network, server.String(), query)
		cancel()
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

// do returns what ask returns, to all who ask alike meanwhile. Where too many ask nearly alike, nobody is asked: a question
// that comes back through another resolver ends here. The key is that of [zone.Key].
func (c *calls) do(query []byte, key string, tcp bool, ask func() []byte) (answer []byte, asked bool) {
	alike, name := string(query[2:]), key[:len(key)-1]
	if tcp {
		alike += "tcp"
	}
	c.mu.Lock()
	if running := c.running[alike]; running != nil {
		c.mu.Unlock()
		<-running.done
		return running.answer, true
	}
	if c.questions[name] >= maxAlike {
		c.mu.Unlock()
		return nil, false
	}
	own := &call{done: make(chan struct{})}
	c.running[alike] = own
	c.questions[name]++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.running, alike)
		if c.questions[name]--; c.questions[name] == 0 {
			delete(c.questions, name)
		}
		close(own.done)
	}()
	own.answer = ask()
	return own.answer, true
}
