package dnsserver

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// maxID bounds [Config.ID], in octets.
const maxID = 64

// ErrTooLarge is the error of an answer over UDP that is larger than its source may get.
var ErrTooLarge = errors.New("dnsserver: the answer is too large for udp")

// Config of a Server.
type Config struct {
	// Addrs are the addresses to listen on, each for UDP and TCP. Port 0 takes a free one. At least one.
	Addrs []netip.AddrPort
	// Logger is required.
	Logger *slog.Logger
	// MaxConns bounds the TCP connections; further ones are closed at once. Zero means 256. One unknown IPv4 /24 or IPv6
	// /56 may have a quarter of them, and all unknown sources together three quarters.
	MaxConns int
	// IdleTimeout closes a TCP connection without a complete query, or whose client does not read. Zero means 10 s
	// (RFC 7766 section 6.2.3). When three quarters of the connections are taken it is a quarter of that.
	IdleTimeout time.Duration
	// Readers is the number of goroutines that read UDP, each from a socket of its own, per address. Zero means one per
	// processor.
	Readers int
	// ID is who we are, for clients that ask (RFC 5001): at most 64 octets. Empty means that we do not say.
	ID string

	// Known reports whether a source's network is one where sources are not forged. Others get over UDP at most three
	// times the octets of their query, unless they show a cookie, and count against RateLimit. It is called for every
	// query, by many goroutines. Nil means that all are.
	Known func(netip.Addr) bool
	// RateLimit is how many answers of one kind (positive, NODATA, NXDOMAIN, errors, expensive) an unknown IPv4 /24 or
	// IPv6 /56 gets in a second over UDP. Of those beyond it every second is truncated, the others are not sent. With a
	// cookie and over TCP only what Online signs counts; beyond the limit it is SERVFAIL. Zero means no limit.
	RateLimit int
	// Cookies returns the secret of server cookies (RFC 7873, RFC 9018) and the one before, which is still accepted. All
	// servers of a zone should have the same. It is called for every batch of queries. Nil, or zero secrets, mean that
	// there are none.
	Cookies func() [2][16]byte

	// Fallback answers well-formed questions that no zone answers. It returns a complete message, or nothing to stay
	// silent; ctx ends with the server. Nil means REFUSED.
	Fallback func(ctx context.Context, query []byte, tcp bool) []byte
	// Special answers what is more than a question: AXFR, IXFR, NOTIFY and what is signed with TSIG. It calls send with
	// each message; the options belong into the OPT record of the first, where it has one. Over UDP there is one, of at most as many octets as the source may get, else send returns
	// [ErrTooLarge]; over TCP send returns an error when the client does not read. An error of Special closes a TCP
	// connection. Nil means REFUSED, and NOTIMP to NOTIFY.
	Special func(ctx context.Context, from netip.AddrPort, query []byte, tcp bool, options []byte, send func(msg []byte) error) error
	// Online answers questions about zones that are signed as they are asked. It returns a message that ends in an OPT
	// record without options, to which the server adds its own, or nothing to stay silent. Nil means SERVFAIL.
	Online func(ctx context.Context, set *zone.Set, query []byte, tcp bool) []byte
	// MaxFallback bounds the UDP queries that wait for these three; further ones are dropped. Zero means 256.
	MaxFallback int
}

// Server answers DNS queries.
type Server struct {
	cfg      Config
	set      atomic.Pointer[zone.Set]
	limiter  *limiter
	ready    chan struct{}
	addrs    []netip.AddrPort
	slow     chan struct{}
	conns    conns
	counters []counters
}

// New makes a server without zones. It opens nothing; Run does.
func New(cfg Config) (*Server, error) {
	switch {
	case len(cfg.Addrs) == 0:
		return nil, errors.New("dnsserver: no address to listen on")
	case cfg.Logger == nil:
		return nil, errors.New("dnsserver: no logger")
	case len(cfg.ID) > maxID:
		return nil, errors.New("dnsserver: the id is longer than 64 octets")
	}
	for _, a := range cfg.Addrs {
		if !a.IsValid() {
			return nil, errors.New("dnsserver: invalid address to listen on")
		}
	}
	setDefault(&cfg.MaxConns, 256)
	setDefault(&cfg.IdleTimeout, 10*time.Second)
	setDefault(&cfg.MaxFallback, 256)
	setDefault(&cfg.Readers, runtime.GOMAXPROCS(0))
	s := &Server{
		cfg: cfg, ready: make(chan struct{}), slow: make(chan struct{}, cfg.MaxFallback),
		conns: conns{max: cfg.MaxConns, of: map[netip.Prefix]int{}}, counters: make([]counters, 1+len(cfg.Addrs)*cfg.Readers),
	}
	if cfg.Known != nil {
		s.limiter = newLimiter(cfg.RateLimit)
	}
	return s, nil
}

func setDefault[T int | time.Duration](v *T, value T) {
	if *v <= 0 {
		*v = value
	}
}

// Set replaces all zones at once: no answer mixes two sets, and none that is asked for after Set returned is of the zones
// before, but for queries that had arrived by then. It refuses two zones of one origin, and then changes nothing. Before
// the first Set all questions get SERVFAIL.
func (s *Server) Set(zones []*zone.Zone) error {
	set, err := zone.NewSet(zones)
	if err != nil {
		return err
	}
	s.Use(set)
	return nil
}

// Use is [Server.Set] of a set that is made already, as for several servers.
func (s *Server) Use(set *zone.Set) { s.set.Store(set) }

// Current returns the zones that are being answered from; nil before the first Set.
func (s *Server) Current() *zone.Set { return s.set.Load() }

// known reports whether a source's network is one where sources are not forged.
func (s *Server) known(source netip.Addr) bool { return s.cfg.Known == nil || s.cfg.Known(source) }

// Ready is closed when all listeners are open.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr returns the first address that is listened on. It is valid once Ready is closed.
func (s *Server) Addr() netip.AddrPort { return s.addrs[0] }

// Run listens and answers until ctx ends, which is not an error. It can run once.
func (s *Server) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listeners, err := s.listen(ctx)
	if err != nil {
		return err
	}
	failed := make(chan error, len(listeners))
	next := 1 // The first counters are those of all connections.
	for _, l := range listeners {
		for _, socket := range l.udp {
			c := &s.counters[next]
			next++
			group.Go(func() { s.serveUDP(ctx, socket, l.wildcard, c) })
		}
		group.Go(func() { failed <- s.serveTCP(ctx, l.tcp) })
	}
	close(s.ready)
	s.cfg.Logger.Info("dns server listens", "addresses", s.addrs)
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	cancel()
	for _, l := range listeners {
		for _, socket := range l.udp {
			socket.stop() // Its reader closes it.
		}
		_ = l.tcp.Close()
	}
	return err
}
