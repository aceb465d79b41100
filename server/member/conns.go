package member

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/provisionr/provisionr/internal/errs"
)

// MaxMessage bounds a gRPC message between members, in bytes. It holds the largest request that consensus takes.
const MaxMessage = 16 << 20

// ConnsConfig says how to reach members.
type ConnsConfig struct {
	// TLS returns the configuration to dial a member with a protocol; it must believe that member's certificate alone.
	// An empty name stands for any member: Raft dials one whose name it does not know yet. Required.
	TLS func(member, protocol string) (*tls.Config, error)
	// Address returns host:port of a member's port 7445, or "" where it is not known. It is asked at every dial. Required.
	Address func(member string) string
	// Dial opens a TCP connection. Default: net.Dialer with a timeout of 5 s.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Conns holds one gRPC connection to each member that was asked for, made again by itself after a loss.
type Conns struct {
	config ConnsConfig

	mu     sync.Mutex
	closed bool
	conns  map[string]*grpc.ClientConn
}

// NewConns checks the configuration.
func NewConns(c ConnsConfig) (*Conns, error) {
	if c.TLS == nil || c.Address == nil {
		return nil, errs.New(errs.Internal, "cannot connect to members: TLS and addresses are required")
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	}
	return &Conns{config: c, conns: map[string]*grpc.ClientConn{}}, nil
}

// Conn returns the connection to a member. It does not wait for it to be up: calls on it do, or fail with Unavailable.
func (c *Conns) Conn(_ context.Context, member string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errs.New(errs.Unavailable, "cannot connect to server %s: this server is stopping", member)
	}
	if conn := c.conns[member]; conn != nil {
		return conn, nil
	}
	if c.config.Address(member) == "" {
		return nil, errs.New(errs.NotFound, "the address of server %s is not known", member)
	}
	conn, err := grpc.NewClient("passthrough:///"+member,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			address := c.config.Address(member)
			if address == "" {
				// It was removed meanwhile. Not NotFound: gRPC makes calls fail with Internal where dialing fails otherwise.
				return nil, errs.New(errs.Unavailable, "the address of server %s is not known any more", member)
			}
			return c.dial(ctx, member, address, ProtocolGRPC)
		}),
		grpc.WithTransportCredentials(handshaken{}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		// A member that is back should be found within a second; one that hangs should be noticed soon.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
	)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot connect to server %s: %w", member, err)
	}
	c.conns[member] = conn
	return conn, nil
}

// DialRaft opens a Raft stream to an address, at which the named member must answer; an empty name stands for any.
func (c *Conns) DialRaft(ctx context.Context, member, address string) (net.Conn, error) {
	return c.dial(ctx, member, address, ProtocolRaft)
}

func (c *Conns) dial(ctx context.Context, member, address, protocol string) (net.Conn, error) {
	config, err := c.config.TLS(member, protocol)
	if err != nil {
		return nil, err
	}
	config = config.Clone()
	config.NextProtos = []string{protocol}
	raw, err := c.config.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "cannot reach server %s at %s: %w", member, address, err)
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, errs.New(errs.Unavailable, "cannot make sure that server %s is at %s: %w", member, address, err)
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != protocol {
		_ = conn.Close()
		return nil, errs.New(errs.Unavailable, "server %s at %s does not speak %s", member, address, protocol)
	}
	return conn, nil
}

// Forget closes the connection to a member that was removed.
func (c *Conns) Forget(member string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.conns[member]; conn != nil {
		_ = conn.Close()
		delete(c.conns, member)
	}
}

// Close closes all connections; calls on them fail.
func (c *Conns) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for name, conn := range c.conns {
		_ = conn.Close()
		delete(c.conns, name)
	}
	return nil
}

// handshaken passes connections that are past their TLS handshake to gRPC, with the state of the handshake.
type handshaken struct{}

// ServerCredentials serve the connections of [Listener.GRPC]; peer.AuthInfo is a credentials.TLSInfo.
func ServerCredentials() credentials.TransportCredentials { return handshaken{} }

func (handshaken) info(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	tlsConn, ok := conn.(*tls.Conn)
	if !ok {
		return nil, nil, errs.New(errs.Internal, "a member connection is not past its handshake")
	}
	return conn, credentials.TLSInfo{
		State:          tlsConn.ConnectionState(),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

func (h handshaken) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return h.info(conn)
}

func (h handshaken) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return h.info(conn)
}

func (handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (h handshaken) Clone() credentials.TransportCredentials { return h }

func (handshaken) OverrideServerName(string) error { return nil }
