// Package fetch fetches files by their SHA-256 over HTTP: from the first of several URLs that has them, through the machine's
// proxy, within a bound of size and of silence. What was interrupted is resumed. Nothing is handed on before it is verified.
package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// silence is how long a transfer may stand still.
	silence        = 45 * time.Second
	maxValidator   = 512
	validatorAfter = ".validator"
)

// Client fetches. It is safe for several goroutines.
type Client struct {
	// ways are tried in turn until a server answers.
	ways    []*transport
	silence time.Duration
}

// New returns a Client of a machine. Where its proxy is for all programs, everything goes through it but for what noProxy names;
// where it is the package manager's alone, it is the second way, for a machine that has no other.
func New(m *agentv1.MachineComponent) (*Client, error) {
	via, err := url.Parse(m.GetHttpProxy())
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot use proxy %q: %w", Redacted(m.GetHttpProxy()), err)
	}
	c := &Client{silence: silence}
	if m.GetHttpProxy() == "" || !m.GetProxyEnvironment() {
		c.ways = append(c.ways, &transport{})
	}
	if m.GetHttpProxy() != "" {
		c.ways = append(c.ways, &transport{proxy: via, noProxy: m.GetNoProxy()})
	}
	return c, nil
}

// Direct reports whether a URL is reached without the proxy.
func Direct(u *url.URL, noProxy []string) bool {
	host := strings.ToLower(u.Hostname())
	addr, err := netip.ParseAddr(host)
	if host == "localhost" || err == nil && addr.IsLoopback() {
		return true
	}
	for _, n := range noProxy {
		n = strings.ToLower(n)
		prefix, notPrefix := netip.ParsePrefix(n)
		switch domain := strings.TrimPrefix(strings.TrimPrefix(n, "*"), "."); {
		case n == "*", n == host, n == strings.ToLower(u.Host):
			return true
		case err == nil && notPrefix == nil && prefix.Contains(addr):
			return true
		case err != nil && domain != "" && strings.HasSuffix(host, "."+domain):
			return true
		}
	}
	return false
}

// Bytes fetches at most max bytes whose hash is sum.
func (c *Client) Bytes(ctx context.Context, urls []string, sum []byte, max int64) ([]byte, error) {
	return each(urls, func(u string) ([]byte, error) {
		var b bytes.Buffer
		if err := c.transfer(ctx, u, 0, "", func(resp *http.Response) error {
			if resp.StatusCode != http.StatusOK {
				return status(resp)
			}
			return limited(&b, resp.Body, max)
		}); err != nil {
			return nil, err
		}
		if got := sha256.Sum256(b.Bytes()); !bytes.Equal(got[:], sum) {
			return nil, mismatch(got[:], sum)
		}
		return b.Bytes(), nil
	})
}

// each tries URLs in turn, and returns what all of them said where none works.
func each[T any](urls []string, f func(string) (T, error)) (T, error) {
	var failed []error
	var zero T
	kind := errs.Unavailable
	for _, u := range urls {
		got, err := f(u)
		if err == nil {
			return got, nil
		}
		if errs.Is(err, errs.Denied) || errs.Is(err, errs.Exhausted) {
			kind = errs.KindOf(err)
		}
		failed = append(failed, fmt.Errorf("%s: %w", Redacted(u), err))
	}
	return zero, errs.New(kind, "cannot fetch: %w", errors.Join(failed...))
}

// Redacted is a URL without its password and its query, which may hold a signature.
func Redacted(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "an unreadable URL"
	}
	u.RawQuery, u.Fragment = "", ""
	return u.Redacted()
}

func mismatch(got, want []byte) error {
	return errs.New(errs.Denied, "its SHA-256 is %x, wanted %x", got, want)
}

func status(resp *http.Response) error {
	kind := errs.Unavailable
	if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone {
		kind = errs.NotFound
	}
	return errs.New(kind, "the server answers %s", resp.Status)
}

// transfer makes one request, from an offset on, and ends it when it stands still.
func (c *Client) transfer(ctx context.Context, u string, offset int64, validator string, f func(*http.Response) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(c.silence, func() { cancel(fmt.Errorf("nothing came for %s", c.silence)) })
	defer stalled.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		if validator != "" {
			req.Header.Set("If-Range", validator)
		}
	}
	resp, err := c.answer(ctx, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := resp.Body
	resp.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
		n, err := body.Read(p)
		stalled.Reset(c.silence)
		if err != nil && err != io.EOF && context.Cause(ctx) != nil {
			err = context.Cause(ctx)
		}
		return n, err
	}))
	return f(resp)
}

// answer returns the first answer that any way brings.
func (c *Client) answer(ctx context.Context, req *http.Request) (*http.Response, error) {
	var failed []error
	for _, way := range c.ways {
		resp, err := way.do(ctx, req)
		if err == nil {
			return resp, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func limited(w io.Writer, r io.Reader, max int64) error {
	n, err := io.Copy(w, io.LimitReader(r, max+1))
	if err == nil && n > max {
		return errs.New(errs.Exhausted, "it is larger than %d bytes", max)
	}
	return err
}

// File fetches into a file below root, of at most max bytes whose hash is sum. What is in the file already is taken for the
// beginning. On an error other than of the hash the file stays, for the next try.
func (c *Client) File(ctx context.Context, root *os.Root, name string, urls []string, sum []byte, max int64) error {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	p := &part{client: c, root: root, name: name + validatorAfter, file: f, sum: sum, max: max}
	_, err = each(urls, func(u string) (struct{}, error) { return struct{}{}, p.from(ctx, u) })
	if err != nil {
		return err
	}
	if err := root.Remove(p.name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return f.Sync()
}
