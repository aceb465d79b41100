package session

import (
	"sync"

	"github.com/provisionr/provisionr/server/state"
)

// Compiler compiles many machines of one snapshot cheaply: it keeps what they share until the snapshot changes, and what
// still holds even then. Its zero value is ready; it is safe for concurrent use.
type Compiler struct {
	mu   sync.Mutex
	view *view
}

// Compile is [Compile].
func (c *Compiler) Compile(s *state.Snapshot, machineID string) (*Compiled, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.view == nil || c.view.s != s {
		c.view = newView(s, c.view)
	}
	return c.view.compile(machineID)
}

// DesiredHash is [DesiredHash].
func (c *Compiler) DesiredHash(s *state.Snapshot, machineID string) string {
	compiled, err := c.Compile(s, machineID)
	if err != nil {
		return ""
	}
	return compiled.Hash()
}
