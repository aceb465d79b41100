package session

import (
	"context"
	"testing"
	"time"
)

// TestClone tells a second holder of an identity from a machine that came back.
func TestClone(t *testing.T) {
	type come struct {
		boot, address string
		after         time.Duration
	}
	tests := []struct {
		name  string
		comes []come
		clone bool
	}{
		{"connection broke", []come{{"b1", "a1", 0}, {"b1", "a1", time.Second}}, false},
		{"new address of the same boot", []come{{"b1", "a1", 0}, {"b1", "a2", time.Second}}, false},
		{"rebooted", []come{{"b1", "a1", 0}, {"b2", "a1", time.Second}}, false},
		{"rebooted elsewhere, later", []come{{"b1", "a1", 0}, {"b2", "a2", time.Minute}}, false},
		{"elsewhere while alive", []come{{"b1", "a1", 0}, {"b2", "a2", 5 * time.Second}}, true},
		{"the replaced one returns", []come{{"b1", "a1", 0}, {"b2", "a2", time.Minute}, {"b1", "a1", 30 * time.Second}}, true},
		{"the replaced one returns much later", []come{{"b1", "a1", 0}, {"b2", "a2", time.Minute}, {"b1", "a1", time.Hour}}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := &Hub{sessions: map[string]*session{}, displaced: map[string]origin{}, changed: make(chan struct{})}
			now, clone := time.Unix(1e9, 0), false
			for _, c := range tt.comes {
				now = now.Add(c.after)
				_, end := context.WithCancelCause(t.Context())
				s := &session{machine: "m", boot: c.boot, address: c.address, end: end, began: now}
				s.last.Store(now.UnixNano())
				if clone = h.enter(s, now); clone {
					break
				}
			}
			if clone != tt.clone {
				t.Errorf("clone %v, want %v", clone, tt.clone)
			}
			if _, ids := h.Sessions(); (len(ids) == 0) != tt.clone {
				t.Errorf("sessions %v", ids)
			}
		})
	}
}
