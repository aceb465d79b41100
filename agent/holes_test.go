package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent"
	"github.com/provisionr/provisionr/agent/agenttest"
	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/file"
	"github.com/provisionr/provisionr/agent/upgrade"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// TestPoisonousStateDoesNotEndTheAgent: neither when it comes, nor at a start from the cache, nor as a preview. The next one is
// kept.
func TestPoisonousStateDoesNotEndTheAgent(t *testing.T) {
	s := agenttest.New(t, nil)
	h := newMachine(t, s)
	poisonous := func(p *agent.Parts) {
		p.Resources = func(s *desired.State, h *host.Host) []converge.Resource {
			if s.Pool.Variables["v"] == "poison" {
				panic("cannot be")
			}
			return file.New(s, h)
		}
	}
	told := func(all *agentv1.Report) bool { return strings.Contains(all.Message, "defect: cannot be") }
	_, stop := startWith(t, h, poisonous)
	in := session(t, s)
	d, components := agenttest.Desired(t, pool("poison"))
	a := in.Ask(t, &agentv1.Ask{Id: "preview", Kind: &agentv1.Ask_Preview{Preview: &agentv1.Preview{Desired: d, Components: components}}})
	if !strings.Contains(a.Error, "cannot be") {
		t.Errorf("preview: %v", a)
	}
	give(t, in, pool("poison"))
	until(t, in, "the defect", told)
	stop()
	startWith(t, h, poisonous)
	in = session(t, s)
	until(t, in, "the defect from the cache", told)
	give(t, in, pool("good"))
	until(t, in, "a good state", func(all *agentv1.Report) bool { return all.Converged })
}

// TestBootUndoesAnUpgrade is what the unit's drop-in calls.
func TestBootUndoesAnUpgrade(t *testing.T) {
	h, _, units := hosttest.New(t)
	old := upgrade.Program + "-0123456789ab"
	if err := h.MkdirAll(filepath.Dir(upgrade.Program), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := h.MkdirAll("/var/lib/provisionr-agent", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, h, old, "old")
	if undone, err := agent.Undo(t.Context(), &h, "boot"); len(undone) != 0 || err != nil {
		t.Fatal(undone, err)
	}
	write(t, h, "/var/lib/provisionr-agent/upgrade.json", `{"from":"`+filepath.Base(old)+`","to":"provisionr-agent-ffff","version":"v2","boot_id":"another"}`)
	if undone, err := agent.Undo(t.Context(), &h, "boot"); len(undone) != 1 || err != nil {
		t.Fatal(undone, err)
	}
	if data, err := os.ReadFile(filepath.Join(h.Root, upgrade.Program)); err != nil || string(data) != "old" {
		t.Errorf("%q, %v", data, err)
	}
	if log := units.Log(); len(log) != 0 {
		t.Errorf("units %q", log)
	}
}
