package service_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/service"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const unit = "zookeeper.service"

func resource(h *host.Host, want *agentv1.Service) converge.Resource {
	return service.New(&desired.State{Pool: &agentv1.PoolComponent{Services: []*agentv1.Service{want}}}, h)[1]
}

func TestConverge(t *testing.T) {
	for _, c := range []struct {
		name             string
		running, enabled bool
		unit             host.Unit
		diff             string
		log              []string
	}{
		{"as wanted", true, true, host.Unit{Load: "loaded", Active: "active", File: "enabled"}, "", nil},
		{"down", true, true, host.Unit{Load: "loaded", Active: "inactive", File: "enabled"}, "is inactive, wanted running", []string{"start " + unit}},
		{"failed", true, true, host.Unit{Load: "loaded", Active: "failed", File: "enabled"}, "is failed, wanted running", []string{"start " + unit}},
		{"not at boot", true, true, host.Unit{Load: "loaded", Active: "active", File: "disabled"}, "is disabled, wanted enabled", []string{"enable " + unit}},
		{"at the next boot no more", true, true, host.Unit{Load: "loaded", Active: "active", File: "enabled-runtime"}, "is enabled-runtime, wanted enabled", []string{"enable " + unit}},
		{"both", true, true, host.Unit{Load: "loaded", Active: "inactive", File: "disabled"}, "is inactive, wanted running\nis disabled, wanted enabled", []string{"enable " + unit, "start " + unit}},
		{"static", true, true, host.Unit{Load: "loaded", Active: "active", File: "static"}, "", nil},
		{"to stop", false, false, host.Unit{Load: "loaded", Active: "active", File: "enabled"}, "is active, wanted stopped\nis enabled, wanted not enabled", []string{"stop " + unit, "disable " + unit}},
		{"stopped", false, false, host.Unit{Load: "loaded", Active: "failed", File: "masked"}, "", nil},
		{"stopped, but at boot", false, true, host.Unit{Load: "loaded", Active: "inactive", File: "enabled"}, "", nil},
		{"not there and not wanted", false, false, host.Unit{Load: "not-found", Active: "inactive"}, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, _, u := hosttest.New(t)
			u.Set(unit, c.unit)
			r := resource(&h, &agentv1.Service{Name: unit, Running: c.running, Enabled: c.enabled})
			if d, err := r.Check(t.Context()); err != nil || d.Text != c.diff {
				t.Errorf("before: %q, %v", d.Text, err)
			}
			if c.diff == "" {
				return
			}
			if err := r.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
				t.Errorf("after: %q, %v", d.Text, err)
			}
			if got := u.Log(); !slices.Equal(got, c.log) {
				t.Errorf("units: %q", got)
			}
		})
	}
}

func TestRestartsWhenAFileChanged(t *testing.T) {
	h, _, u := hosttest.New(t)
	u.Set(unit, host.Unit{Load: "loaded", Active: "inactive", File: "enabled"})
	write := func(content string) {
		t.Helper()
		on := filepath.Join(h.Root, "etc/zoo.cfg")
		if err := errors.Join(os.MkdirAll(filepath.Dir(on), 0o755), os.WriteFile(on, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want := &agentv1.Service{Name: unit, Running: true, Enabled: true, RestartOn: []string{"/etc/zoo.cfg", "/etc/none"}}
	settle := func(action string) {
		t.Helper()
		before := len(u.Log())
		r := resource(&h, want) // as after a restart of the agent
		d, err := r.Check(t.Context())
		if err != nil || d.Empty() != (action == "") {
			t.Errorf("before: %q, %v", d.Text, err)
		}
		if err := r.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
			t.Errorf("after: %q, %v", d.Text, err)
		}
		if got := strings.Join(u.Log()[before:], ", "); got != action {
			t.Errorf("units: %q, want %q", got, action)
		}
	}
	write("a")
	settle("start " + unit)
	settle("")
	write("b")
	settle("restart " + unit)
	write("b")
	settle("")
	// A record that was torn makes the unit restart once more.
	if err := os.WriteFile(filepath.Join(h.Root, "var/lib/provisionr-agent/restarts.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	settle("restart " + unit)
}

func TestFailureCarriesTheJournal(t *testing.T) {
	h, c, u := hosttest.New(t)
	u.Set(unit, host.Unit{Load: "loaded", Active: "inactive", File: "enabled"})
	u.Fail("start "+unit, errors.New("systemd says failed"))
	c.Answer("journalctl", "java: not found\n")
	err := resource(&h, &agentv1.Service{Name: unit, Running: true, Enabled: true}).Apply(t.Context())
	if !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "systemd says failed") || !strings.Contains(err.Error(), "java: not found") {
		t.Errorf("got %v", err)
	}
}

func TestUnitThatDoesNotExist(t *testing.T) {
	h, _, _ := hosttest.New(t)
	r := resource(&h, &agentv1.Service{Name: unit, Running: true})
	if d, err := r.Check(t.Context()); err != nil || d.Text != "unit does not exist" {
		t.Errorf("check: %q, %v", d.Text, err)
	}
	if err := r.Apply(t.Context()); !errs.Is(err, errs.NotFound) || errs.HintOf(err) == "" {
		t.Errorf("apply: %v", err)
	}
}

// activating is a unit that starts for ever.
type activating struct{ host.Units }

func (activating) Unit(context.Context, string) (host.Unit, error) {
	return host.Unit{Load: "loaded", Active: "activating", File: "enabled"}, nil
}

func TestWaitIsBounded(t *testing.T) {
	h, c, u := hosttest.New(t)
	u.Set(unit, host.Unit{Load: "loaded"})
	c.Answer("journalctl", "")
	h.Units = activating{u}
	synctest.Test(t, func(t *testing.T) {
		err := resource(&h, &agentv1.Service{Name: unit, Running: true, Enabled: true}).Apply(t.Context())
		if err == nil || !strings.Contains(err.Error(), "still activating after 30s") {
			t.Errorf("got %v", err)
		}
	})
}
