// Package provider is the contract between the control plane and what machines run on.
//
// Every call may be late or repeated and must be harmless then. Launch is idempotent by machine id. An error never reads
// as absence: only a complete List without the machine, or a Terminate that succeeded, says that a machine is not there.
package provider

import (
	"context"
	"iter"
	"net/netip"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Provider launches and terminates the machines of one cluster on one account, host or cloud.
type Provider interface {
	// List yields every instance that carries this cluster's tag, stopped ones included. An error ends the sequence and
	// makes all that was yielded incomplete.
	List(ctx context.Context) iter.Seq2[Instance, error]
	// Launch creates the machine, or returns the instance that an earlier call for the same machine id created.
	Launch(ctx context.Context, request LaunchRequest) (Instance, error)
	// Terminate deletes the machine and all that was made for it. An absent machine is success.
	Terminate(ctx context.Context, machineID, providerID string) error
	// EnsureNetwork makes the network usable for machines and returns its specification, completed by what it offers.
	EnsureNetwork(ctx context.Context, network *provisionrv1.Network) (*provisionrv1.NetworkSpec, error)
	// Console returns the tail of the machine's console, at most 64 KiB.
	Console(ctx context.Context, machineID, providerID string) (string, error)
	// Capabilities are constant.
	Capabilities() Capabilities
}

// LaunchRequest is the committed request and the user-data rendered from it, which holds the one-time token.
type LaunchRequest struct {
	Request  *provisionrv1.LaunchRequest
	UserData []byte
}

// State of an instance.
type State string

// The states of an instance.
const (
	Starting State = "starting"
	Running  State = "running"
	Stopped  State = "stopped"
	// Gone instances are still listed by some clouds; they count as absent.
	Gone State = "gone"
)

// Instance is a machine as the provider knows it.
type Instance struct {
	MachineID  string
	ProviderID string
	State      State
	// Address is the primary address; the zero Addr while unknown.
	Address netip.Addr
}

// Capabilities are what the control plane must know of a provider.
type Capabilities struct {
	// SettleWindow is how long after a launch attempt's deadline an instance may still appear.
	SettleWindow time.Duration
	// HostBound providers run on the host of the member that owns them.
	HostBound bool
	// UserDataLimit in bytes.
	UserDataLimit int
	// ManagedAddresses says that Provisionr assigns addresses within the network.
	ManagedAddresses bool
}
