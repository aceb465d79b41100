// Package desired holds what a machine should be: the decoded components of its desired state.
//
// A State is immutable once made. Every resource and every proof of the agent is built from it.
package desired

import (
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
