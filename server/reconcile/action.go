package reconcile

import (
	"fmt"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// Op is what an action does.
type Op string

// The operations. Each says which fields of Action it uses.
const (
	// Create records a machine for a free slot, or as the heir of one that is held: Pool, Index, Generation, AsHeir.
	Create Op = "create"
	// Ensure makes a network usable: Network, Provider, Generation.
	Ensure Op = "ensure"
	// Begin asks what is on offer and commits a launch request: Machine, Provider, Attempt, Deadline.
	Begin Op = "begin"
	// Launch asks the provider for the machine: Machine, Provider, Attempt.
	Launch Op = "launch"
	// Move changes a phase: Machine, Phase.
	Move Op = "move"
	// Fail moves to failed and keeps the console as evidence: Machine, Provider, ProviderID, Phase.
	Fail Op = "fail"
	// Terminate deletes the machine at the provider: Machine, Provider, ProviderID.
	Terminate Op = "terminate"
	// Prune deletes all instances of a machine but one: Machine, Provider, ProviderID.
	Prune Op = "prune"
	// Identify records which instance a machine is: Machine, ProviderID, Phase (the present one).
	Identify Op = "identify"
	// HandOver gives a slot from its holder to its heir: Pool, Index, Machine (the holder), Heir, Reason.
	HandOver Op = "hand over"
	// Notice records what a provider has announced: Machine, Notice.
	Notice Op = "notice"
	// EnsureFirewall makes a pool's firewall group right: Pool, Provider, Generation, Firewall, Ensured.
	EnsureFirewall Op = "ensure firewall"
	// DeleteFirewall deletes the firewall group of a pool that is no more: Pool, Provider.
	DeleteFirewall Op = "delete firewall"
	// Reboot has a machine boot again: Machine, BootID, Reason, and Deadline where it is not committed yet.
	Reboot Op = "reboot"
	// Reap deletes an instance that no record explains: Machine, Provider, ProviderID.
	Reap Op = "reap"
	// Forget removes the record of a machine that is gone: Machine.
	Forget Op = "forget"
	// Say records an event: Event. The loop says the same thing about the same machine or pool once in ten minutes.
	Say Op = "say"
)

// Action is one step. Repeating it is harmless.
type Action struct {
	Op         Op
	Provider   string
	Pool       string
	Index      uint32
	Generation uint64
	Network    string
	Machine    string
	ProviderID string
	Attempt    uint32
	Deadline   time.Time
	// AsHeir has Create make an heir; Heir is the heir that HandOver gives the slot to.
	AsHeir bool
	Heir   string
	// BootID is the boot that Reboot ends.
	BootID   string
	Reason   string
	Notice   *provisionrv1.Notice
	Firewall *provider.Firewall
	Ensured  *EnsuredFirewall
	Phase    *raftlogv1.SetPhase
	Event    *provisionrv1.Event
}

// Key is the same for actions that must not run at the same time.
func (a Action) Key() string {
	switch a.Op {
	case Create, HandOver:
		return fmt.Sprintf("slot/%s-%d", a.Pool, a.Index)
	case Notice, Identify:
		return string(a.Op) + "/" + a.Machine
	case EnsureFirewall, DeleteFirewall:
		return "firewall/" + a.Provider + "/" + a.Pool
	case Ensure:
		return "network/" + a.Network
	case Say:
		return "say/" + a.Event.GetReason() + "/" + a.Event.GetPool() + "/" + a.Event.GetMachine() + "/" + a.Event.GetMessage()
	}
	return "machine/" + a.Machine
}

// retryKey is the same for actions that wait for each other's back-off.
func (a Action) retryKey() string {
	key := a.Key() + "/" + string(a.Op) + "/" + state.PhaseName(a.Phase.GetTo())
	if a.Attempt != 0 {
		// What one attempt met says nothing of the next.
		key += fmt.Sprintf("/%d", a.Attempt)
	}
	return key
}

func (a Action) String() string {
	switch a.Op {
	case Create:
		if a.AsHeir {
			return fmt.Sprintf("create heir of %s-%d", a.Pool, a.Index)
		}
		return fmt.Sprintf("create %s-%d", a.Pool, a.Index)
	case HandOver:
		return fmt.Sprintf("hand over %s-%d to %s: %s", a.Pool, a.Index, a.Heir, a.Reason)
	case Prune:
		return fmt.Sprintf("prune %s to %s", a.Machine, a.ProviderID)
	case Identify:
		return fmt.Sprintf("identify %s as %s", a.Machine, a.ProviderID)
	case EnsureFirewall, DeleteFirewall:
		return string(a.Op) + " " + a.Pool
	case Ensure:
		return "ensure " + a.Network
	case Reboot:
		return fmt.Sprintf("reboot %s: %s", a.Machine, a.Reason)
	case Say:
		return fmt.Sprintf("say %s: %s", a.Event.GetReason(), a.Event.GetMessage())
	case Move, Fail:
		return fmt.Sprintf("%s %s to %s: %s", a.Op, a.Machine, state.PhaseName(a.Phase.GetTo()), a.Phase.GetReason())
	}
	return string(a.Op) + " " + a.Machine
}
