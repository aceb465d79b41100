package ec2test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
)

// pipe serves HTTP over net.Pipe, so that nothing but channels is between client and server.
func (s *Server) pipe(tb testing.TB) *http.Client {
	listener := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	server := &http.Server{Handler: s}
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			tb.Errorf("the test server ended: %v", err)
		}
	})
	transport := &http.Transport{DialContext: listener.dial, DialTLSContext: listener.dial, MaxIdleConnsPerHost: 16}
	tb.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := server.Close(); err != nil {
			tb.Errorf("cannot close the test server: %v", err)
		}
		wait.Wait()
	})
	return &http.Client{Transport: wholeBody{transport}}
}

// wholeBody sends requests with bodies of its own. The SDK closes its body as soon as there is an answer; over a pipe that
// is often before the transport has seen the body's end, and then it gives the connection up in the middle of the answer.
type wholeBody struct{ transport *http.Transport }

func (w wholeBody) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return w.transport.RoundTrip(r)
	}
	data, err := io.ReadAll(r.Body)
	if err = errors.Join(err, r.Body.Close()); err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(data))
	return w.transport.RoundTrip(r)
}

// CloseIdleConnections is what http.Client.CloseIdleConnections calls.
func (w wholeBody) CloseIdleConnections() { w.transport.CloseIdleConnections() }

type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }

func (pipeAddr) String() string { return "ec2test" }
