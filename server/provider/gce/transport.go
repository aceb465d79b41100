package gce

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"cloud.google.com/go/auth"
	"golang.org/x/oauth2"
	"google.golang.org/api/compute/v1"
	"google.golang.org/api/option"
	htransport "google.golang.org/api/transport/http"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// Classes of calls: the groups of methods that have a quota of their own
// (https://cloud.google.com/compute/docs/api-rate-limits).
const (
	readClass      = "read"
	listClass      = "list"
	operationClass = "operation"
	writeClass     = "write"
)

func newLimiter(rate float64) *provider.Limiter {
	all := provider.Bucket{}
	if rate > 0 {
		all = provider.Bucket{Size: int(max(1, rate)), Rate: rate}
	}
	classes := map[string]provider.Bucket{}
	for _, class := range []string{readClass, listClass, operationClass, writeClass} {
		classes[class] = provider.Bucket{Size: callsPerSecond, Rate: callsPerSecond}
	}
	return provider.NewLimiter(all, classes)
}

// classOf tells the group of a request.
func classOf(r *http.Request) string {
	segments := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	last := segments[len(segments)-1]
	switch {
	case strings.Contains(r.URL.Path, "/operations/"):
		return operationClass
	case r.Method != http.MethodGet:
		return writeClass
	case strings.Contains(r.URL.Path, "/aggregated/"):
		return listClass
	}
	switch last {
	case "instances", "disks", "firewalls", "images", "machineTypes", "diskTypes", "zones", "regions", "networks", "subnetworks", "resourcePolicies":
		return listClass
	}
	return readClass
}

// limited has every call wait for the limiter.
type limited struct {
	base    http.RoundTripper
	limiter *provider.Limiter
}

func (l *limited) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := l.limiter.Wait(r.Context(), classOf(r)); err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	sent := new(atomic.Bool)
	response, err := l.base.RoundTrip(r.WithContext(context.WithValue(r.Context(), sentKey{}, sent)))
	if err != nil && !sent.Load() && r.Context().Err() == nil {
		err = &tokenError{err}
	}
	return response, err
}

// sentKey is where a request has the flag that noted sets.
type sentKey struct{}

// noted is below the credentials: what does not come so far has failed for want of a token.
type noted struct{ base http.RoundTripper }

func (n *noted) RoundTrip(r *http.Request) (*http.Response, error) {
	if sent, ok := r.Context().Value(sentKey{}).(*atomic.Bool); ok {
		sent.Store(true)
	}
	return n.base.RoundTrip(r)
}

// tokenError says that no access token could be had.
type tokenError struct{ cause error }

func (e *tokenError) Error() string { return "no access token could be had" }
func (e *tokenError) Unwrap() error { return e.cause }

// passing tells whether the token may be had later: whoever issues it was not reached, or had a fault of its own.
func (e *tokenError) passing() bool {
	var retrieve *oauth2.RetrieveError
	var issue *auth.Error
	var network net.Error
	status := 0
	switch {
	case errors.As(e.cause, &retrieve) && retrieve.Response != nil:
		status = retrieve.Response.StatusCode
	case errors.As(e.cause, &issue) && issue.Response != nil:
		status = issue.Response.StatusCode
	default:
		return errors.As(e.cause, &network)
	}
	return status >= 500 || status == http.StatusTooManyRequests
}

// endpointOf returns the base of the API's paths, or "" for the vendor's.
func endpointOf(e *provisionrv1.Endpoint) (string, error) {
	if e.GetUrl() == "" {
		return "", nil
	}
	u, err := url.Parse(e.GetUrl())
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", provider.Errorf(provider.Invalid, "gce: %q is no endpoint as https://compute.example.com/compute/v1/", e.GetUrl())
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/compute/v1/"
	}
	return strings.TrimSuffix(u.String(), "/") + "/", nil
}

// base is the transport below the credentials.
func (p *Provider) base() (http.RoundTripper, error) {
	if p.config.HTTP != nil {
		if p.config.HTTP.Transport != nil {
			return p.config.HTTP.Transport, nil
		}
		return http.DefaultTransport, nil
	}
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("the process's default transport is not that of net/http")
	}
	transport = transport.Clone()
	transport.MaxIdleConnsPerHost = callsPerSecond
	if ca := p.config.Spec.GetCompute().GetCa(); ca != "" {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("the endpoint's ca has no PEM certificate")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return transport, nil
}

func (p *Provider) newService() (*compute.Service, error) {
	base, err := p.base()
	if err != nil {
		return nil, provider.Errorf(provider.Invalid, "gce: cannot reach the endpoint: %w", err)
	}
	// The context is kept by what refreshes credentials: it must not be that of one call.
	ctx := context.Background()
	var transport http.RoundTripper = &noted{base}
	if !p.config.Spec.GetUnauthenticated() {
		if transport, err = htransport.NewTransport(ctx, transport, option.WithScopes(compute.ComputeScope)); err != nil {
			return nil, credentialsError()
		}
	}
	options := []option.ClientOption{option.WithHTTPClient(&http.Client{Transport: &limited{transport, p.limiter}}), option.WithUserAgent("provisionr")}
	if endpoint, err := endpointOf(p.config.Spec.GetCompute()); err != nil {
		return nil, err
	} else if endpoint != "" {
		options = append(options, option.WithEndpoint(endpoint))
	}
	service, err := compute.NewService(ctx, options...)
	if err != nil {
		return nil, provider.Errorf(provider.Invalid, "gce: cannot make a client: %w", err)
	}
	return service, nil
}

// chain is what the client library looks for, in this order
// (https://cloud.google.com/docs/authentication/application-default-credentials).
const chain = "application default credentials: the file that GOOGLE_APPLICATION_CREDENTIALS names, gcloud's application_default_credentials.json, the metadata server"

// credentialsError leaves out the cause: it may quote what the files or the token's issuer hold.
func credentialsError() error {
	return provider.Errorf(provider.Unauthorized, "gce: no usable credentials (%s); set GOOGLE_APPLICATION_CREDENTIALS on the servers, "+
		"run `gcloud auth application-default login` there, or give their hosts a service account", chain)
}
