package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// Config of a Server.
type Config struct {
	// Addrs are the addresses to listen on, each for UDP and TCP. Port 0 takes a free one. At least one.
	Addrs []netip.AddrPort
	// Logger is required.
	Logger *slog.Logger
	// MaxConns bounds the TCP connections; further ones are closed at once. Zero means 256.
	MaxConns int
	// IdleTimeout closes a TCP connection without a complete query. Zero means 10 s (RFC 7766 section 6.2.3).
	IdleTimeout time.Duration
	// Fallback answers well-formed questions that no zone answers. It returns a complete message, or nothing to stay
	// silent; ctx ends with the server. Nil means REFUSED.
	Fallback func(ctx context.Context, query []byte, tcp bool) []byte
	// MaxFallback bounds the UDP queries that wait for the fallback; further ones are dropped. Zero means 256.
	MaxFallback int
	// Readers is the number of goroutines that read UDP, per address. Zero means one per processor, at most 4.
	Readers int
}

// Server answers DNS queries.
type Server struct {
	cfg       Config
	set       atomic.Pointer[zone.Set]
	ready     chan struct{}
	addrs     []netip.AddrPort
	fallbacks chan struct{}
	conns     chan struct{}
}

// New makes a server without zones. It opens nothing; Run does.
func New(cfg Config) (*Server, error) {
	switch {
	case len(cfg.Addrs) == 0:
		return nil, errors.New("dnsserver: no address to listen on")
	case cfg.Logger == nil:
		return nil, errors.New("dnsserver: no logger")
	}
	for _, a := range cfg.Addrs {
		if !a.IsValid() {
			return nil, errors.New("dnsserver: invalid address to listen on")
		}
	}
	setDefault(&cfg.MaxConns, 256)
	setDefault(&cfg.IdleTimeout, 10*time.Second)
	setDefault(&cfg.MaxFallback, 256)
	setDefault(&cfg.Readers, min(runtime.GOMAXPROCS(0), 4))
	return &Server{
		cfg: cfg, ready: make(chan struct{}),
		fallbacks: make(chan struct{}, cfg.MaxFallback), conns: make(chan struct{}, cfg.MaxConns),
	}, nil
}

func setDefault[T int | time.Duration](v *T, value T) {
	if *v <= 0 {
		*v = value
	}
}

// Set replaces all zones at once. Queries in progress are answered from the zones before. It refuses two zones of one
// origin, and then changes nothing.
func (s *Server) Set(zones []*zone.Zone) error {
	set, err := zone.NewSet(zones)
	if err != nil {
		return err
	}
	s.set.Store(set)
	return nil
}

// Zones returns the zones that are being answered from. The caller must not change them.
func (s *Server) Zones() []*zone.Zone { return s.set.Load().Zones() }

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
	failed := make(chan error, len(listeners)*(s.cfg.Readers+1))
	for _, l := range listeners {
		for range s.cfg.Readers {
			group.Go(func() { failed <- s.serveUDP(ctx, l.udp, l.wildcard) })
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
		l.close()
	}
	return err
}

// listener is the sockets of one address.
type listener struct {
	udp *net.UDPConn
	tcp *net.TCPListener
	// wildcard says that answers must name their source address, since the socket has none.
	wildcard bool
}

func (l listener) close() {
	// Closing is how readers are stopped; there is nothing to lose.
	_ = l.udp.Close()
	_ = l.tcp.Close()
}

func (s *Server) listen(ctx context.Context) (listeners []listener, err error) {
	for _, addr := range s.cfg.Addrs {
		l, err := open(ctx, addr)
		if err != nil {
			for _, l := range listeners {
				l.close()
			}
			return nil, fmt.Errorf("cannot listen for dns on %s: %w", addr, err)
		}
		listeners = append(listeners, l)
		s.addrs = append(s.addrs, netip.AddrPortFrom(addr.Addr(), uint16(l.tcp.Addr().(*net.TCPAddr).Port)))
	}
	return listeners, nil
}

// open opens both sockets of an address. With port 0 the kernel picks for TCP; that UDP has the same one free is likely
// but not certain, so it is tried a few times.
func open(ctx context.Context, addr netip.AddrPort) (l listener, err error) {
	for range 8 {
		var lc net.ListenConfig
		tcp, err := lc.Listen(ctx, "tcp", addr.String())
		if err != nil {
			return listener{}, err
		}
		l = listener{tcp: tcp.(*net.TCPListener), wildcard: addr.Addr().IsUnspecified()}
		port := uint16(tcp.Addr().(*net.TCPAddr).Port)
		udp, err := lc.ListenPacket(ctx, "udp", netip.AddrPortFrom(addr.Addr(), port).String())
		if err == nil {
			l.udp = udp.(*net.UDPConn)
			if l.wildcard {
				err = requestPacketInfo(l.udp)
			}
			if err != nil {
				l.close()
			}
			return l, err
		}
		_ = tcp.Close()
		if addr.Port() != 0 {
			return listener{}, err
		}
	}
	return listener{}, errors.New("no port free for both udp and tcp")
}
