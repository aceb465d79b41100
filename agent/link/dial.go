package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/provisionr/provisionr/agent/desired"
)

const (
	// attemptTimeout bounds one endpoint: all its addresses, the handshake and the first answer.
	attemptTimeout = 15 * time.Second
	addressTimeout = 5 * time.Second
	firstRetry     = 200 * time.Millisecond
	lastRetry      = time.Minute
	// settled is how long a session must have lasted for the back-off to start anew.
	settled = 10 * time.Second
	// pingInterval is longer than servers are silent, for they probe every 20 s: a ping is sent only where they are dead or
	// cut off. Servers allow 10 s.
	pingInterval = 30 * time.Second
	pingTimeout  = 15 * time.Second
)

// connect prepares a connection to one endpoint; it is made by the first call. It is tuned for one quiet stream: buffers
// are small or shared, for they would be idle nearly always.
func connect(endpoint string, config *tls.Config, agentVersion string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+endpoint,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(dialAny),
		grpc.WithReadBufferSize(0),
		grpc.WithWriteBufferSize(4<<10),
		grpc.WithInitialWindowSize(64<<10),
		grpc.WithInitialConnWindowSize(64<<10),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingInterval, Timeout: pingTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(desired.MaxComponent+64<<10)),
		// This package tries again itself, at every endpoint; gRPC must not do so behind its back.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: lastRetry, MaxDelay: lastRetry}, MinConnectTimeout: attemptTimeout}),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithUserAgent("provisionr-agent/"+agentVersion),
	)
}

// dialAny resolves the host anew and tries its addresses in random order.
func dialAny(ctx context.Context, endpoint string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return nil, err
	}
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil, err
	}
	rand.Shuffle(len(addrs), func(a, b int) { addrs[a], addrs[b] = addrs[b], addrs[a] })
	dialer := net.Dialer{Timeout: addressTimeout}
	var failed []error
	for _, addr := range addrs {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(addr, port))
		if err == nil {
			return conn, nil
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("cannot reach %s: %w", endpoint, errors.Join(failed...))
}

// wait is the pause after a number of rounds without success: doubling, capped, less up to half by chance.
func wait(failures int) time.Duration {
	d := lastRetry
	if failures < 10 {
		d = min(firstRetry<<max(0, failures-1), lastRetry)
	}
	return d/2 + rand.N(d/2)
}

// sleep waits, or reports false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
