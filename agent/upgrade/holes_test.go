package upgrade_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/provisionr/provisionr/agent/programs"
	"github.com/provisionr/provisionr/agent/upgrade"
	"github.com/provisionr/provisionr/internal/errs"
)

const dropIn = "/etc/systemd/system/" + unit + ".d/50-provisionr-upgrade.conf"

// TestBootTakesTheUpgradeBack: the watchdog does not outlive a boot, and a program that crashes at once can do nothing about it.
func TestBootTakesTheUpgradeBack(t *testing.T) {
	w := newWorld(t)
	w.begin()
	content, err := w.host.ReadFile(dropIn)
	if want := "ExecStartPre=-" + programs.Path("provisionr-agent", w.old[:]) + " undo boot\n"; err != nil || !strings.HasSuffix(string(content), want) {
		t.Fatalf("%q, %v, want %q", content, err, want)
	}
	// A start within the same boot, as of the new program, is none.
	if was, err := upgrade.Booted(&w.host, "b1"); was || err != nil || w.runs() != "new agent" {
		t.Fatalf("%v, %v, runs %s", was, err, w.runs())
	}
	restarts := len(w.units.Log())
	if was, err := upgrade.Booted(&w.host, "b2"); !was || err != nil || w.runs() != "old agent" {
		t.Fatalf("%v, %v, runs %s", was, err, w.runs())
	}
	if len(w.units.Log()) != restarts {
		t.Error("the unit, which is being started, is started anew")
	}
	if _, err := w.host.ReadFile(dropIn); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the drop-in: %v", err)
	}
	if why, _ := w.upgrader("").Failed(); !strings.Contains(why, "booted") {
		t.Errorf("why %q", why)
	}
	if was, err := upgrade.Booted(&w.host, "b3"); was || err != nil {
		t.Error(was, err)
	}
}

func TestNothingIsLeftOfAnUpgrade(t *testing.T) {
	w := newWorld(t)
	w.begin()
	if err := w.upgrader("").Connected(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.host.ReadFile(dropIn); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the drop-in: %v", err)
	}
	if log := w.units.Log(); log[len(log)-1] != "daemon-reload" {
		t.Errorf("units %q", log)
	}
}

// TestTakenBackOnAFullDisk: that nothing can be written down must not keep the old program from being started.
func TestTakenBackOnAFullDisk(t *testing.T) {
	w := newWorld(t)
	w.begin()
	if err := os.MkdirAll(filepath.Join(w.host.Root, "/var/lib/provisionr-agent/upgrade-failed.json/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	was, err := upgrade.Undo(t.Context(), &w.host, "late")
	if log := w.units.Log(); !was || err == nil || w.runs() != "old agent" || log[len(log)-1] != "restart "+unit || len(log) != 4 {
		t.Errorf("%v, %v, runs %s, %q", was, err, w.runs(), log)
	}
}

// TestOneUpgradeAtATime: two that are asked for at once must not mix.
func TestOneUpgradeAtATime(t *testing.T) {
	w := newWorld(t)
	u := w.upgrader("")
	var all sync.WaitGroup
	var mu sync.Mutex
	began := 0
	for range 8 {
		all.Go(func() {
			start, err := u.Prepare(t.Context(), w.new[:], "v2")
			mu.Lock()
			defer mu.Unlock()
			if start != nil {
				began++
			} else if !errs.Is(err, errs.Conflict) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if began != 1 {
		t.Errorf("%d began", began)
	}
}
