package timezone_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/timezone"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func state(distribution, zone string) *desired.State {
	return &desired.State{
		Machine: &agentv1.MachineComponent{Os: &agentv1.OperatingSystem{Distribution: distribution}, SharedKernel: true},
		Pool:    &agentv1.PoolComponent{Timezone: zone},
	}
}

func TestConverge(t *testing.T) {
	for _, distribution := range []string{"debian", "ubuntu", "fedora"} {
		t.Run(distribution, func(t *testing.T) {
			h, c, _ := hosttest.New(t)
			on := func(name string) string { return filepath.Join(h.Root, name) }
			if err := errors.Join(os.MkdirAll(on("usr/share/zoneinfo/Europe"), 0o755), os.Mkdir(on("etc"), 0o755),
				os.WriteFile(on("usr/share/zoneinfo/Europe/Berlin"), nil, 0o644), os.Symlink("/usr/share/zoneinfo/Etc/UTC", on("etc/localtime"))); err != nil {
				t.Fatal(err)
			}
			r := timezone.New(state(distribution, "Europe/Berlin"), &h)[0]
			if d, err := r.Check(t.Context()); err != nil || !strings.Contains(d.Text, "-link to /usr/share/zoneinfo/Etc/UTC\n+link to /usr/share/zoneinfo/Europe/Berlin") {
				t.Errorf("before: %q, %v", d.Text, err)
			}
			if err := r.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
				t.Errorf("after: %q, %v", d.Text, err)
			}
			if target, err := os.Readlink(on("etc/localtime")); err != nil || target != "/usr/share/zoneinfo/Europe/Berlin" {
				t.Errorf("link to %q, %v", target, err)
			}
			if err := errors.Join(os.Remove(on("etc/localtime")), os.Symlink("../usr/share/zoneinfo/Europe/Berlin", on("etc/localtime"))); err != nil {
				t.Fatal(err)
			}
			if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
				t.Errorf("as timedatectl makes it: %q, %v", d.Text, err)
			}
			b, err := os.ReadFile(on("etc/timezone"))
			if has := err == nil && string(b) == "Europe/Berlin\n"; has != (distribution != "fedora") {
				t.Errorf("/etc/timezone: %q, %v", b, err)
			}
			if triggered, ok := r.(converge.Triggered); !ok || len(triggered.Triggers()) == 0 {
				t.Error("no trigger")
			}
			if len(c.Lines()) > 0 {
				t.Errorf("ran %q", c.Lines())
			}
		})
	}
}

func TestZoneThatDoesNotExist(t *testing.T) {
	h, _, _ := hosttest.New(t)
	if err := timezone.New(state("debian", "Mars/Olympus"), &h)[0].Apply(t.Context()); !errs.Is(err, errs.NotFound) || errs.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(filepath.Join(h.Root, "etc/localtime")); !os.IsNotExist(err) {
		t.Errorf("the link: %v", err)
	}
}

func TestLeftAsItIs(t *testing.T) {
	h, _, _ := hosttest.New(t)
	if list := timezone.New(state("debian", ""), &h); len(list) > 0 {
		t.Errorf("%d resources", len(list))
	}
}
