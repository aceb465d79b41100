// Package desired holds what a machine should be: the decoded components of its desired state.
//
// A State is immutable once made. Every resource and every proof of the agent is built from it.
package desired

import (
	"context"
	"time"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// State is a complete desired state.
type State struct {
	// Hash identifies what is asked of the machine: it is the server's, over all components but the readiness of members.
	Hash []byte
	// Revision is the SHA-256 over the names and hashes of all components. Where it alone is new, only names are answered
	// in another way: there is nothing to converge to.
	Revision []byte
	// PoolGeneration is the generation of the pool that the state was compiled from.
	PoolGeneration uint64
	Machine        *agentv1.MachineComponent
	Pool           *agentv1.PoolComponent
	// Members are the slots of the own pool and of each pool that it refers to, by pool name, in order of index.
	Members map[string][]*agentv1.Member
	// VPN are all nodes of the machine's WireGuard network, this machine included.
	VPN []*agentv1.VpnNode
	// Secrets answers the values that files and templates refer to. It is nil where there is none to ask.
	Secrets Secrets
	// HostCertifier signs the machine's SSH host keys. It is nil where there is none to ask.
	HostCertifier HostCertifier
	// Programs brings further programs of ours, as the userspace WireGuard. It is nil where there is none to ask.
	Programs Programs
}

// Secrets answers values of secrets by name, as the state refers to them.
type Secrets interface {
	// Secret returns a value. An error of kind errs.Unavailable says that no server could be asked for it yet.
	Secret(ctx context.Context, name string) ([]byte, error)
}

// HostCertifier has the cluster's SSH authority certify the host keys of this machine.
type HostCertifier interface {
	// CertifyHost takes public keys as lines of authorized_keys(5), and returns a certificate for each in the same form and
	// order, and when to ask again. An error of kind errs.Unavailable says that no server could be asked yet.
	CertifyHost(ctx context.Context, keys []string) (certs []string, renewAt time.Time, err error)
}

// Programs keeps programs that the servers hand out, by hash, under /usr/local/lib/provisionr.
type Programs interface {
	// Program returns the path of the program for this machine's architecture, fetched and verified if it is not here yet.
	// An error of kind errs.Unavailable says that no server could be asked yet.
	Program(ctx context.Context, name string) (path string, err error)
}

// Self returns the member that this machine is, or nil while its slot is not in the membership.
func (s *State) Self() *agentv1.Member {
	for _, m := range s.Members[s.Machine.GetPool()] {
		if m.MachineId == s.Machine.MachineId {
			return m
		}
	}
	return nil
}

// Peers returns the other members of the machine's own pool that have an address and a machine.
func (s *State) Peers() []*agentv1.Member {
	var peers []*agentv1.Member
	for _, m := range s.Members[s.Machine.GetPool()] {
		if m.MachineId != "" && m.MachineId != s.Machine.MachineId && m.Address != "" {
			peers = append(peers, m)
		}
	}
	return peers
}
