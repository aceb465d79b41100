package reconcile

import (
	"time"

	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// View is all that a plan depends on beside the time.
type View struct {
	// Snapshot is the committed state.
	Snapshot *state.Snapshot
	// Listings are the newest lists, by provider name. A provider without one is unknown.
	Listings map[string]Listing
	// Presence is what this leader itself has seen of agents, by machine id. A machine without one is unknown.
	Presence map[string]Presence
	// Ensured has the generation of each network that the provider has made usable during this leadership.
	Ensured map[string]uint64
	// DownSince says since when, without a break, complete lists have shown a machine as absent or not running.
	DownSince map[string]time.Time
	// Unexplained says since when, without a break, complete lists have shown an instance that no record explains, by
	// provider name, slash and machine id.
	Unexplained map[string]time.Time
	// LaunchEnded says when this leader's last launch call returned, or the launch was committed. It holds only machines
	// whose every launch this leader itself committed: no other leader's call can be in flight.
	LaunchEnded map[string]time.Time
	// Refused has the launch attempt of each machine that the provider has definitely refused: nothing was made.
	Refused map[string]uint32
	// Pruned says when this leader's last successful Prune returned, by machine id.
	Pruned map[string]time.Time
	// Unauthorized says why a provider cannot be listed with the credentials that it is called with, by provider name.
	Unauthorized map[string]string
	// Firewalls are the firewall groups that this leader has made, by pool.
	Firewalls map[string]EnsuredFirewall
	// Groups are the newest lists of firewall groups, by provider name.
	Groups map[string]Groups
	// Terminated says when this leader's last successful Terminate returned, by machine id.
	Terminated map[string]time.Time
	// Asked says when this leader last asked a machine to boot again.
	Asked map[string]time.Time
	// DesiredHash returns the hash of the desired state that a machine's agent would be given now.
	DesiredHash func(machineID string) string
	// LaunchAhead is how many machines of a provider may wait for their launch call. Zero means DefaultLaunchAhead.
	LaunchAhead int
	// OrphanGrace is how long an unexplained instance lives. Zero means DefaultOrphanGrace.
	OrphanGrace time.Duration
}

// Listing is one list of a provider's instances.
type Listing struct {
	// Known says that the list is complete. All else but Capabilities and Grouped is empty where it is not.
	Known bool
	// Started is when the list began: it shows all that was there before.
	Started time.Time
	// Instances by machine id, those that count as absent left out.
	Instances map[string]provider.Instance
	// Duplicates are the provider's ids, in order, of the instances that live of machines of which several are listed.
	Duplicates map[string][]string
	// Grouped says that the provider has firewall groups.
	Grouped bool
	// Capabilities of the provider.
	Capabilities provider.Capabilities
}

// running says whether the machine is listed as starting or running.
func (l Listing) running(machineID string) bool {
	i, ok := l.Instances[machineID]
	return ok && live(i)
}

func live(i provider.Instance) bool {
	return i.State == provider.Starting || i.State == provider.Running
}

// Presence is what a leader has seen of an agent.
type Presence struct {
	Connected bool
	// SilentSince is when this leader first missed the agent; zero while connected.
	SilentSince time.Time
	// Unsure says that some member could not be asked whether it has the agent.
	Unsure bool
}

// Times that are the same for all pools.
const (
	// LaunchTimeout bounds one call of Launch.
	LaunchTimeout = 10 * time.Minute
	// DefaultLaunchAhead is how many machines of a provider may wait for their launch call: so many that calls never wait
	// for machines, so few that a machine's turn comes long before its deadline, and that a choice that is out of capacity
	// is asked for few times.
	DefaultLaunchAhead = 64
	// DefaultOrphanGrace is how long an instance that no record explains lives.
	DefaultOrphanGrace = 10 * time.Minute
	// ForgetAfter is how long the record of a machine that is gone is kept.
	ForgetAfter = time.Hour
	// downFor is how long a booting machine must be down before it counts as lost: lists may lag.
	downFor = 10 * time.Second
	// hardSilence is how many times silent_after an agent may be silent while its machine seems to run.
	hardSilence = 10
)

func instanceKey(providerName, machineID string) string { return providerName + "/" + machineID }
