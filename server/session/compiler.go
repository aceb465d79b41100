package session

import (
	"sync"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// Compiler compiles many machines of one snapshot cheaply: it keeps what they share until the snapshot changes, and what
// still holds even then. Its zero value is ready; it is safe for concurrent use.
type Compiler struct {
	// Programs are what this member can give machines to run: the SHA-256 of each by name and architecture, as
	// wireguard/amd64. It is read once. Nil means that there are none.
	Programs map[string][]byte

	mu   sync.Mutex
	view *view
}

// Compile is [Compile].
func (c *Compiler) Compile(s *state.Snapshot, machineID string) (*Compiled, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.view == nil || c.view.s != s {
		c.view = newView(s, c.view)
		c.view.programs = c.Programs
	}
	return c.view.compile(machineID)
}

// Propose compiles what a machine's desired state would be with another specification of its pool. Nothing of it is kept.
func (c *Compiler) Propose(s *state.Snapshot, machineID string, pool *provisionrv1.Pool) (*Compiled, error) {
	v := newView(s, nil)
	v.programs, v.proposed = c.Programs, pool
	return v.compile(machineID)
}

// DesiredHash is [DesiredHash].
func (c *Compiler) DesiredHash(s *state.Snapshot, machineID string) string {
	compiled, err := c.Compile(s, machineID)
	if err != nil {
		return ""
	}
	return compiled.Hash()
}
