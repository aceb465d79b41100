package openstack

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
	"github.com/gophercloud/gophercloud/v2/openstack/utils"

	"github.com/provisionr/provisionr/server/provider"
)

// The microversions of the compute API that are used where the cloud has them (nova/api/openstack/rest_api_version_history).
const (
	wantedMinor = 67 // volume_type of a block device
	tagsMinor   = 52 // tags at creation; filters by tag are older
)

// refusalTime is how long refused credentials are not tried again: Keystone may lock an account after some failures.
const refusalTime = 10 * time.Second

// session is a login with the endpoints of the services. It lives as long as the provider; gophercloud renews its token.
type session struct {
	compute, network, image *gophercloud.ServiceClient
	// volume is nil where the cloud has no block storage.
	volume *gophercloud.ServiceClient
	// tags says that servers can have tags and be listed by them.
	tags        bool
	volumeTypes bool
}

// open returns the session and logs in when there is none yet.
func (p *Provider) open(ctx context.Context) (*session, error) {
	select {
	case p.signing <- struct{}{}:
		defer func() { <-p.signing }()
	case <-ctx.Done():
		return nil, fail(ctx.Err(), "waiting to log in")
	}
	p.mu.Lock()
	s, refusal, until := p.session, p.refusal, p.refusedUntil
	p.mu.Unlock()
	switch {
	case s != nil:
		return s, nil
	case refusal != nil && time.Now().Before(until):
		return nil, refusal
	}
	s, err := p.login(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session, p.refusal = s, nil
	if provider.KindOf(err) == provider.Unauthorized {
		p.refusal, p.refusedUntil = err, time.Now().Add(refusalTime)
	}
	return s, err
}

func (p *Provider) login(ctx context.Context) (*session, error) {
	a, err := p.credentials()
	if err != nil {
		return nil, err
	}
	client, err := openstack.NewClient(a.auth.IdentityEndpoint)
	if err != nil {
		return nil, provider.Errorf(provider.Invalid, "openstack: the auth_url is not a URL: %w", err)
	}
	client.HTTPClient = p.httpClient(a)
	client.UserAgent.Prepend("provisionr")
	if err := openstack.Authenticate(ctx, client, a.auth); err != nil {
		// A 403 of Keystone is a locked account or an expired password.
		if code(err) == http.StatusUnauthorized || code(err) == http.StatusForbidden {
			return nil, a.refused("keystone refuses them")
		}
		if code(err) == http.StatusNotFound {
			return nil, provider.Errorf(provider.Invalid, "openstack: no keystone answers at %s", a.auth.IdentityEndpoint)
		}
		return nil, fail(err, "logging in at "+a.auth.IdentityEndpoint)
	}
	s := &session{}
	for _, service := range []struct {
		name string
		to   **gophercloud.ServiceClient
		make func(*gophercloud.ProviderClient, gophercloud.EndpointOpts) (*gophercloud.ServiceClient, error)
	}{
		{"compute", &s.compute, openstack.NewComputeV2},
		{"network", &s.network, openstack.NewNetworkV2},
		{"image", &s.image, openstack.NewImageV2},
	} {
		if *service.to, err = service.make(client, a.endpoint); err != nil {
			return nil, noEndpoint(client, service.name, a.endpoint, err)
		}
	}
	if s.volume, err = openstack.NewBlockStorageV3(client, a.endpoint); err != nil {
		if !absent(err) {
			return nil, fail(err, "finding the block storage API")
		}
		s.volume = nil
	}
	return s, p.negotiate(ctx, s)
}

func (p *Provider) httpClient(a access) http.Client {
	base := http.RoundTripper(nil)
	if p.http != nil {
		base = p.http.Transport
	}
	if base == nil {
		base = http.DefaultTransport
		if own, ok := base.(*http.Transport); ok {
			own = own.Clone()
			own.TLSClientConfig = a.tls
			base = own
		}
	}
	return http.Client{Transport: limited{base, p.limiter}, Timeout: callTimeout}
}

// negotiate chooses the compute API's microversion.
func (p *Provider) negotiate(ctx context.Context, s *session) error {
	supported, err := utils.GetSupportedMicroversions(ctx, s.compute)
	if err != nil {
		if kind := provider.KindOf(fail(err, "")); kind == provider.NotFound || kind == provider.Invalid {
			return nil // an API without microversions
		}
		return fail(err, "asking for the versions of the compute API")
	}
	minor := min(supported.MaxMinor, wantedMinor)
	if supported.MaxMajor != 2 || minor < supported.MinMinor {
		return nil
	}
	s.compute.Microversion = "2." + itoa(minor)
	s.tags, s.volumeTypes = minor >= tagsMinor, minor >= wantedMinor
	return nil
}

func absent(err error) bool {
	var endpoint *gophercloud.ErrEndpointNotFound
	var service *gophercloud.ErrServiceNotFound
	return errors.As(err, &endpoint) || errors.As(err, &service) ||
		errors.As(err, new(gophercloud.ErrEndpointNotFound)) || errors.As(err, new(gophercloud.ErrServiceNotFound))
}

// noEndpoint names the regions that the catalogue has for the service.
func noEndpoint(client *gophercloud.ProviderClient, service string, o gophercloud.EndpointOpts, err error) error {
	if !absent(err) {
		return fail(err, "finding the "+service+" API")
	}
	var regions []string
	if result, ok := client.GetAuthResult().(tokens.CreateResult); ok {
		if catalogue, err := result.ExtractServiceCatalog(); err == nil {
			for _, entry := range catalogue.Entries {
				for _, endpoint := range entry.Endpoints {
					regions = append(regions, endpoint.RegionID)
				}
			}
		}
	}
	slices.Sort(regions)
	regions = slices.Compact(regions)
	if o.Region != "" && !slices.Contains(regions, o.Region) {
		return provider.Errorf(provider.Invalid, "openstack: there is no region %q%s", o.Region, hint(o.Region, regions))
	}
	return provider.Errorf(provider.Invalid, "openstack: the catalogue has no %s API with interface %s in region %q; its regions are %s",
		service, o.Availability, o.Region, strings.Join(regions, ", "))
}

// hint offers what is nearest to a name that does not exist, or what there is.
func hint(name string, candidates []string) string {
	const most = 5
	if near := provider.Nearest(name, candidates, most); len(near) > 0 {
		return "; nearest: " + strings.Join(near, ", ")
	}
	if len(candidates) == 0 {
		return "; there is none at all"
	}
	all := slices.Compact(slices.Sorted(slices.Values(candidates)))
	return "; there is " + strings.Join(all[:min(most, len(all))], ", ")
}
