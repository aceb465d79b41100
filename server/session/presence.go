package session

import (
	"maps"
	"slices"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
)

// Two holders of one identity are told apart from one machine that came back by time: within aliveWithin of its last
// word a machine cannot have rebooted elsewhere, and one that was replaced does not return.
const (
	aliveWithin = 10 * time.Second
	returnsIn   = 2 * time.Minute
)

// origin says which boot of a machine, at which address, a session comes from.
type origin struct {
	boot, address string
	at            time.Time
}

func (o origin) same(boot, address string) bool { return o.boot == boot && o.address == address }

// Sessions returns the ids, sorted, of the machines that have a session with this member, and a number that grows with
// every change of them.
func (h *Hub) Sessions() (revision uint64, machineIDs []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.revision, slices.Sorted(maps.Keys(h.sessions))
}

// ConnectedSince returns when the present session of a machine began.
func (h *Hub) ConnectedSince(machineID string) (since time.Time, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.sessions[machineID]
	if !ok {
		return time.Time{}, false
	}
	return s.began, true
}

// Changed returns a channel that is closed at the next change of the sessions.
func (h *Hub) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

func (h *Hub) session(machineID string) (*session, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s, ok := h.sessions[machineID]; ok {
		return s, nil
	}
	return nil, errs.New(errs.NotFound, "machine %s has no session with %s", machineID, h.cfg.Member)
}

// all returns the present sessions, sorted by machine.
func (h *Hub) all() []*session {
	h.mu.Lock()
	defer h.mu.Unlock()
	sessions := make([]*session, 0, len(h.sessions))
	for _, id := range slices.Sorted(maps.Keys(h.sessions)) {
		sessions = append(sessions, h.sessions[id])
	}
	return sessions
}

// enter makes s the machine's session and ends the one before. It reports a clone, and then ends the one before as well
// and lets nobody in.
func (h *Hub) enter(s *session, now time.Time) (clone bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.sessions[s.machine]; old != nil {
		before, wasAlive := h.displaced[s.machine], now.Sub(old.heard()) < aliveWithin
		moved := old.boot != s.boot && old.address != s.address
		clone = moved && (wasAlive || before.same(s.boot, s.address) && now.Sub(before.at) < returnsIn)
		if clone {
			delete(h.sessions, s.machine)
			delete(h.displaced, s.machine)
			old.end(errs.New(errs.Denied, "another machine has this identity: both are quarantined"))
			h.touch()
			return true
		}
		h.displaced[s.machine] = origin{old.boot, old.address, now}
		old.end(errs.New(errs.Conflict, "a newer session of this machine replaced this one"))
	}
	h.sessions[s.machine] = s
	h.touch()
	return false
}

// leave removes s, unless a newer session took its place.
func (h *Hub) leave(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions[s.machine] == s {
		delete(h.sessions, s.machine)
		delete(h.displaced, s.machine)
		h.touch()
	}
}

func (h *Hub) touch() {
	h.revision++
	close(h.changed)
	h.changed = make(chan struct{})
}
