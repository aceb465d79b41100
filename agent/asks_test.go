package agent_test

import (
	"crypto/sha256"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/agent"
	"github.com/provisionr/provisionr/agent/agenttest"
	"github.com/provisionr/provisionr/agent/confirm"
	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func TestProbe(t *testing.T) {
	s := agenttest.New(t, nil)
	start(t, newMachine(t, s))
	in := session(t, s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "SSH-2.0-x\r\nmore\r\n")
			_ = conn.Close()
		}
	}()
	port := uint32(l.Addr().(*net.TCPAddr).Port)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	none := uint32(closed.Addr().(*net.TCPAddr).Port)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	a := in.Ask(t, &agentv1.Ask{Id: "p", Kind: &agentv1.Ask_Probe{Probe: &agentv1.Probe{Address: "127.0.0.1", Ports: []uint32{port, none}}}})
	got := a.GetReached().GetReached()
	if len(got) != 2 || got[0].Greeting != "SSH-2.0-x" || got[0].Error != "" || got[0].Address != "127.0.0.1" || got[0].Observer == "" || got[0].Port != port {
		t.Errorf("reached %v", got)
	}
	if !strings.Contains(got[1].Error, "refused") {
		t.Errorf("nobody listens: %v", got[1])
	}
}

func TestPreviewChangesNothing(t *testing.T) {
	s := agenttest.New(t, nil)
	h := newMachine(t, s)
	start(t, h)
	in := session(t, s)
	give(t, in, pool("one"))
	until(t, in, "converged", func(all *agentv1.Report) bool { return all.Converged && len(all.Changes) == 1 })
	preview := func(id, content string) *agentv1.Answer {
		d, components := agenttest.Desired(t, pool(content))
		return in.Ask(t, &agentv1.Ask{Id: id, Kind: &agentv1.Ask_Preview{Preview: &agentv1.Preview{Desired: d, Components: components}}})
	}
	if a := preview("same", "one"); a.Error != "" || len(a.GetPreview().GetDifferences()) != 0 || a.GetPreview().GetChecked() != 1 {
		t.Errorf("the same: %v", a)
	}
	a := preview("other", "two")
	if list := a.GetPreview().GetDifferences(); len(list) != 1 || list[0].Resource != "file//etc/motd" || !strings.Contains(list[0].Diff, "two") {
		t.Errorf("another: %v", a)
	}
	if got := motd(t, h); got != "p-1 one\n" {
		t.Errorf("motd %q", got)
	}
	if a := in.Ask(t, &agentv1.Ask{Id: "bad", Kind: &agentv1.Ask_Preview{Preview: &agentv1.Preview{}}}); a.Error == "" {
		t.Error("nothing is checked against")
	}
	if a := in.Ask(t, &agentv1.Ask{Id: "new"}); !strings.Contains(a.Error, "older than the server") {
		t.Errorf("an unknown question: %v", a)
	}
}

func TestReboot(t *testing.T) {
	s := agenttest.New(t, nil)
	h := newMachine(t, s)
	units := &recorder{Units: h.Units, started: make(chan string, 1)}
	h.Units = units
	start(t, h)
	in := session(t, s)
	if a := in.Ask(t, &agentv1.Ask{Id: "r", Kind: &agentv1.Ask_Reboot{Reboot: &agentv1.Reboot{Reason: "kernel"}}}); a.Error != "" {
		t.Fatal(a)
	}
	select {
	case unit := <-units.started:
		if unit != "reboot.target" {
			t.Errorf("started %s", unit)
		}
	case <-time.After(patience):
		t.Fatal("nothing was started")
	}
}

func TestAuditReportsAndTouchesNothing(t *testing.T) {
	s := agenttest.New(t, nil)
	h := newMachine(t, s)
	start(t, h)
	in := session(t, s)
	p := pool("one")
	p.Audit = true
	give(t, in, p)
	until(t, in, "the difference", func(all *agentv1.Report) bool {
		return !all.Converged && len(all.Changes) == 1 && all.Changes[0].Audit && all.Changes[0].Error == ""
	})
	if _, err := h.ReadFile("/etc/motd"); err == nil {
		t.Error("the file was made")
	}
}

// TestEventsAndFacts: a file that is edited is repaired at once, and facts come along and when they are new.
func TestEventsAndFacts(t *testing.T) {
	s := agenttest.New(t, nil)
	h := newMachine(t, s)
	write(t, h, "/etc/os-release", "PRETTY_NAME=one\n")
	real, err := agent.RealParts(&h, new(agenttest.Log).Logger())
	if err != nil {
		t.Fatal(err)
	}
	startWith(t, h, func(p *agent.Parts) { p.Watcher, p.Facts = real.Watcher, real.Facts })
	in := session(t, s)
	give(t, in, pool("one"))
	until(t, in, "facts", func(all *agentv1.Report) bool { return all.Converged && all.Facts.GetOsRelease() == "one" })
	write(t, h, "/etc/os-release", "PRETTY_NAME=two\n")
	begin := time.Now()
	write(t, h, "/etc/motd", "edited by hand\n")
	until(t, in, "the repair and new facts", func(all *agentv1.Report) bool {
		return len(all.Changes) > 0 && all.Changes[0].Drift && all.Facts.GetOsRelease() == "two"
	})
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("repaired after %s", took)
	}
	if got := motd(t, h); got != "p-1 one\n" {
		t.Errorf("motd %q", got)
	}
	status, err := agent.ReadStatus(h)
	if err != nil || len(status.Drift) != 1 || len(status.Events) != 4 || status.Events[0].Watched != 1 {
		t.Errorf("status %+v, %v", status, err)
	}
	var out strings.Builder
	if err := status.Print(&out); err != nil || !strings.Contains(out.String(), "events of files") || !strings.Contains(out.String(), "repaired") {
		t.Errorf("%v:\n%s", err, &out)
	}
}

// TestUpgradeOverTheLink has a server send another agent, which the old one would start, and a watchdog take it back.
func TestUpgradeOverTheLink(t *testing.T) {
	s := agenttest.New(t, nil)
	h := newMachine(t, s)
	program := []byte("#!/bin/sh\necho v2\n")
	sum := sha256.Sum256(program)
	s.Programs = map[[sha256.Size]byte][]byte{sum: program}
	if err := h.MkdirAll("/usr/local/lib/provisionr", 0o755); err != nil {
		t.Fatal(err)
	}
	const path = "/usr/local/lib/provisionr/provisionr-agent"
	write(t, h, path, "old")
	h.Commands = host.Processes{}
	units := &recorder{Units: h.Units, restarted: make(chan string, 2)}
	h.Units = units
	_, stop := startWith(t, h, func(p *agent.Parts) { p.Timers = timers{} })
	in := session(t, s)
	a := in.Ask(t, &agentv1.Ask{Id: "u", Kind: &agentv1.Ask_Upgrade{Upgrade: &agentv1.Upgrade{Sha256: sum[:], Version: "v2"}}})
	if a.Error != "" {
		t.Fatal(a.Error)
	}
	<-units.restarted
	if data, err := os.ReadFile(filepath.Join(h.Root, path)); err != nil || string(data) != string(program) {
		t.Errorf("the unit runs %q, %v", data, err)
	}
	stop()
	undone, err := agent.Undo(t.Context(), &h, "upgrade")
	if err != nil || len(undone) != 1 {
		t.Fatal(undone, err)
	}
	startWith(t, h, func(p *agent.Parts) { p.Timers = timers{} })
	in = session(t, s)
	until(t, in, "why it was taken back", func(all *agentv1.Report) bool {
		return len(all.Changes) == 1 && all.Changes[0].Resource == "agent/upgrade" && strings.Contains(all.Changes[0].Error, "v2 was taken back")
	})
}

// TestUnconfirmedChangeIsUndoneFirst: an agent that finds one undoes it before it converges, and says so.
func TestUnconfirmedChangeIsUndoneFirst(t *testing.T) {
	s := agenttest.New(t, nil)
	h := newMachine(t, s)
	write(t, h, "/etc/rules", "bad")
	data, err := json.Marshal(confirm.Pending{Resource: "firewall/nftables", Fingerprint: "f", Undo: converge.Undo{
		Files: []converge.SavedFile{{Path: "/etc/rules", Content: []byte("good"), Mode: 0o600, UID: os.Getuid(), GID: os.Getgid()}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.MkdirAll(confirm.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, h, confirm.Dir+"/undo.json", string(data))
	startWith(t, h, func(p *agent.Parts) { p.Timers = timers{} })
	in := session(t, s)
	until(t, in, "the undo", func(all *agentv1.Report) bool {
		return len(all.Changes) == 1 && strings.Contains(all.Changes[0].Error, "rolled back")
	})
	if data, err := h.ReadFile("/etc/rules"); err != nil || string(data) != "good" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := agent.Undo(t.Context(), &h, "everything"); err == nil {
		t.Error("undoes what it does not know")
	}
}
