package agent_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/agent"
	"github.com/provisionr/provisionr/agent/agenttest"
	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/file"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// guardedFile is the pool's file, as if it could cut the machine off.
type guardedFile struct {
	converge.Resource
	host    *host.Host
	content string
}

func (f guardedFile) Guard() converge.Guard {
	return converge.Guard{Fingerprint: f.content, Inbound: []uint16{22}}
}

func (f guardedFile) Undo(context.Context) (converge.Undo, error) {
	saved := converge.SavedFile{Path: "/etc/motd", Absent: true}
	if data, err := f.host.ReadFile("/etc/motd"); err == nil {
		saved = converge.SavedFile{Path: "/etc/motd", Content: data, Mode: 0o644, UID: os.Getuid(), GID: os.Getgid()}
	}
	return converge.Undo{Files: []converge.SavedFile{saved}}, nil
}

// TestChangeThatCutsOffIsRolledBack: a server reaches the machine's ports over fresh connections while its file says so.
func TestChangeThatCutsOffIsRolledBack(t *testing.T) {
	s := agenttest.New(t, nil)
	h := newMachine(t, s)
	s.Reach = func(port uint32) *agentv1.Reach {
		r := &agentv1.Reach{Observer: "s1", Address: "127.0.0.1", Greeting: agenttest.MachineID}
		if port == 22 {
			r.Greeting = "SSH-2.0-x"
		}
		if data, err := h.ReadFile("/etc/motd"); err == nil && strings.Contains(string(data), "closed") {
			r.Error = "timeout"
		}
		return r
	}
	startWith(t, h, func(p *agent.Parts) {
		p.Timers, p.ConfirmWithin = timers{}, 2*time.Second
		p.Resources = func(s *desired.State, h *host.Host) []converge.Resource {
			return []converge.Resource{guardedFile{file.New(s, h)[0], h, s.Pool.Variables["v"]}}
		}
	})
	in := session(t, s)
	give(t, in, pool("open"))
	until(t, in, "the good change", func(all *agentv1.Report) bool { return all.Converged && len(all.Changes) == 1 })
	if s.Confirms < 2 {
		t.Errorf("confirmed by %d calls", s.Confirms)
	}
	give(t, in, pool("closed"))
	until(t, in, "the rollback", func(all *agentv1.Report) bool {
		return !all.Converged && strings.Contains(all.Message, "rolled back: port") && strings.Contains(all.Message, "s1 at 127.0.0.1 did before")
	})
	if got := motd(t, h); got != "p-1 open\n" {
		t.Errorf("motd %q", got)
	}
	give(t, in, pool("open"))
	until(t, in, "the state before", func(all *agentv1.Report) bool { return all.Converged })
}
