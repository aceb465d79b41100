package fetch

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
)

const (
	maxRedirects = 5
	// openTimeout bounds the way to a server: connections, the proxy's answer, the TLS handshake.
	openTimeout = 20 * time.Second
)

// transport makes requests of one connection each (RFC 9112). The one of net/http does far more, and is a megabyte of the
// agent.
type transport struct {
	// proxy is nil where there is none.
	proxy   *url.URL
	noProxy []string
	// tls and resolve, which says where a server of host:port is, are nil but in tests.
	tls     *tls.Config
	resolve func(string) string
}

// do answers a request, following redirections. The answer's body holds the connection, which ends with ctx too.
func (t *transport) do(ctx context.Context, req *http.Request) (*http.Response, error) {
	for range maxRedirects + 1 {
		resp, err := t.once(ctx, req)
		if err != nil {
			return nil, err
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return resp, nil
		}
		next, err := resp.Location()
		err = errors.Join(err, resp.Body.Close())
		if err != nil {
			return nil, fmt.Errorf("a redirection leads nowhere: %w", err)
		}
		if next.Scheme != "http" && next.Scheme != "https" || req.URL.Scheme == "https" && next.Scheme == "http" {
			return nil, errs.New(errs.Denied, "a redirection leads to %s", Redacted(next.String()))
		}
		req = req.Clone(ctx)
		req.URL, req.Host = next, next.Host
	}
	return nil, fmt.Errorf("more than %d redirections", maxRedirects)
}

func (t *transport) once(ctx context.Context, req *http.Request) (*http.Response, error) {
	proxied := t.proxy != nil && !Direct(req.URL, t.noProxy)
	c, err := t.open(ctx, req.URL, proxied)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	write := req.Write
	if proxied && req.URL.Scheme == "http" {
		if a := authorization(t.proxy); a != "" {
			req = req.Clone(ctx)
			req.Header.Set("Proxy-Authorization", a)
		}
		write = req.WriteProxy
	}
	resp, err := exchange(c, write, req)
	if err != nil {
		stop()
		return nil, errors.Join(context.Cause(ctx), err, c.Close())
	}
	resp.Body = &body{resp.Body, c, stop}
	return resp, nil
}

// body is an answer's body that ends its connection.
type body struct {
	io.ReadCloser
	conn net.Conn
	stop func() bool
}

func (b *body) Close() error {
	b.stop()
	_ = b.conn.Close() // the rest of the answer is not wanted
	return nil
}

// exchange writes a request and reads the head of its answer.
func exchange(c net.Conn, write func(io.Writer) error, req *http.Request) (*http.Response, error) {
	if err := c.SetDeadline(time.Now().Add(silence)); err != nil {
		return nil, err
	}
	if err := write(c); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), req)
	if err != nil {
		return nil, err
	}
	return resp, c.SetDeadline(time.Time{})
}

// open connects to a server, or for http to the proxy in its place.
func (t *transport) open(ctx context.Context, u *url.URL, proxied bool) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, fmt.Errorf("not connected within %s", openTimeout))
	defer cancel()
	to := t.at(u)
	if proxied {
		to = address(t.proxy)
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	if proxied && t.proxy.Scheme == "https" {
		if c, err = t.secure(ctx, c, t.proxy); err != nil {
			return nil, err
		}
	}
	if u.Scheme != "https" {
		return c, nil
	}
	if proxied {
		if err := t.tunnel(ctx, c, u); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return t.secure(ctx, c, u)
}

func (t *transport) secure(ctx context.Context, c net.Conn, u *url.URL) (net.Conn, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.tls != nil {
		config = t.tls.Clone()
	}
	config.ServerName = u.Hostname()
	s := tls.Client(c, config)
	if err := s.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return s, nil
}

// tunnel has the proxy connect to a server (RFC 9110 section 9.3.6).
func (t *transport) tunnel(ctx context.Context, c net.Conn, u *url.URL) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: t.at(u)}, Host: t.at(u), Header: http.Header{}}
	if a := authorization(t.proxy); a != "" {
		req.Header.Set("Proxy-Authorization", a)
	}
	resp, err := exchange(c, req.Write, req)
	if err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	if resp.StatusCode != http.StatusOK {
		return errs.New(errs.Unavailable, "the proxy answers %s", resp.Status)
	}
	return nil
}

func authorization(proxy *url.URL) string {
	if proxy.User == nil {
		return ""
	}
	password, _ := proxy.User.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(proxy.User.Username()+":"+password))
}

// at is where a server is.
func (t *transport) at(u *url.URL) string {
	if t.resolve != nil {
		return t.resolve(address(u))
	}
	return address(u)
}

// address is host:port of a URL.
func address(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[u.Scheme]
	}
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}
