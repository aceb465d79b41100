package reconcile

import (
	"fmt"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// Op is what an action does.
type Op string

// The operations. Each says which fields of Action it uses.
const (
	// Create records a machine for a free slot: Pool, Index, Generation.
	Create Op = "create"
	// Ensure makes a network usable: Network, Provider, Generation.
	Ensure Op = "ensure"
	// Begin commits a launch request: Machine, Deadline.
	Begin Op = "begin"
	// Launch asks the provider for the machine: Machine, Provider.
	Launch Op = "launch"
	// Move changes a phase: Machine, Phase.
	Move Op = "move"
	// Fail moves to failed and keeps the console as evidence: Machine, Provider, ProviderID, Phase.
	Fail Op = "fail"
	// Terminate deletes the machine at the provider: Machine, Provider, ProviderID.
	Terminate Op = "terminate"
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
	Deadline   time.Time
	Phase      *raftlogv1.SetPhase
	Event      *provisionrv1.Event
}

// Key is the same for actions that must not run at the same time.
func (a Action) Key() string {
	switch a.Op {
	case Create:
		return fmt.Sprintf("slot/%s-%d", a.Pool, a.Index)
	case Ensure:
		return "network/" + a.Network
	case Say:
		return "say/" + a.Event.GetReason() + "/" + a.Event.GetPool() + "/" + a.Event.GetMachine() + "/" + a.Event.GetMessage()
	}
	return "machine/" + a.Machine
}

// retryKey is the same for actions that wait for each other's back-off.
func (a Action) retryKey() string {
	return a.Key() + "/" + string(a.Op) + "/" + phaseName(a.Phase.GetTo())
}

func (a Action) String() string {
	switch a.Op {
	case Create:
		return fmt.Sprintf("create %s-%d", a.Pool, a.Index)
	case Ensure:
		return "ensure " + a.Network
	case Say:
		return fmt.Sprintf("say %s: %s", a.Event.GetReason(), a.Event.GetMessage())
	case Move, Fail:
		return fmt.Sprintf("%s %s to %s: %s", a.Op, a.Machine, phaseName(a.Phase.GetTo()), a.Phase.GetReason())
	}
	return string(a.Op) + " " + a.Machine
}
