package confirm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const machineID = "m-a"

// world is a machine whose reachability is what its file says: "open", "closed" or "dead".
type world struct {
	t        *testing.T
	host     host.Host
	linked   bool
	armed    []string
	disarmed int
	// crash ends the agent at the step of this number, counted over all that it does outside of its memory.
	crash, step int
	calls       int
	admits      func(uint16, netip.Addr) bool
	slow        time.Duration
	applyErr    error
	print       string
}

// crashed stands for the end of the process.
type crashed struct{}

func (w *world) at() {
	w.step++
	if w.step == w.crash {
		panic(crashed{})
	}
}

const rules = "/etc/rules"

func newWorld(t *testing.T) *world {
	t.Helper()
	h, commands, _ := hosttest.New(t)
	commands.Answer("reload", "")
	w := &world{t: t, host: h, linked: true, print: "new"}
	if err := os.MkdirAll(filepath.Join(h.Root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.write("open")
	return w
}

func (w *world) write(content string) {
	w.t.Helper()
	if err := w.host.WriteFile(rules, []byte(content), host.Attributes{Mode: 0o640, Owner: &host.Owner{UID: os.Getuid(), GID: os.Getgid()}}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) content() string {
	data, err := w.host.ReadFile(rules)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(data)
}

func (w *world) confirmer() *Confirmer {
	w.t.Helper()
	c, err := New(Config{Host: &w.host, Dialer: w, Timers: w, Linked: func() bool { return w.linked }, MachineID: machineID,
		Undo: []string{"agent", "undo"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) Confirm(_ context.Context, ports []uint32) ([]*agentv1.Reach, error) {
	w.calls++
	w.at()
	state := w.content()
	if state == "dead" {
		return nil, errors.New("no route to host")
	}
	var list []*agentv1.Reach
	for _, p := range ports {
		r := &agentv1.Reach{Port: p, Observer: "s1", Address: "10.0.0.1"}
		switch {
		case state == "closed":
			r.Error = "timeout"
		case p == Port:
			r.Greeting = machineID
		case p == 22:
			r.Greeting = "SSH-2.0-OpenSSH"
		default:
			r.Greeting = "x"
		}
		list = append(list, r)
	}
	return list, nil
}

func (w *world) Arm(_ context.Context, name string, after time.Duration, command []string) error {
	w.at()
	w.armed = append(w.armed, fmt.Sprint(name, " ", after, " ", command))
	w.at()
	return nil
}

func (w *world) Disarm(context.Context, string) error {
	w.at()
	w.disarmed++
	return nil
}

// change is a guarded resource that writes the file.
type change struct {
	*world
	to string
}

func (c change) Name() string { return "rules/all" }
func (c change) Check(context.Context) (converge.Diff, error) {
	if c.content() == c.to {
		return converge.Diff{}, nil
	}
	return converge.Diff{Text: "differs"}, nil
}

func (c change) Apply(ctx context.Context) error {
	c.at()
	c.write(c.to)
	c.at()
	if c.slow > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(c.slow):
		}
	}
	return c.applyErr
}
func (c change) Guard() converge.Guard {
	return converge.Guard{Fingerprint: c.print + c.to, Inbound: []uint16{22, 8080}}
}
func (c change) Undo(context.Context) (converge.Undo, error) {
	c.at()
	saved := converge.SavedFile{Path: rules, Content: []byte(c.content()), Mode: 0o640, UID: os.Getuid(), GID: os.Getgid()}
	return converge.Undo{Files: []converge.SavedFile{saved}, Commands: [][]string{{"reload", "now"}}}, nil
}

type choosy struct{ change }

func (c choosy) Admits(port uint16, source netip.Addr) bool { return c.admits(port, source) }

func TestConfirm(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(w *world)
		to      string
		err     string // what the error says; empty for none
		want    string // what the file says then
		armed   bool
	}{
		{"good", nil, "open", "", "open", true},
		{"nothing reached before", func(w *world) { w.write("closed") }, "closed", "", "closed", true},
		{"inbound is lost", nil, "closed", "rolled back: port", "open", true},
		{"all is lost", nil, "dead", "rolled back: no server could be reached: no route to host", "open", true},
		{"not linked", func(w *world) { w.linked = false }, "closed", "waits for a server", "open", false},
		{"no fresh connection before", func(w *world) { w.write("dead") }, "open", "waits for a server", "dead", false},
		{"apply fails", func(w *world) { w.applyErr = errors.New("no disk") }, "closed", "no disk", "open", true},
		{"apply hangs", func(w *world) { w.slow = time.Hour }, "closed", "not made within 40s", "open", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				if tt.prepare != nil {
					tt.prepare(w)
				}
				begin := time.Now()
				err := w.confirmer().Apply(t.Context(), change{w, tt.to})
				if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				if got := w.content(); got != tt.want {
					t.Errorf("the machine is %s, want %s", got, tt.want)
				}
				if (len(w.armed) == 1) != tt.armed || tt.armed && w.armed[0] != "provisionr-undo 1m30s [agent undo]" {
					t.Errorf("armed %q", w.armed)
				}
				if tt.armed && w.disarmed != 1 {
					t.Errorf("disarmed %d times", w.disarmed)
				}
				if took := time.Since(begin); took >= watchdogAfter {
					t.Errorf("took %s: the watchdog is quicker", took)
				}
				if p, err := (records{&w.host}).pending(); p != nil || err != nil {
					t.Errorf("still pending: %v, %v", p, err)
				}
			})
		})
	}
}

func TestOnceConfirmedIsRepairedWithoutAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.confirmer()
		must(t, c.Apply(t.Context(), change{w, "open"}))
		w.linked, w.calls = false, 0
		w.write("closed")
		must(t, w.confirmer().Apply(t.Context(), change{w, "open"}))
		if w.calls != 0 || w.content() != "open" {
			t.Errorf("%d calls, %s", w.calls, w.content())
		}
		if s := ReadStatus(&w.host); len(s.Confirmed) != 1 || s.Pending != "" {
			t.Errorf("status %+v", s)
		}
	})
}

func TestRejectedIsNotTriedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.confirmer()
		first := c.Apply(t.Context(), change{w, "closed"})
		calls := w.calls
		again := w.confirmer().Apply(t.Context(), change{w, "closed"})
		if first == nil || again == nil || first.Error() != again.Error() || w.calls != calls || errs.HintOf(again) == "" {
			t.Errorf("%v, then %v, with %d more calls", first, again, w.calls-calls)
		}
		w.print = "newer"
		if err := c.Apply(t.Context(), change{w, "open"}); err != nil {
			t.Errorf("another desired state: %v", err)
		}
		w.print = "new"
		time.Sleep(61 * time.Minute)
		if err := c.Apply(t.Context(), change{w, "closed"}); err == nil || w.calls == calls {
			t.Errorf("after an hour it is not tried: %v", err)
		}
	})
}

// TestWhomTheRulesKeepOutNeedNotConfirm: a port that only an observer reached whom the new rules keep out is not required.
func TestWhomTheRulesKeepOutNeedNotConfirm(t *testing.T) {
	for _, admitted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.admits = func(port uint16, source netip.Addr) bool {
				return admitted || port != 8080 || source.String() != "10.0.0.1"
			}
			c := w.confirmer()
			before, err := c.ask(t.Context(), []uint16{22, 8080})
			must(t, err)
			got := c.required(choosy{change{w, "open"}}, before)
			if (got[8080] != nil) != admitted || got[22] == nil || got[Port] == nil {
				t.Errorf("admitted %v: required %v", admitted, got)
			}
		})
	}
}

// TestCrashAnywhere ends the agent at every step of a change for the worse. What starts next finds the machine as it was, or
// brings it there: the watchdog or the agent.
func TestCrashAnywhere(t *testing.T) {
	for _, by := range []string{"watchdog", "agent", "both"} {
		for _, to := range []string{"closed", "open"} {
			for step := 1; ; step++ {
				ended := false
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					w.write("open")
					w.crash = step
					ended = runs(func() { _ = w.confirmer().Apply(t.Context(), change{w, to}) })
					w.crash = 0
					pending, err := (records{&w.host}).pending()
					must(t, err)
					if w.content() == "closed" && (pending == nil || len(w.armed) == 0) {
						t.Fatalf("step %d: the machine is cut off and nothing brings it back", step)
					}
					if by != "agent" {
						_, err = Undo(t.Context(), &w.host, "not confirmed in time")
						must(t, err)
					}
					if by != "watchdog" {
						_, err = Recover(t.Context(), &w.host)
						must(t, err)
					}
					if w.content() != "open" {
						t.Fatalf("step %d by %s: the machine is %s", step, by, w.content())
					}
					if p, err := (records{&w.host}).pending(); p != nil || err != nil {
						t.Errorf("step %d: still pending: %v %v", step, p, err)
					}
				})
				if ended {
					break
				}
			}
		}
	}
}

// runs reports whether f came to its end.
func runs(f func()) (ended bool) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(crashed); !ok {
				panic(p)
			}
		}
	}()
	f()
	return true
}

// TestWatchdogIsQuicker: an agent that was held up finds its change undone, and does not call it confirmed.
func TestWatchdogIsQuicker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.confirmer()
		p, err := c.arm(t.Context(), change{w, "open"}, change{w, "open"}.Guard())
		must(t, err)
		undone, err := Undo(t.Context(), &w.host, "not confirmed in time")
		if err != nil || undone == nil {
			t.Fatal(undone, err)
		}
		if err := c.keep(t.Context(), p); err == nil || !strings.Contains(err.Error(), "rolled back") {
			t.Errorf("keep: %v", err)
		}
		if err := c.Apply(t.Context(), change{w, "open"}); err == nil || !strings.Contains(err.Error(), "not confirmed in time") {
			t.Errorf("apply: %v", err)
		}
	})
}

// TestConfirmedIsNotUndone: the agent ended after the verdict and before it removed the record.
func TestConfirmedIsNotUndone(t *testing.T) {
	w := newWorld(t)
	c := w.confirmer()
	p, err := c.arm(t.Context(), change{w, "closed"}, change{w, "closed"}.Guard())
	must(t, err)
	w.write("closed")
	must(t, c.records.judge(p, nil))
	must(t, c.records.write(undoPath, p))
	undone, err := Undo(t.Context(), &w.host, "late")
	if undone != nil || err != nil || w.content() != "closed" {
		t.Errorf("%v, %v, %s", undone, err, w.content())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
