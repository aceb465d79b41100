package openstack

import (
	"cmp"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

const (
	// defaultCallsPerSecond is what clouds that limit at all (by api-paste's or a proxy's limits) commonly allow twice over.
	defaultCallsPerSecond = 20
	// userDataLimit in bytes: Nova takes 65535 characters of base64 (API reference, "Create server", user_data).
	userDataLimit = 65535 / 4 * 3
	// listPage is Nova's and Neutron's default for the most that one answer holds (max_limit).
	listPage = 1000
)

// Config of a Provider.
type Config struct {
	// ClusterID names everything that is made. Required: lower-case letters, digits and hyphens.
	ClusterID string
	// Spec says which cloud it is. Required.
	Spec *provisionrv1.OpenstackProvider
	// CallsPerSecond bounds all calls together. Default: 20.
	CallsPerSecond float64
	// HTTP makes the calls. Default: a client that trusts what the cloud's configuration says.
	HTTP *http.Client
	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// Provider launches the machines of one cluster as servers of one project of an OpenStack cloud. It is safe for concurrent
// use.
type Provider struct {
	cluster string
	spec    *provisionrv1.OpenstackProvider
	http    *http.Client
	log     *slog.Logger
	limiter *provider.Limiter
	getenv  func(string) string

	launches keyed
	images   cached[[]images.Image]
	flavors  cached[[]flavors.Flavor]
	zones    cached[[]string]

	// signing has room for one: who may log in.
	signing chan struct{}
	mu      sync.Mutex
	// session is nil until the first call; refusal is why there is none, until refusedUntil.
	session      *session
	refusal      error
	refusedUntil time.Time
}

var (
	_ provider.Provider       = (*Provider)(nil)
	_ provider.FirewallGroups = (*Provider)(nil)
)

// New checks the configuration. It makes no call and reads no credentials: both happen at the first use.
func New(config Config) (*Provider, error) {
	if config.ClusterID == "" {
		return nil, provider.Errorf(provider.Invalid, "openstack: the cluster has no id")
	}
	spec := config.Spec
	if spec == nil {
		spec = &provisionrv1.OpenstackProvider{}
	}
	rate := cmp.Or(config.CallsPerSecond, defaultCallsPerSecond)
	return &Provider{
		cluster: config.ClusterID, spec: spec, http: config.HTTP, log: cmp.Or(config.Logger, slog.Default()), getenv: os.Getenv,
		limiter: provider.NewLimiter(provider.Bucket{Size: int(2 * rate), Rate: rate}, nil),
		signing: make(chan struct{}, 1),
	}, nil
}

// Capabilities are constant.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{
		// A request that Nova has taken shows in its list at once; this is for those that a proxy held.
		SettleWindow: claimWindow + lingerTime, UserDataLimit: userDataLimit, ManagedAddresses: true, ListPage: listPage,
	}
}

// Limiter is what all calls wait for.
func (p *Provider) Limiter() *provider.Limiter { return p.limiter }
