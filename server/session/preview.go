package session

import agentv1 "github.com/provisionr/provisionr/proto/agent/v1"

// Preview returns the desired state whole, for an agent to compare its machine with.
func (c *Compiled) Preview() *agentv1.Preview {
	return &agentv1.Preview{Desired: c.Desired, Components: c.Components()}
}
