package sim

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// Cloud is an account with the machines of any number of clusters. Set its fields before use; all methods may be called
// concurrently. The zero value is ready.
type Cloud struct {
	// Seed of all that is random.
	Seed uint64
	// Latency is how long each call takes, half of it before it acts. Zero: none.
	Latency time.Duration
	// LaunchLatency comes on top for launches, before they act.
	LaunchLatency time.Duration
	// Lag bounds how long lists lag behind what launches and terminations did. Zero: not at all.
	Lag time.Duration
	// Capabilities of its providers; UserDataLimit 0 is 16 KiB, and ListPage 0 lists everything in one call.
	Capabilities provider.Capabilities
	// Limits are the token buckets of the API by op; calls beyond them are refused, and the limiter that all providers of
	// this Cloud share keeps them. Nil: no limits.
	Limits map[string]provider.Bucket
	// CallsPerSecond bounds all calls together in the limiter. Zero: no bound.
	CallsPerSecond float64
	// FaultRate is the share of calls that fail, half of them after they have acted.
	FaultRate float64
	// ReclaimPerHour is the share of spot machines that are reclaimed in an hour.
	ReclaimPerHour float64
	// Networks by id. Nil: one, "default", of 172.31.0.0/16, as the range of the default network.
	Networks map[string]netip.Prefix
	// Boot runs a machine until ctx ends, which is when the machine is stopped or deleted. Its error goes to the console,
	// and the machine is stopped. Nil: machines do nothing.
	Boot func(ctx context.Context, m Machine) error
	// BootTime is how long a machine takes until Boot is called.
	BootTime time.Duration

	machines sync.WaitGroup

	mu        sync.Mutex
	limiter   *provider.Limiter
	buckets   map[string]*bucket
	instances map[string]*Instance
	// byMachine has the provider ids of each machine's instances, in order.
	byMachine map[machineKey][]string
	// fading instances are deleted and still listed.
	fading []*Instance
	// ended machines were terminated: their token makes no other one. The oldest are forgotten.
	ended     map[machineKey]bool
	endOrder  []machineKey
	leftovers map[machineKey]*Instance
	groups    map[groupKey]*group
	used      map[netip.Addr]bool
	next      map[string]netip.Addr
	serial    int
	launches  map[string]int
	room      map[place]int
	quota     limit
	fault     func(op, machineID string) error
	throttled int
	after     time.Duration
	calls     map[string]uint64
	fates     map[string]uint64
	closed    bool
}

type machineKey struct{ cluster, machine string }

// limit is how many machines may be there at most, once it is set.
type limit struct {
	set bool
	max int
}

// Machine is what a machine knows of itself when it boots.
type Machine struct {
	Request  *provisionrv1.LaunchRequest
	UserData []byte
	Address  netip.Addr
}

// Instance is a machine of a Cloud.
type Instance struct {
	provider.Instance
	Cluster  string
	Request  *provisionrv1.LaunchRequest
	UserData []byte
	Console  string
	// Reclaimed is when a spot machine is taken back; the zero time says not yet.
	Reclaimed time.Time

	// visible and hidden are when lists begin and end to show it.
	visible, hidden time.Time
	// stop ends its life, if it has one.
	stop    context.CancelFunc
	reclaim *time.Timer
}

// SetFault has every call ask f first, and, as lost- and the op, after it has acted. The ops are list, find, launch,
// terminate, prune, network, console, resolve, groups, firewall and delete-firewall. Nil removes it. F must not call the
// cloud.
func (c *Cloud) SetFault(f func(op, machineID string) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

// Throttle has the next calls refused as too many, with the advice to wait.
func (c *Cloud) Throttle(calls int, after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.throttled, c.after = calls, after
}

// SetCapacity bounds how many machines there may be in a zone and of a type; "" stands for all of them. A negative bound
// is none.
func (c *Cloud) SetCapacity(zone, machineType string, machines int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.room == nil {
		c.room = map[place]int{}
	}
	if machines < 0 {
		delete(c.room, place{zone, machineType})
		return
	}
	c.room[place{zone, machineType}] = machines
}

// SetQuota bounds how many machines the account may have. A negative bound is none.
func (c *Cloud) SetQuota(machines int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.quota = limit{machines >= 0, machines}
}

// Calls is how many calls the API got, of one op or, with "", of all, refused ones included.
func (c *Cloud) Calls(op string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if op != "" {
		return c.calls[op]
	}
	var sum uint64
	for _, n := range c.calls {
		sum += n
	}
	return sum
}

// Instances returns copies of all instances by provider id.
func (c *Cloud) Instances() []Instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Instance, 0, len(c.instances))
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

// Change changes an instance of a machine, or removes it where change says so. It does nothing if there is none. What is
// not running any more lives no more.
func (c *Cloud) Change(machineID string, change func(*Instance) (remove bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, ids := range c.byMachine {
		if key.machine != machineID {
			continue
		}
		i := c.instances[ids[0]]
		if change(i) {
			c.remove(i, false)
		} else if i.State != provider.Running {
			i.halt()
		}
		return
	}
}

// Close ends the life of all machines and waits for that. Later launches are refused.
func (c *Cloud) Close() {
	c.mu.Lock()
	c.closed = true
	for _, i := range c.instances {
		i.halt()
	}
	c.mu.Unlock()
	c.machines.Wait()
}

// halt ends the life of an instance.
func (i *Instance) halt() {
	if i.stop != nil {
		i.stop()
	}
	if i.reclaim != nil {
		i.reclaim.Stop()
	}
}

// Provider returns the provider of one cluster.
func (c *Cloud) Provider(cluster string) *Provider {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.limiter == nil {
		c.limiter = provider.NewLimiter(provider.Bucket{Size: 1, Rate: c.CallsPerSecond}, c.Limits)
	}
	return &Provider{cloud: c, cluster: cluster, limiter: c.limiter}
}
