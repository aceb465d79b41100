package stub

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/dnsserver"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

// defaultAddr is where programs on the machine ask.
var defaultAddr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 62}), 53)

// Config of a Stub.
type Config struct {
	// Addr to listen on. Zero means 127.0.0.62:53.
	Addr netip.AddrPort
	// Upstreams returns the servers for names that are not the cluster's; it is called for each such question. Nil, or an
	// empty list, means that they are refused.
	Upstreams func() []netip.AddrPort
	// Logger is required.
	Logger *slog.Logger
	// ServerTimeout is how long each of the cluster's servers has to answer. Zero means 1 s. UpstreamTimeout is the same
	// for upstreams, which must ask others in turn. Zero means 3 s.
	ServerTimeout, UpstreamTimeout time.Duration
}

// Stub answers DNS queries of the machine.
type Stub struct {
	cfg   Config
	world atomic.Pointer[world]
	stale cache
	calls calls
	// down is when, in nanoseconds since 1970, servers that did not answer are worth waiting for again.
	down atomic.Int64
	// upstream is how many queries wait for upstreams.
	upstream atomic.Int64

	mu     sync.Mutex
	server *dnsserver.Server
	// ready is replaced by each Run.
	ready chan struct{}
}

// world is what one desired state makes of names. It is immutable.
type world struct {
	set     *zone.Set
	servers []netip.AddrPort
}

// New makes a Stub.
func New(cfg Config) (*Stub, error) {
	if cfg.Logger == nil {
		return nil, errors.New("stub: a logger is required")
	}
	if !cfg.Addr.IsValid() {
		cfg.Addr = defaultAddr
	}
	if cfg.Upstreams == nil {
		cfg.Upstreams = func() []netip.AddrPort { return nil }
	}
	cfg.ServerTimeout = cmp.Or(cfg.ServerTimeout, time.Second)
	cfg.UpstreamTimeout = cmp.Or(cfg.UpstreamTimeout, 3*time.Second)
	s := &Stub{cfg: cfg, stale: newCache(), calls: calls{running: map[string]*call{}, questions: map[string]int{}}, ready: make(chan struct{})}
	s.world.Store(&world{})
	return s, nil
}

// Set replaces what is answered, at once and as a whole. After an error all is as before.
func (s *Stub) Set(state *desired.State) error {
	zones, err := replica(state)
	if err != nil {
		return err
	}
	set, err := zone.NewSet(zones)
	if err != nil {
		return err
	}
	w := &world{set: set}
	for _, text := range state.Machine.GetDnsServers() {
		// A server that is given by name could only be found through this stub.
		if addr, err := netip.ParseAddrPort(text); err == nil && addr != s.cfg.Addr {
			w.servers = append(w.servers, addr)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.world.Store(w)
	s.down.Store(0)
	if s.server != nil {
		return s.server.Set(zones)
	}
	return nil
}

// Run serves until ctx ends, which is not an error. It may be called again after it returned.
func (s *Stub) Run(ctx context.Context) error {
	server, err := dnsserver.New(dnsserver.Config{
		Addrs: []netip.AddrPort{s.cfg.Addr}, Logger: s.cfg.Logger, MaxConns: 64, Readers: 1, Fallback: s.forward,
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	err = server.Set(s.world.Load().set.Zones())
	s.server = server
	close(s.ready)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.server, s.ready = nil, make(chan struct{})
	}()
	if err != nil {
		return err
	}
	return server.Run(ctx)
}

// addr waits until the stub listens and returns where.
func (s *Stub) addr(ctx context.Context) (netip.AddrPort, error) {
	s.mu.Lock()
	ready := s.ready
	s.mu.Unlock()
	select {
	case <-ready:
	case <-ctx.Done():
		return netip.AddrPort{}, ctx.Err()
	}
	s.mu.Lock()
	server := s.server
	s.mu.Unlock()
	if server == nil {
		return netip.AddrPort{}, errors.New("stub: not running")
	}
	select {
	case <-server.Ready():
		return server.Addr(), nil
	case <-ctx.Done():
		return netip.AddrPort{}, ctx.Err()
	}
}

// ParseUpstreams reads a list of addresses, one a line, each with or without a port (53). Lines that are none, and the
// stub's own address, are passed over.
func ParseUpstreams(text string) []netip.AddrPort {
	var upstreams []netip.AddrPort
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		addr, err := netip.ParseAddrPort(line)
		if err != nil {
			host, err := netip.ParseAddr(line)
			if err != nil {
				continue
			}
			addr = netip.AddrPortFrom(host, 53)
		}
		if addr != defaultAddr && !slices.Contains(upstreams, addr) {
			upstreams = append(upstreams, addr)
		}
	}
	return upstreams
}
