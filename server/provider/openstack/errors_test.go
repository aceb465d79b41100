package openstack

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/provisionr/provisionr/server/provider"
)

func response(status int, body string, header ...string) error {
	h := http.Header{}
	for n := 0; n < len(header); n += 2 {
		h.Set(header[n], header[n+1])
	}
	return gophercloud.ErrUnexpectedResponseCode{Actual: status, Body: []byte(body), ResponseHeader: h, URL: "http://cloud/secret-path"}
}

// TestKinds has answers as the services gave them.
func TestKinds(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		kind provider.Kind
		says string
	}{
		{"nova's quota", response(403, `{"forbidden": {"code": 403, "message": "Quota exceeded for instances: Requested 1, but already used 2 of 2 instances"}}`),
			provider.QuotaExceeded, "already used 2 of 2"},
		{"nova's policy", response(403, `{"forbidden": {"code": 403, "message": "Policy doesn't allow os_compute_api:servers:create to be performed."}}`),
			provider.Unauthorized, "Policy doesn't allow"},
		{"neutron's quota", response(409, `{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['port'].", "detail": ""}}`),
			provider.QuotaExceeded, "['port']"},
		{"no address left", response(409, `{"NeutronError": {"type": "IpAddressGenerationFailure", "message": "No more IP addresses available on network n.", "detail": ""}}`),
			provider.NoCapacity, "No more IP"},
		{"another conflict", response(409, `{"conflictingRequest": {"code": 409, "message": "Port p is still in use."}}`), provider.Unknown, "still in use"},
		{"bad image", response(400, `{"badRequest": {"code": 400, "message": "Can not find requested image"}}`), provider.Invalid, "requested image"},
		{"absent", response(404, `{"itemNotFound": {"code": 404, "message": "Instance i could not be found."}}`), provider.NotFound, "could not be found (404)"},
		{"token", response(401, `{"error": {"code": 401, "message": "The request you have made requires authentication.", "title": "Unauthorized"}}`),
			provider.Unauthorized, "requires authentication"},
		{"too many", response(429, `{"overLimit": {"code": 429, "message": "slow down"}}`, "Retry-After", "7"), provider.RateLimited, "slow down"},
		{"too many, in the old way", response(413, `{"overLimit": {"code": 413, "message": "This request was rate-limited."}}`, "Retry-After", "3"), provider.RateLimited, "rate-limited"},
		{"too large", response(413, `{"overLimit": {"code": 413, "message": "Request is too large."}}`), provider.Invalid, "too large"},
		{"server error", response(500, `{"computeFault": {"code": 500, "message": "Unexpected API Error"}}`), provider.Unknown, "Unexpected API Error"},
		{"a proxy's page", response(503, `<html>`), provider.Unknown, "service unavailable (503)"},
		{"cut off", fmt.Errorf("get: %w", context.DeadlineExceeded), provider.Unknown, "cut off"},
		{"after a new login", &gophercloud.ErrErrorAfterReauthentication{ErrOriginal: response(403, `{"forbidden": {"code": 403, "message": "Quota exceeded for cores"}}`)},
			provider.QuotaExceeded, "cores"},
		{"no new login", &gophercloud.ErrUnableToReauthenticate{ErrOriginal: response(401, ``), ErrReauth: response(401, ``)}, provider.Unauthorized, "not accepted any more"},
		{"keystone is down", &gophercloud.ErrUnableToReauthenticate{ErrOriginal: response(401, ``), ErrReauth: response(503, ``)}, provider.Unknown, "503"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := fail(test.err, "creating a server")
			if provider.KindOf(err) != test.kind || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s %q, want %s and %q", provider.KindOf(err), err, test.kind, test.says)
			}
			if strings.Contains(err.Error(), "secret-path") || !strings.HasPrefix(err.Error(), "openstack: creating a server") {
				t.Errorf("%q", err)
			}
		})
	}
	if err := fail(response(429, "", "Retry-After", "7"), ""); provider.AfterOf(err) != 7*time.Second {
		t.Errorf("after %s", provider.AfterOf(err))
	}
	if err := fail(nil, "x"); err != nil {
		t.Error(err)
	}
	own := provider.Errorf(provider.Invalid, "ours")
	if err := fail(fmt.Errorf("post: %w", own), "x"); provider.KindOf(err) != provider.Invalid {
		t.Error("an error of the limiter lost its kind")
	}
}

func TestRetryAfterDate(t *testing.T) {
	h := http.Header{}
	h.Set("Date", "Wed, 21 Oct 2015 07:28:00 GMT")
	h.Set("Retry-After", "Wed, 21 Oct 2015 07:28:30 GMT")
	if d := retryAfter(h); d != 30*time.Second {
		t.Errorf("%s", d)
	}
}

func TestUncertain(t *testing.T) {
	for kind, want := range map[provider.Kind]provider.Kind{
		provider.NotFound: provider.Unknown, provider.Invalid: provider.Unknown, provider.QuotaExceeded: provider.Unknown, provider.NoCapacity: provider.Unknown,
		provider.Unauthorized: provider.Unauthorized, provider.RateLimited: provider.RateLimited, provider.Unknown: provider.Unknown,
	} {
		if got := provider.KindOf(uncertain(provider.Errorf(kind, "x"))); got != want {
			t.Errorf("%s became %s, want %s", kind, got, want)
		}
	}
}

func TestFinished(t *testing.T) {
	for status, want := range map[int]bool{500: true, 503: true, 400: true, 502: false, 504: false} {
		if got := finished(fail(response(status, ""), "x")); got != want {
			t.Errorf("%d: %t", status, got)
		}
	}
	if finished(fail(context.Canceled, "x")) {
		t.Error("a cut off call counts as finished")
	}
}
