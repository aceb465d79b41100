package openstack

import (
	"cmp"
	"net/http"
	"strings"
	"time"

	"github.com/provisionr/provisionr/server/provider"
)

const (
	// callTimeout bounds one call. Proxies in front of Nova commonly give up after 60 s.
	callTimeout = 60 * time.Second
	// defaultBackoff is how long to rest where the cloud has refused a call as too many without saying for how long.
	defaultBackoff = 5 * time.Second
)

// limited waits for the limiter before every call, so that no code can forget to.
type limited struct {
	base    http.RoundTripper
	limiter *provider.Limiter
}

func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := l.limiter.Wait(r.Context(), class(r)); err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // as the contract of RoundTripper asks
		}
		return nil, err
	}
	response, err := l.base.RoundTrip(r)
	if err == nil && (response.StatusCode == http.StatusTooManyRequests || response.StatusCode == 498) {
		l.limiter.Throttled(cmp.Or(retryAfter(response.Header), defaultBackoff))
	}
	return response, err
}

// class is the method and the kind of thing, as "POST servers".
func class(r *http.Request) string {
	for part := range strings.SplitSeq(r.URL.Path, "/") {
		switch part {
		case "servers", "ports", "security-groups", "security-group-rules", "floatingips", "networks", "subnets", "images",
			"flavors", "limits", "volumes", "tokens":
			return r.Method + " " + part
		}
	}
	return r.Method
}
