// Package memnet is a network of one HTTP server, in memory: nothing but channels is between it and its clients, so that both
// live in one bubble of testing/synctest.
package memnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
)

// maxIdle is how many connections a client keeps.
const maxIdle = 16

// Network serves one handler. Make it with Serve and end it with Close.
type Network struct {
	connections chan net.Conn
	closed      chan struct{}
	once        sync.Once
	server      *http.Server
	served      sync.WaitGroup
}

// Serve starts a server for the handler.
func Serve(handler http.Handler) *Network {
	n := &Network{connections: make(chan net.Conn), closed: make(chan struct{}), server: &http.Server{Handler: handler}}
	n.served.Go(func() { _ = n.server.Serve(listener{n}) }) // it ends by Close only
	return n
}

// Client returns one more client, with connections of its own. Whatever it dials, with or without TLS, reaches the server.
func (n *Network) Client() *http.Client {
	return &http.Client{Transport: whole{&http.Transport{DialContext: n.dial, DialTLSContext: n.dial, MaxIdleConnsPerHost: maxIdle}}}
}

// Close ends the server and every connection, and waits until it has ended.
func (n *Network) Close() error {
	err := n.server.Close()
	n.served.Wait()
	return err
}

func (n *Network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
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

// listener is the server's end of a Network.
type listener struct{ *Network }

func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.connections:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (listener) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

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
