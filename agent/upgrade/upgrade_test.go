package upgrade_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/programs"
	"github.com/provisionr/provisionr/agent/upgrade"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const unit = "provisionr-agent.service"

// world is a machine with an old agent, and a server with a new one.
type world struct {
	t        *testing.T
	host     host.Host
	commands *hosttest.Commands
	units    *hosttest.Units
	old, new [sha256.Size]byte
	armed    [][]string
	disarmed int
	boot     string
}

func (w *world) Arm(_ context.Context, _ string, _ time.Duration, command []string) error {
	w.armed = append(w.armed, command)
	return nil
}

func (w *world) Disarm(context.Context, string) error {
	w.disarmed++
	return nil
}

func (w *world) Fetch(_ context.Context, r *agentv1.FetchRequest) (func() (*agentv1.FetchResponse, error), error) {
	rest := []byte("new agent")[r.Offset:]
	return func() (*agentv1.FetchResponse, error) {
		if len(rest) == 0 {
			return nil, io.EOF
		}
		m := &agentv1.FetchResponse{Data: rest}
		rest = nil
		return m, nil
	}, nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, boot: "b1", old: sha256.Sum256([]byte("old agent")), new: sha256.Sum256([]byte("new agent"))}
	w.host, w.commands, w.units = hosttest.New(t)
	w.units.Set(unit, host.Unit{Load: "loaded", Active: "active"})
	w.commands.Answer(filepath.Join(w.host.Root, programs.Path("provisionr-agent", w.new[:])), "v2\n")
	if err := w.host.MkdirAll(programs.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.host.Root, upgrade.Program), []byte("old agent"), 0o755); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) upgrader(running string) *upgrade.Upgrader {
	w.t.Helper()
	u, err := upgrade.New(upgrade.Config{Host: &w.host, Programs: programs.New(&w.host, w), Timers: w, Running: running, BootID: w.boot, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

// runs is what the unit would run.
func (w *world) runs() string {
	data, err := os.ReadFile(filepath.Join(w.host.Root, upgrade.Program))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(data)
}

func (w *world) begin() {
	w.t.Helper()
	start, err := w.upgrader("").Prepare(w.t.Context(), w.new[:], "v2")
	if err != nil {
		w.t.Fatal(err)
	}
	if w.runs() != "old agent" || len(w.armed) != 1 {
		w.t.Fatalf("prepared: %s, armed %v", w.runs(), w.armed)
	}
	if err := start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func TestUpgrade(t *testing.T) {
	w := newWorld(t)
	w.begin()
	oldName, newName := programs.Path("provisionr-agent", w.old[:]), programs.Path("provisionr-agent", w.new[:])
	if want := []string{oldName, "undo", "upgrade"}; !slices.Equal(w.armed[0], want) {
		t.Errorf("armed %q, want %q", w.armed[0], want)
	}
	if log := w.units.Log(); w.runs() != "new agent" || !slices.Equal(log, []string{"daemon-reload", "restart " + unit}) {
		t.Errorf("%s, %q", w.runs(), log)
	}
	// A session of the old agent, which is about to end, confirms nothing.
	if err := w.upgrader(filepath.Base(oldName)).Connected(t.Context()); err != nil || w.disarmed != 0 {
		t.Fatalf("the old agent ended the upgrade: %v", err)
	}
	if err := w.upgrader(filepath.Base(newName)).Connected(t.Context()); err != nil || w.disarmed != 1 {
		t.Fatalf("not ended: %v, %d", err, w.disarmed)
	}
	was, err := upgrade.Undo(t.Context(), &w.host, "late")
	if was || err != nil || w.runs() != "new agent" {
		t.Errorf("an upgrade that ended is undone: %v, %v", was, err)
	}
	if why, _ := w.upgrader("").Failed(); why != "" {
		t.Error(why)
	}
	// The same again is nothing to do.
	if start, err := w.upgrader("").Prepare(t.Context(), w.new[:], "v2"); start != nil || err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestBadAgentIsTakenBack(t *testing.T) {
	w := newWorld(t)
	w.begin()
	if _, err := w.upgrader("").Prepare(t.Context(), w.new[:], "v2"); !errs.Is(err, errs.Conflict) {
		t.Errorf("a second upgrade: %v", err)
	}
	if left, ok := w.upgrader("").Left(); !ok || left <= 0 {
		t.Errorf("left %s, %v", left, ok)
	}
	for n := range 2 {
		was, err := upgrade.Undo(t.Context(), &w.host, "it had no session")
		if err != nil || was != (n == 0) || w.runs() != "old agent" {
			t.Fatalf("undo %d: %v, %v, %s", n, was, err, w.runs())
		}
	}
	if log := w.units.Log(); !slices.Equal(log, []string{"daemon-reload", "restart " + unit, "daemon-reload", "restart " + unit}) {
		t.Errorf("units %q", log)
	}
	u := w.upgrader("")
	if why, _ := u.Failed(); !strings.Contains(why, "v2 was taken back: it had no session") {
		t.Errorf("why %q", why)
	}
	if err := u.Connected(t.Context()); err != nil {
		t.Error(err)
	}
	if err := u.Told(); err != nil {
		t.Error(err)
	}
	if why, _ := u.Failed(); why != "" {
		t.Errorf("told, and still %q", why)
	}
	// It may be tried again.
	w.armed = nil
	w.begin()
}

func TestWhatDoesNotRunIsNotStarted(t *testing.T) {
	tests := []struct {
		name, want string
		answer     func(hosttest.Call) (host.Result, error)
	}{
		{"does not run", "exec format error", func(hosttest.Call) (host.Result, error) { return host.Result{}, errors.New("exec format error") }},
		{"fails", "exit 2: usage", func(hosttest.Call) (host.Result, error) { return host.Result{Exit: 2, Stderr: []byte("usage")}, nil }},
		{"another", `says it is "v1"`, func(hosttest.Call) (host.Result, error) { return host.Result{Stdout: []byte("v1\n")}, nil }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			path := programs.Path("provisionr-agent", w.new[:])
			w.commands.On(filepath.Join(w.host.Root, path), tt.answer)
			_, err := w.upgrader("").Prepare(t.Context(), w.new[:], "v2")
			if err == nil || !strings.Contains(err.Error(), tt.want) || w.runs() != "old agent" || len(w.armed) != 0 {
				t.Errorf("error %v, runs %s, armed %v", err, w.runs(), w.armed)
			}
			if _, err := os.Stat(filepath.Join(w.host.Root, path)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it is kept: %v", err)
			}
		})
	}
}

func TestUnitThatDoesNotStartIsTakenBack(t *testing.T) {
	w := newWorld(t)
	start, err := w.upgrader("").Prepare(t.Context(), w.new[:], "v2")
	if err != nil {
		t.Fatal(err)
	}
	w.units.Fail("restart "+unit, errors.New("no bus"))
	if err := start(t.Context()); err == nil || w.runs() != "old agent" {
		t.Errorf("error %v, runs %s", err, w.runs())
	}
	if why, _ := w.upgrader("").Failed(); !strings.Contains(why, "no bus") {
		t.Errorf("why %q", why)
	}
}
