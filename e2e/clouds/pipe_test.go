package clouds

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
)

// network is a network of one host: whatever is dialed, with or without TLS, reaches its handler in plain. It has no goroutine that waits for anything
// outside a bubble.
type network struct {
	connections chan net.Conn
	closed      chan struct{}
	server      *http.Server
	served      sync.WaitGroup
}

func newNetwork(handler http.Handler) *network {
	n := &network{connections: make(chan net.Conn), closed: make(chan struct{}), server: &http.Server{Handler: handler}}
	n.served.Go(func() { _ = n.server.Serve(n) })
	return n
}

// client returns one more client, with connections of its own.
func (n *network) client() *http.Client {
	return &http.Client{Transport: whole{&http.Transport{DialContext: n.dial, DialTLSContext: n.dial, MaxIdleConnsPerHost: 16}}}
}

func (n *network) close() {
	_ = n.server.Close()
	n.served.Wait()
}

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case n.connections <- far:
		return near, nil
	case <-n.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept, Close and Addr implement net.Listener.
func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.connections:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error {
	close(n.closed)
	return nil
}

func (n *network) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

// whole sends requests with bodies of its own. SDKs close theirs as soon as there is an answer; over a pipe that is often
// before the transport has seen the body's end, and then it gives the connection up in the middle of the answer.
type whole struct{ *http.Transport }

func (w whole) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return w.Transport.RoundTrip(r)
	}
	data, err := io.ReadAll(r.Body)
	if err = errors.Join(err, r.Body.Close()); err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(data))
	return w.Transport.RoundTrip(r)
}
