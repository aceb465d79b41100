// Package provider is the contract between the control plane and what machines run on.
//
// Every call may be late or repeated and must be harmless then. Launch is idempotent by machine id and attempt. An error
// never reads as absence: only a complete List without the machine, or a Terminate that succeeded, says that a machine is
// not there. A provider waits for its [Limiter] before each call of its API, and for nothing else: it does not retry what
// may have acted, but answers Unknown and is called again.
package provider

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Provider launches and terminates the machines of one cluster on one account, host or cloud.
type Provider interface {
	// List yields every instance that carries this cluster's tag, stopped ones included, and what an interrupted Launch or
	// Terminate left of one, as a port or a disk of a machine that does not exist. A machine id that is yielded twice is a
	// duplicate, for Prune. An error ends the sequence and makes all that was yielded incomplete.
	List(ctx context.Context) iter.Seq2[Instance, error]
	// Resolve says what a wish comes to on this account. What can never be fulfilled is an Invalid error that names the
	// nearest matches; what the quota does not allow is QuotaExceeded. It changes nothing.
	Resolve(ctx context.Context, wish *provisionrv1.Wish) (*provisionrv1.Offer, error)
	// Launch creates the machine as the committed choice says, or returns the instance that an earlier call for the same
	// machine id and attempt created. NoCapacity, QuotaExceeded and Invalid say that nothing was created.
	Launch(ctx context.Context, request LaunchRequest) (Instance, error)
	// Terminate deletes every instance of the machine and all that was made for it. An absent machine is success.
	Terminate(ctx context.Context, machineID, providerID string) error
	// Prune deletes every instance of the machine but the one with the provider's id keep, which must exist.
	Prune(ctx context.Context, machineID, keep string) error
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

// FirewallGroups is implemented by providers that filter in front of the machines. There is one group for each pool, and
// its machines belong to it from their launch on.
type FirewallGroups interface {
	// EnsureFirewall makes the pool's group exist with exactly these rules. Groups that a rule names are made if need be.
	EnsureFirewall(ctx context.Context, firewall Firewall) error
	// PlanFirewall says what EnsureFirewall would change, one line each, as "allow tcp 22 from 0.0.0.0/0".
	PlanFirewall(ctx context.Context, firewall Firewall) ([]string, error)
	// Firewalls returns the pools of this cluster that have a group.
	Firewalls(ctx context.Context) ([]string, error)
	// DeleteFirewall deletes the pool's group and the rules that name it. An absent group is success; one that is still
	// used by a machine is an Unknown error.
	DeleteFirewall(ctx context.Context, pool string) error
}

// Firewall is what may reach the machines of a pool. All else inbound is dropped, all outbound is allowed.
type Firewall struct {
	ClusterID, ClusterName, Pool string
	// Network that the group belongs to.
	Network *provisionrv1.Network
	// Rules in order, without duplicates.
	Rules []FirewallRule
}

// FirewallRule allows a protocol on ports from one source.
type FirewallRule struct {
	// Protocol is tcp, udp, icmp, icmp6 or all.
	Protocol string
	// First and Last port; both are 0 where the protocol has none.
	First, Last uint16
	// From is a range of addresses; it is invalid where Pool is set.
	From netip.Prefix
	// Pool names the pool whose group is the source.
	Pool string
}

func (r FirewallRule) String() string {
	from := "pool " + r.Pool
	if r.Pool == "" {
		from = r.From.String()
	}
	switch {
	case r.First == 0 && r.Last == 0:
		return fmt.Sprintf("allow %s from %s", r.Protocol, from)
	case r.First == r.Last:
		return fmt.Sprintf("allow %s %d from %s", r.Protocol, r.First, from)
	}
	return fmt.Sprintf("allow %s %d-%d from %s", r.Protocol, r.First, r.Last, from)
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
	// Address6 is the IPv6 address where Address is an IPv4 one; mostly the zero Addr.
	Address6 netip.Addr
	// Notice says that the provider will take the instance away; nil where it has not said so.
	Notice *provisionrv1.Notice
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
	// Adopted providers launch nothing: a person has their machines join, whenever that is.
	Adopted bool
	// Grouped says that a host-bound provider has FirewallGroups, for those who reach it through its owner.
	Grouped bool
	// ListPage is how many instances one call of the provider's API lists. Zero: listing costs nothing.
	ListPage int
}
