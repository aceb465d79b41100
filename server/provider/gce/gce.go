package gce

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"google.golang.org/api/compute/v1"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// Limits and defaults.
const (
	// userDataLimit is the most that one metadata value may hold
	// (https://cloud.google.com/compute/docs/metadata/setting-custom-metadata, size limitations).
	userDataLimit = 256 << 10
	// listPage is the most that a list returns at once (methods' reference, maxResults).
	listPage = 500
	// settleWindow: an insert that was accepted shows in lists within seconds; its operation ends within minutes.
	settleWindow = 2 * time.Minute
	// callsPerSecond: each group of methods has 1,500 calls a minute of a project, and of each region
	// (https://cloud.google.com/compute/docs/api-rate-limits, default quotas), which is 25 a second. Others use it too.
	callsPerSecond = 20
	// sweepEvery is how often disks without an instance are looked for.
	sweepEvery = 5 * time.Minute
)

// Config of a provider.
type Config struct {
	// ClusterID whose machines these are. Required; it must be fit for a label.
	ClusterID string
	// Spec says project, region and endpoint. Required.
	Spec *provisionrv1.GceProvider
	// CallsPerSecond bounds all calls together. Default: 20 for each group of methods that has a quota of its own.
	CallsPerSecond float64
	// Limiter of the account, where several providers share it; CallsPerSecond has no meaning then. Default: an own one.
	Limiter *provider.Limiter
	// HTTP reaches the API, without credentials, for tests. Default: the host's proxy and roots, or the endpoint's CA.
	HTTP *http.Client
	// Sweep is how often lists look for disks without an instance. Default: 5m.
	Sweep time.Duration
	// Logger. Default: none.
	Logger *slog.Logger
}

// Provider is a region of a project. All methods may be called concurrently.
type Provider struct {
	config  Config
	cluster string
	project string
	region  string
	limiter *provider.Limiter
	log     *slog.Logger

	connect sync.Mutex
	service *compute.Service // nil until the first call

	cache     cache
	leftovers leftovers
	lacking   sync.Map // what is done without, as it was logged
}

var (
	_ provider.Provider       = (*Provider)(nil)
	_ provider.FirewallGroups = (*Provider)(nil)
)

// New makes a provider. It calls nothing and needs no credentials yet.
func New(c Config) (*Provider, error) {
	switch {
	case c.Spec.GetProject() == "" || c.Spec.GetRegion() == "":
		return nil, provider.Errorf(provider.Invalid, "gce: project and region are required")
	case c.ClusterID == "" || labelValue(c.ClusterID) != c.ClusterID:
		return nil, provider.Errorf(provider.Invalid, "gce: cluster id %q cannot be a label's value", c.ClusterID)
	}
	if _, err := endpointOf(c.Spec.GetCompute()); err != nil {
		return nil, err
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Sweep = cmp.Or(c.Sweep, sweepEvery)
	if c.Limiter == nil {
		c.Limiter = newLimiter(c.CallsPerSecond)
	}
	return &Provider{
		config: c, cluster: c.ClusterID, project: c.Spec.GetProject(), region: c.Spec.GetRegion(),
		limiter: c.Limiter, log: c.Logger.With("provider", "gce", "project", c.Spec.GetProject(), "region", c.Spec.GetRegion()),
	}, nil
}

// Capabilities implements provider.Provider.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{SettleWindow: settleWindow, UserDataLimit: userDataLimit, ListPage: listPage}
}

// Limiter is what every call waits for.
func (p *Provider) Limiter() *provider.Limiter { return p.limiter }

// api returns the client, made at the first call since that is when credentials must be there.
func (p *Provider) api(ctx context.Context) (*compute.Service, error) {
	p.connect.Lock()
	defer p.connect.Unlock()
	if p.service != nil {
		return p.service, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, provider.Errorf(provider.Unknown, "gce: %w", err)
	}
	service, err := p.newService()
	if err != nil {
		return nil, err
	}
	p.service = service
	return service, nil
}
