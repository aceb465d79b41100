package providertest

import (
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// Config of a run of the suite.
type Config struct {
	// Name of the kind of provider, as aws: errors about credentials must hold it. Required for the cases about them.
	Name string
	// New returns a provider for a cluster, made anew as after a restart: all of one cluster see the same machines.
	// Required.
	New func(t *testing.T, cluster string) provider.Provider
	// Network of the machines. Default: 10.88.0.0/24, managed.
	Network *provisionrv1.Network
	// Wish is what the machines are to be; cluster, pool, network and count are filled in. Default: Debian 12.
	Wish *provisionrv1.Wish
	// Typos are changes that make a wish impossible to fulfil, beside a misspelt machine type, which the suite does by itself.
	Typos []Typo
	// Prepare completes a launch request whose machine, cluster, slot, address and choice are set. Optional.
	Prepare func(*provider.LaunchRequest)
	// Many is how many machines a list must hold; the default of 1000 is for all but slow clouds.
	Many int
	// Timeout bounds how long the provider may take until a call's effect shows in a list. Default: 60s.
	Timeout time.Duration
	// Cloud lets the suite bring about what it tests. A case whose controls are not all there must be in Without.
	Cloud Controls
	// Without names the cases that the provider cannot pass or cannot be put to, and says why: docs/providers.md repeats it.
	Without map[Case]string
}

// Typo makes a wish impossible.
type Typo struct {
	// Name of what is misspelt, as image.
	Name string
	// Change misspells it.
	Change func(*provisionrv1.Wish)
	// Nearest is what the error must offer instead.
	Nearest string
}

// Op is what a control applies to.
type Op string

// The calls of a provider that change something. Each may be several calls of its API; the one meant is that which acts.
const (
	LaunchOp    Op = "launch"
	TerminateOp Op = "terminate"
	FirewallOp  Op = "firewall"
)

// Controls are the strings behind the cloud. Each is optional and works on the cloud itself, never through the provider;
// what it changes for good it takes back with t.Cleanup.
type Controls struct {
	// Capacity is how many more machines there is room for.
	Capacity func(t *testing.T, more int)
	// Quota is how many more machines the account may have.
	Quota func(t *testing.T, more int)
	// Throttle has the next calls refused as too many; after is what the answer tells to wait, where the API tells it.
	Throttle func(t *testing.T, calls int, after time.Duration)
	// LoseResponse lets the next call of this kind act and loses its response.
	LoseResponse func(t *testing.T, op Op)
	// Fail has calls fail with a server error, without acting: the first after the next skip ones, and all after it where
	// calls is negative.
	Fail func(t *testing.T, skip, calls int)
	// Watch has f called at the begin of every call that the cloud gets, before it acts, until the returned function is
	// called. F may take its time.
	Watch func(t *testing.T, f func()) (stop func())
	// Calls is how many calls the cloud got so far, and Limited how many the provider's limiter let through.
	Calls   func() uint64
	Limited func(p provider.Provider) uint64
	// Fill makes n machines of a cluster without the provider, as cheaply as can be, and returns their ids. Empty removes
	// them.
	Fill func(t *testing.T, cluster string, n int) (machineIDs []string, empty func())
	// Duplicate makes a second instance with the tags of the machine's first, as a cloud without idempotency does.
	Duplicate func(t *testing.T, cluster, machineID string)
	// Leftover makes what an interrupted launch leaves of a machine without an instance: a port, a disk, an address.
	Leftover func(t *testing.T, cluster, machineID string)
	// Sent is what the cloud was asked for when it made the machine: image, type, zone, network, subnet, groups and spot
	// in its own ids. Fields that the API does not have are empty in it.
	Sent func(t *testing.T, machineID string) *provisionrv1.Choice
	// Rules reads the rules of a pool's group; not ok where there is none. Order does not matter. A source that is a group
	// is named by its pool.
	Rules func(t *testing.T, cluster, pool string) (rules []provider.FirewallRule, ok bool)
	// AddRule adds a rule to a pool's group, as a person might by hand.
	AddRule func(t *testing.T, cluster, pool string, rule provider.FirewallRule)
	// NoCredentials and WrongCredentials return a provider that has none, or such as the cloud refuses.
	NoCredentials    func(t *testing.T, cluster string) provider.Provider
	WrongCredentials func(t *testing.T, cluster string) provider.Provider
	// Secrets must not be in any error.
	Secrets []string
}

// Case names a case of the suite.
type Case string

// The cases. Those above the blank line need no controls.
const (
	Capabilities     Case = "Capabilities"
	Network          Case = "Network"
	AbsentIsSuccess  Case = "AbsentIsSuccess"
	Cancelled        Case = "Cancelled"
	UserDataLimit    Case = "UserDataLimit"
	Life             Case = "Life"
	ConcurrentLaunch Case = "ConcurrentLaunch"
	CutOffLaunch     Case = "CutOffLaunch"
	TagIsolation     Case = "TagIsolation"
	LateLaunch       Case = "LateLaunch"
	PruneKeeps       Case = "PruneKeeps"
	ResolveHardware  Case = "ResolveHardware"
	ResolveType      Case = "ResolveType"
	ResolveSpot      Case = "ResolveSpot"
	ResolveTypos     Case = "ResolveTypos"

	LostLaunch         Case = "LostLaunch"
	LostTerminate      Case = "LostTerminate"
	CancelAtEachCall   Case = "CancelAtEachCall"
	FailAtEachCall     Case = "FailAtEachCall"
	Pagination         Case = "Pagination"
	BrokenList         Case = "BrokenList"
	PartialBatch       Case = "PartialBatch"
	QuotaTyped         Case = "QuotaTyped"
	ResolveQuota       Case = "ResolveQuota"
	Throttling         Case = "Throttling"
	OrphanSweep        Case = "OrphanSweep"
	DuplicatesPruned   Case = "DuplicatesPruned"
	SendsChoice        Case = "SendsChoice"
	NoCallUnlimited    Case = "NoCallUnlimited"
	MissingCredentials Case = "MissingCredentials"
	RefusedCredentials Case = "RefusedCredentials"
	FirewallConverges  Case = "FirewallConverges"
	FirewallPlan       Case = "FirewallPlan"
	FirewallDelete     Case = "FirewallDelete"
	FirewallLost       Case = "FirewallLost"
)
