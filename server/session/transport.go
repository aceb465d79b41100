package session

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/provisionr/provisionr/internal/errs"
)

// TransportConfig of the agents' port.
type TransportConfig struct {
	// TLS presents the member, asks for an optional agent's certificate, and admits one that ended less than
	// [RenewGrace] ago; its protocols include h2. Required.
	TLS *tls.Config
	// MaxHandshakes bounds the TLS handshakes in progress; further connections wait. Zero means 64.
	MaxHandshakes int
	// HandshakeTimeout is how long a handshake may take, and how long a connection waits for its turn. Zero means 10 s.
	HandshakeTimeout time.Duration
	// Keepalive is how long a connection may be silent before it is probed. Zero means 20 s.
	Keepalive time.Duration
}

// ServerOptions returns what a gRPC server for agents is made with: little memory for each idle stream, dead peers
// noticed, handshakes bounded. Agents may probe every 10 s.
func ServerOptions(c TransportConfig) []grpc.ServerOption {
	if c.MaxHandshakes <= 0 {
		c.MaxHandshakes = 64
	}
	if c.HandshakeTimeout <= 0 {
		c.HandshakeTimeout = 10 * time.Second
	}
	if c.Keepalive <= 0 {
		c.Keepalive = 20 * time.Second
	}
	const window = 64 << 10
	return []grpc.ServerOption{
		grpc.Creds(&admission{credentials.NewTLS(c.TLS), make(chan struct{}, c.MaxHandshakes), c.HandshakeTimeout}),
		grpc.ConnectionTimeout(2 * c.HandshakeTimeout),
		grpc.ReadBufferSize(0), grpc.WriteBufferSize(4096),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window), grpc.MaxConcurrentStreams(8),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxHeaderListSize(16 << 10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: c.Keepalive, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}

// admission bounds the TLS handshakes in progress: when all agents reconnect at once, they queue here and not in the
// scheduler, and each that gets its turn is served in time.
type admission struct {
	credentials.TransportCredentials
	slots   chan struct{}
	timeout time.Duration
}

// ServerHandshake waits for its turn. Where it returns an error, gRPC closes the connection.
func (a *admission) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	ctx, cancel := context.WithTimeout(context.Background(), a.timeout)
	defer cancel()
	select {
	case a.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, errs.New(errs.Exhausted, "too many connections at once")
	}
	defer func() { <-a.slots }()
	if err := conn.SetDeadline(time.Now().Add(a.timeout)); err != nil {
		return nil, nil, err
	}
	secured, info, err := a.TransportCredentials.ServerHandshake(conn)
	if err != nil {
		return nil, nil, err
	}
	// gRPC lifts the deadline when the connection has said that it speaks HTTP/2.
	return secured, info, conn.SetDeadline(time.Now().Add(a.timeout))
}

// Clone keeps the bound: gRPC clones credentials, the connections stay of one server.
func (a *admission) Clone() credentials.TransportCredentials {
	return &admission{a.TransportCredentials.Clone(), a.slots, a.timeout}
}
