package aws

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// userDataLimit in bytes before base64 ("Run commands when you launch an EC2 instance with user data input", EC2 User Guide).
const userDataLimit = 16 << 10

// Config of a Provider.
type Config struct {
	// ClusterID is the tag that marks what belongs to this cluster. Required.
	ClusterID string
	// Spec says the region, where the APIs are served and whose credentials are used. Required, with a region.
	Spec *provisionrv1.AwsProvider
	// CallsPerSecond bounds all calls together. Default: only EC2's published buckets, one for each action.
	CallsPerSecond float64
	// Limiter of the account, where several providers share it; CallsPerSecond has no meaning then. Default: an own one.
	Limiter *provider.Limiter
	// HTTP makes the requests; the endpoints' own certificate authorities have no meaning then. Default: the SDK's client.
	HTTP *http.Client
	// CallTimeout bounds one call, without the wait for the Limiter. Default: 60s.
	CallTimeout time.Duration
	// SettleWindow is what Capabilities says: how long after its deadline a launch may still show. Default: 2m.
	SettleWindow time.Duration
	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// Provider launches instances for one cluster. It is safe for concurrent use.
type Provider struct {
	config  Config
	log     *slog.Logger
	limiter *provider.Limiter
	http    map[service]httpClient
	cache   cache
	recent  recent
	notices notices
	pause   backoff
	lacking sync.Map // what is done without, as it was logged
	// firewall is held while groups are changed: two calls that make the same group would meet.
	firewall semaphore

	mu   sync.Mutex
	apis *apis
}

var (
	_ provider.Provider       = (*Provider)(nil)
	_ provider.FirewallGroups = (*Provider)(nil)
)

// New checks the configuration. It makes no call and reads no credentials: missing ones show at the first call.
func New(config Config) (*Provider, error) {
	switch {
	case config.ClusterID == "":
		return nil, provider.Errorf(provider.Invalid, "cannot use provider aws: no cluster id")
	case config.Spec.GetRegion() == "":
		return nil, provider.Errorf(provider.Invalid, "cannot use provider aws: no region")
	}
	config.CallTimeout = cmp.Or(config.CallTimeout, time.Minute)
	config.SettleWindow = cmp.Or(config.SettleWindow, 2*time.Minute)
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	p := &Provider{
		config: config, limiter: config.Limiter, firewall: newSemaphore(),
		log: config.Logger.With("provider", "aws", "region", config.Spec.GetRegion()),
	}
	if p.limiter == nil {
		p.limiter = NewLimiter(config.CallsPerSecond)
	}
	var err error
	if p.http, err = httpClients(config); err != nil {
		return nil, err
	}
	return p, nil
}

// Capabilities implements provider.Provider.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{SettleWindow: p.config.SettleWindow, UserDataLimit: userDataLimit, ListPage: pageSize}
}

// semaphore is a lock whose wait ends with the context.
type semaphore chan struct{}

func newSemaphore() semaphore { return make(semaphore, 1) }

func (s semaphore) acquire(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return provider.Errorf(provider.Unknown, "waiting for another call: %w", ctx.Err())
	}
}

func (s semaphore) release() { <-s }
