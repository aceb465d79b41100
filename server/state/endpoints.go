package state

import (
	"cmp"
	"net"
)

// Endpoints returns host:port of the API and of the agents' port of every member, in order of member, as reachable from
// the named network ("": from anywhere): a member may have another host there. An address without a port is left out.
func (s *Snapshot) Endpoints(network string) (api, agents []string) {
	at := func(list []string, address, host string) []string {
		own, port, err := net.SplitHostPort(address)
		if err != nil {
			return list
		}
		return append(list, net.JoinHostPort(cmp.Or(host, own), port))
	}
	for m := range s.Members() {
		host := m.GetNetworkHosts()[network]
		api, agents = at(api, m.GetApiAddress(), host), at(agents, m.GetAgentAddress(), host)
	}
	return api, agents
}
