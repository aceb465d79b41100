package member

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
)

// The protocols of the port, by ALPN.
const (
	ProtocolRaft = "provisionr-raft"
	ProtocolGRPC = "h2"
)

// Bounds of what connects.
const (
	// maxHandshakes is how many connections may be in their TLS handshake at once; more wait in the kernel's queue.
	maxHandshakes    = 128
	handshakeTimeout = 10 * time.Second
	// acceptQueue is how many connections wait for a protocol's server to accept them; more are closed.
	acceptQueue = 128
)

// ListenerConfig says what to listen on.
type ListenerConfig struct {
	// Inner accepts TCP connections. Required; Close and the end of Run close it.
	Inner net.Listener
	// TLS is asked once. The configuration must demand a server's certificate and offer both protocols. Required.
	TLS func() (*tls.Config, error)
	// Logger is required.
	Logger *slog.Logger
}

// Listener accepts connections of members and hands each to the server of its protocol.
type Listener struct {
	inner net.Listener
	tls   *tls.Config
	log   *slog.Logger

	raft, grpc *accepted
	handshakes chan struct{}
	wg         sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	pending map[net.Conn]struct{}
}

// NewListener checks the configuration. Nothing is accepted before Run.
func NewListener(c ListenerConfig) (*Listener, error) {
	if c.Inner == nil || c.TLS == nil || c.Logger == nil {
		return nil, errs.New(errs.Internal, "cannot listen for members: inner listener, TLS and logger are required")
	}
	config, err := c.TLS()
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "cannot listen for members: %w", err)
	}
	config = config.Clone()
	config.NextProtos = []string{ProtocolRaft, ProtocolGRPC}
	l := &Listener{inner: c.Inner, tls: config, log: c.Logger, handshakes: make(chan struct{}, maxHandshakes), pending: map[net.Conn]struct{}{}}
	l.raft, l.grpc = newAccepted(c.Inner.Addr()), newAccepted(c.Inner.Addr())
	return l, nil
}

// Raft returns the listener of Raft's connections.
func (l *Listener) Raft() net.Listener { return l.raft }

// GRPC returns the listener of gRPC connections. They are past their handshake: serve them with [ServerCredentials].
func (l *Listener) GRPC() net.Listener { return l.grpc }

// Run accepts until the context ends or the inner listener fails; then it closes everything and returns why.
func (l *Listener) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer l.wg.Wait()
	defer l.Close()
	for {
		conn, err := l.inner.Accept()
		if ctx.Err() != nil {
			if conn != nil {
				_ = conn.Close()
			}
			return ctx.Err()
		}
		if err != nil {
			var temporary net.Error
			if errors.As(err, &temporary) && temporary.Timeout() {
				continue
			}
			return errs.New(errs.Unavailable, "cannot accept connections of members: %w", err)
		}
		select {
		case l.handshakes <- struct{}{}:
		case <-ctx.Done():
			_ = conn.Close()
			return ctx.Err()
		}
		l.wg.Go(func() {
			defer func() { <-l.handshakes }()
			l.admit(ctx, conn)
		})
	}
}

func (l *Listener) admit(ctx context.Context, raw net.Conn) {
	if !l.track(raw, true) {
		_ = raw.Close()
		return
	}
	defer l.track(raw, false)
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Server(raw, l.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		l.log.Debug("member connection refused", "remote", raw.RemoteAddr(), "error", err)
		_ = raw.Close()
		return
	}
	to := l.grpc
	switch conn.ConnectionState().NegotiatedProtocol {
	case ProtocolRaft:
		to = l.raft
	case ProtocolGRPC:
	default:
		l.log.Debug("member connection without a protocol refused", "remote", raw.RemoteAddr())
		_ = conn.Close()
		return
	}
	if !to.offer(conn) {
		l.log.Warn("member connection dropped: too many wait", "remote", raw.RemoteAddr())
		_ = conn.Close()
	}
}

// track remembers connections in their handshake, so that Close ends them too.
func (l *Listener) track(conn net.Conn, add bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !add {
		delete(l.pending, conn)
		return true
	}
	if l.closed {
		return false
	}
	l.pending[conn] = struct{}{}
	return true
}

// Close stops accepting. Connections that were accepted belong to their servers.
func (l *Listener) Close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	for conn := range l.pending {
		_ = conn.Close()
	}
	l.mu.Unlock()
	if !first {
		return nil
	}
	_ = l.raft.Close()
	_ = l.grpc.Close()
	return l.inner.Close()
}

// accepted is the net.Listener of one protocol.
type accepted struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newAccepted(addr net.Addr) *accepted {
	return &accepted{addr: addr, conns: make(chan net.Conn, acceptQueue), done: make(chan struct{})}
}

func (a *accepted) offer(conn net.Conn) bool {
	select {
	case <-a.done:
		return false
	default:
	}
	select {
	case a.conns <- conn:
		return true
	default:
		return false
	}
}

// Accept implements net.Listener.
func (a *accepted) Accept() (net.Conn, error) {
	select {
	case <-a.done:
		return nil, net.ErrClosed
	case conn := <-a.conns:
		return conn, nil
	}
}

// Close implements net.Listener. Connections that nobody accepted are closed.
func (a *accepted) Close() error {
	a.once.Do(func() { close(a.done) })
	for {
		select {
		case conn := <-a.conns:
			_ = conn.Close()
		default:
			return nil
		}
	}
}

// Addr implements net.Listener.
func (a *accepted) Addr() net.Addr { return a.addr }
