package providertest

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// Cloud is an account in memory with the machines of any number of clusters. All methods may be called concurrently.
type Cloud struct {
	// Latency is how long each call takes, half of it before it acts. Zero: none. Set it before use.
	Latency time.Duration
	// LaunchLatency comes on top for launches, before they act.
	LaunchLatency time.Duration
	// Capabilities of its providers; zero fields have no meaning here but for UserDataLimit 0, which is 16 KiB.
	Capabilities provider.Capabilities

	mu        sync.Mutex
	instances map[string]*Instance
	serial    int
	fault     func(op, machineID string) error
	launches  map[string]int
}

// Instance is a machine of a Cloud.
type Instance struct {
	provider.Instance
	Cluster  string
	Request  *provisionrv1.LaunchRequest
	UserData []byte
	Console  string
}

// SetFault has every call ask f first: op is list, launch, terminate, network, console, or lost for an error after a
// launch or terminate (as lost-launch, lost-terminate) has acted. Nil removes it. F must not call the cloud.
func (c *Cloud) SetFault(f func(op, machineID string) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

// Instances returns copies of all instances by provider id.
func (c *Cloud) Instances() []Instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Instance
	for _, i := range c.instances {
		all = append(all, *i)
	}
	slices.SortFunc(all, func(a, b Instance) int { return cmp.Compare(a.ProviderID, b.ProviderID) })
	return all
}

// Launched returns how many instances were ever made for the machine.
func (c *Cloud) Launched(machineID string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.launches[machineID]
}

// Change changes the instance of a machine, or removes it where change says so. It does nothing if there is none.
func (c *Cloud) Change(machineID string, change func(*Instance) (remove bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.find("", machineID); i != nil && change(i) {
		delete(c.instances, i.ProviderID)
	}
}

// Provider returns the provider of one cluster.
func (c *Cloud) Provider(cluster string) provider.Provider { return &cloudProvider{c, cluster} }

func (c *Cloud) find(cluster, machineID string) *Instance {
	for _, i := range c.instances {
		if i.MachineID == machineID && (cluster == "" || i.Cluster == cluster) {
			return i
		}
	}
	return nil
}

// begin waits half of the latency and returns with the lock held, unless it returns an error.
func (c *Cloud) begin(ctx context.Context, op, machineID string) error {
	if err := c.wait(ctx, c.Latency/2); err != nil {
		return err
	}
	c.mu.Lock()
	if c.fault != nil {
		if err := c.fault(op, machineID); err != nil {
			c.mu.Unlock()
			return err
		}
	}
	return nil
}

func (c *Cloud) wait(ctx context.Context, d time.Duration) error {
	if d > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	if err := ctx.Err(); err != nil {
		return provider.Errorf(provider.Unknown, "the call was cut off: %w", err)
	}
	return nil
}

// end releases the lock, then waits the other half; the response may be lost.
func (c *Cloud) end(ctx context.Context, op, machineID string) error {
	var err error
	if c.fault != nil {
		err = c.fault("lost-"+op, machineID)
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.wait(ctx, c.Latency/2)
}

type cloudProvider struct {
	*Cloud
	cluster string
}

func (p *cloudProvider) Capabilities() provider.Capabilities {
	c := p.Cloud.Capabilities
	if c.UserDataLimit == 0 {
		c.UserDataLimit = 16 << 10
	}
	return c
}

func (p *cloudProvider) List(ctx context.Context) iter.Seq2[provider.Instance, error] {
	return func(yield func(provider.Instance, error) bool) {
		if err := p.begin(ctx, "list", ""); err != nil {
			yield(provider.Instance{}, err)
			return
		}
		var own []provider.Instance
		for _, i := range p.instances {
			if i.Cluster == p.cluster {
				own = append(own, i.Instance)
			}
		}
		if err := p.end(ctx, "list", ""); err != nil {
			yield(provider.Instance{}, err)
			return
		}
		slices.SortFunc(own, func(a, b provider.Instance) int { return cmp.Compare(a.ProviderID, b.ProviderID) })
		for _, i := range own {
			if !yield(i, nil) {
				return
			}
		}
	}
}

func (p *cloudProvider) Launch(ctx context.Context, r provider.LaunchRequest) (provider.Instance, error) {
	id := r.Request.GetMachineId()
	switch {
	case id == "":
		return provider.Instance{}, provider.Errorf(provider.Invalid, "the request names no machine")
	case len(r.UserData) > p.Capabilities().UserDataLimit:
		return provider.Instance{}, provider.Errorf(provider.Invalid, "user-data has %d bytes, more than %d", len(r.UserData), p.Capabilities().UserDataLimit)
	}
	if err := p.wait(ctx, p.LaunchLatency); err != nil {
		return provider.Instance{}, err
	}
	if err := p.begin(ctx, "launch", id); err != nil {
		return provider.Instance{}, err
	}
	i := p.find(p.cluster, id)
	if i == nil {
		p.serial++
		address, _ := netip.ParseAddr(r.Request.GetAddress())
		i = &Instance{
			Cluster: p.cluster, Request: proto.CloneOf(r.Request), UserData: slices.Clone(r.UserData), Console: "booting " + id + "\n",
			Instance: provider.Instance{MachineID: id, ProviderID: fmt.Sprintf("i-%06d", p.serial), State: provider.Running, Address: address},
		}
		if p.instances == nil {
			p.instances, p.launches = map[string]*Instance{}, map[string]int{}
		}
		p.instances[i.ProviderID] = i
		p.launches[id]++
	}
	made := i.Instance
	if err := p.end(ctx, "launch", id); err != nil {
		return provider.Instance{}, err
	}
	return made, nil
}

func (p *cloudProvider) Terminate(ctx context.Context, machineID, _ string) error {
	if err := p.begin(ctx, "terminate", machineID); err != nil {
		return err
	}
	if i := p.find(p.cluster, machineID); i != nil {
		delete(p.instances, i.ProviderID)
	}
	return p.end(ctx, "terminate", machineID)
}

func (p *cloudProvider) Resolve(ctx context.Context, w *provisionrv1.Wish) (*provisionrv1.Offer, error) {
	if err := p.begin(ctx, "resolve", ""); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	return &provisionrv1.Offer{Choices: []*provisionrv1.Choice{{Image: w.GetOs().GetDistribution() + "-" + w.GetOs().GetRelease()}}}, nil
}

func (p *cloudProvider) Prune(ctx context.Context, machineID, keep string) error {
	if err := p.begin(ctx, "prune", machineID); err != nil {
		return err
	}
	for id, i := range p.instances {
		if i.MachineID == machineID && i.Cluster == p.cluster && id != keep {
			delete(p.instances, id)
		}
	}
	return p.end(ctx, "prune", machineID)
}

func (p *cloudProvider) EnsureNetwork(ctx context.Context, n *provisionrv1.Network) (*provisionrv1.NetworkSpec, error) {
	if err := p.begin(ctx, "network", ""); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	spec := proto.CloneOf(n.GetSpec())
	cidr, err := netip.ParsePrefix(spec.GetCidr())
	if err != nil {
		return nil, provider.Errorf(provider.Invalid, "cannot use network: %w", err)
	}
	if spec.Gateway == "" {
		spec.Gateway = cidr.Masked().Addr().Next().String()
	}
	return spec, nil
}

func (p *cloudProvider) Console(ctx context.Context, machineID, _ string) (string, error) {
	if err := p.begin(ctx, "console", machineID); err != nil {
		return "", err
	}
	defer p.mu.Unlock()
	i := p.find(p.cluster, machineID)
	if i == nil {
		return "", provider.Errorf(provider.NotFound, "no machine %q", machineID)
	}
	return i.Console, nil
}
