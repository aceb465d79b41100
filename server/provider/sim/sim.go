package sim

import (
	"context"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// Defaults of a simulated cloud, as SimProvider states them.
const (
	defaultLatency     = 100 * time.Millisecond
	defaultBoot        = 20 * time.Second
	defaultConsistency = 2 * time.Second
	// listPage is that of EC2's DescribeInstances.
	listPage = 1000
)

// Config of a Provider.
type Config struct {
	// ClusterID of the machines. Required.
	ClusterID string
	// Spec of the cloud. Nil: all defaults.
	Spec *provisionrv1.SimProvider
	// CallsPerSecond bounds all calls together, beside the buckets of Limits. Zero: no further bound.
	CallsPerSecond float64
	// Limits are the API's token buckets by op. Nil: EC2Limits.
	Limits map[string]provider.Bucket
	// Boot runs a machine until ctx ends: see Cloud.Boot. Nil: machines never join.
	Boot func(ctx context.Context, m Machine) error
}

// New makes a cloud and returns the provider of a cluster on it. The machines are gone with the process. Run it with
// Provider.Run.
func New(c Config) (*Provider, error) {
	if c.ClusterID == "" {
		return nil, errs.New(errs.Internal, "cannot simulate a cloud: a required field of its configuration is missing")
	}
	s := c.Spec
	cloud := &Cloud{
		Seed: s.GetSeed(), Latency: defaultLatency, BootTime: defaultBoot, Lag: defaultConsistency, Limits: c.Limits,
		CallsPerSecond: c.CallsPerSecond, FaultRate: s.GetFaultRate(), ReclaimPerHour: s.GetReclaimPerHour(), Boot: c.Boot,
	}
	if cloud.Limits == nil {
		cloud.Limits = EC2Limits()
	}
	if s.GetLatency() != nil {
		cloud.Latency = s.GetLatency().AsDuration()
	}
	if s.GetBoot() != nil {
		cloud.BootTime = s.GetBoot().AsDuration()
	}
	if s.GetConsistency() != nil {
		cloud.Lag = s.GetConsistency().AsDuration()
	}
	if s.GetCapacity() > 0 {
		cloud.SetCapacity("", "", int(s.GetCapacity()))
	}
	cloud.Capabilities = Capabilities(s)
	return cloud.Provider(c.ClusterID), nil
}

// Capabilities of a cloud that New makes.
func Capabilities(s *provisionrv1.SimProvider) provider.Capabilities {
	lag := defaultConsistency
	if s.GetConsistency() != nil {
		lag = s.GetConsistency().AsDuration()
	}
	return provider.Capabilities{
		SettleWindow: 2*lag + time.Second, HostBound: true, Grouped: true, UserDataLimit: 16 << 10, ManagedAddresses: true, ListPage: listPage,
	}
}

// Run keeps the cloud until ctx ends, then ends the life of its machines and waits for that. It returns nil.
func (p *Provider) Run(ctx context.Context) error {
	<-ctx.Done()
	p.cloud.Close()
	return nil
}
