//go:build openstack

package openstack

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/provisionr/provisionr/server/provider/providertest"
)

// wire is what is between the provider and the cloud: it counts calls, and makes of them what networks and proxies do.
type wire struct {
	mu       sync.Mutex
	calls    uint64
	watch    func()
	skip     int
	fail     int // negative: all
	throttle int
	after    time.Duration
	lose     providertest.Op
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.calls++
	watch, status := w.watch, 0
	switch {
	case w.throttle > 0:
		w.throttle--
		status = http.StatusTooManyRequests
	case w.fail != 0 && w.skip > 0:
		w.skip--
	case w.fail != 0:
		w.fail = max(w.fail-1, -1)
		status = http.StatusInternalServerError
	}
	after := w.after
	w.mu.Unlock()
	if watch != nil {
		watch()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if status != 0 {
		return refusal(r, status, after), nil
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && w.loses(r) {
		_ = response.Body.Close()
		return nil, io.ErrUnexpectedEOF
	}
	return response, err
}

func refusal(r *http.Request, status int, after time.Duration) *http.Response {
	response := &http.Response{
		StatusCode: status, Status: strconv.Itoa(status) + " " + http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: io.NopCloser(bytes.NewReader([]byte(`{"fault": {"code": 0, "message": "made up by the test"}}`))), Request: r,
	}
	if status == http.StatusTooManyRequests {
		response.Header.Set("Retry-After", strconv.Itoa(int((after+time.Second-1)/time.Second)))
	}
	return response
}

// loses reports whether the answer to this call is the one to lose.
func (w *wire) loses(r *http.Request) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	path := strings.TrimSuffix(r.URL.Path, "/")
	var is bool
	switch w.lose {
	case providertest.LaunchOp:
		is = r.Method == http.MethodPost && strings.HasSuffix(path, "/servers")
	case providertest.TerminateOp:
		is = r.Method == http.MethodDelete && strings.Contains(path, "/servers/")
	case providertest.FirewallOp:
		is = r.Method == http.MethodPost && strings.Contains(path, "/security-group")
	}
	if is {
		w.lose = ""
	}
	return is
}

func (w *wire) set(t *testing.T, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.skip, w.fail, w.throttle, w.lose, w.watch = 0, 0, 0, "", nil
	})
}

// controls fills in what the wire can bring about.
func (w *wire) controls(c *providertest.Controls) {
	c.Throttle = func(t *testing.T, calls int, after time.Duration) {
		w.set(t, func() { w.throttle, w.after = calls, after })
	}
	c.LoseResponse = func(t *testing.T, op providertest.Op) { w.set(t, func() { w.lose = op }) }
	c.Fail = func(t *testing.T, skip, calls int) { w.set(t, func() { w.skip, w.fail = skip, calls }) }
	c.Watch = func(t *testing.T, f func()) func() {
		w.set(t, func() { w.watch = f })
		return func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.watch = nil
		}
	}
	c.Calls = func() uint64 {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.calls
	}
}
