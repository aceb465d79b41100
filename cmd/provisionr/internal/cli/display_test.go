package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func machines(n int, phase provisionrv1.Phase) []*provisionrv1.Machine {
	var out []*provisionrv1.Machine
	for i := range n {
		out = append(out, &provisionrv1.Machine{
			Metadata: &provisionrv1.Metadata{Name: fmt.Sprintf("m-%d", i)},
			Spec:     &provisionrv1.MachineSpec{Pool: "web", Slot: fmt.Sprintf("web-%d", i+1), Index: uint32(i + 1)},
			Status:   &provisionrv1.MachineStatus{Phase: phase, Reason: strings.Repeat("long reason ", 30)},
		})
	}
	return out
}

// Each drawing goes back over exactly the lines of the one before, and none is wider or higher than the terminal.
func TestScreenRedrawsInPlace(t *testing.T) {
	var out bytes.Buffer
	d := &screenDisplay{out: &out, width: 100, height: 12}
	drawn := 0
	for _, now := range []scene{
		{},
		{machines: machines(3, provisionrv1.Phase_PHASE_BOOTING)},
		{machines: append(machines(30, provisionrv1.Phase_PHASE_READY), machines(30, provisionrv1.Phase_PHASE_BOOTING)...)},
		{machines: machines(2, provisionrv1.Phase_PHASE_READY)},
	} {
		out.Reset()
		d.update(now)
		text := out.String()
		back := fmt.Sprintf("\x1b[%dA\r\x1b[J", drawn)
		if drawn > 0 && !strings.HasPrefix(text, back) {
			t.Errorf("after %d lines it begins with %q", drawn, text[:min(20, len(text))])
		}
		drawn = strings.Count(text, "\n")
		if drawn >= d.height {
			t.Errorf("%d lines on a terminal of %d", drawn, d.height)
		}
		for line := range strings.Lines(strings.TrimPrefix(text, back)) {
			if len([]rune(strings.TrimSpace(line))) > d.width {
				t.Errorf("line of %d columns: %q", len(line), line)
			}
		}
	}
	out.Reset()
	d.note("waiting\nfor a server")
	d.finish(scene{machines: machines(1, provisionrv1.Phase_PHASE_READY)})
	if got := out.String(); !strings.Contains(got, "waiting for a server\n\x1b[1A") {
		t.Errorf("a note is not drawn over: %q", got)
	}
}

func TestLinesOnlyWhenSomethingChanges(t *testing.T) {
	var out bytes.Buffer
	d := &lineDisplay{out: &out, phases: map[string]provisionrv1.Phase{}}
	for range 3 {
		d.update(scene{machines: machines(1, provisionrv1.Phase_PHASE_READY)})
	}
	d.note("waiting")
	d.note("waiting")
	if got := out.String(); got != "web-1 ready\nwaiting\n" {
		t.Errorf("got %q", got)
	}
}

func TestAge(t *testing.T) {
	for ago, want := range map[time.Duration]string{
		0: "0s", 90 * time.Second: "1m30s", 5 * time.Minute: "5m", 119 * time.Minute: "1h59m", 3 * time.Hour: "3h", 49 * time.Hour: "2d", -time.Hour: "0s",
	} {
		if got := age(timestamppb.New(time.Now().Add(-ago - time.Millisecond))); got != want {
			t.Errorf("%s is %s, want %s", ago, got, want)
		}
	}
	if age(nil) != "-" {
		t.Error("no time has an age")
	}
}

// What machines say cannot take over the terminal.
func TestCleanAndHarmless(t *testing.T) {
	if got := clean("a\x1b]0;owned\x07\nb\u009bc\td"); got != "a]0;owned bc d" {
		t.Errorf("got %q", got)
	}
	if got := harmless("one\r\n\x1b[2Jtwo"); got != "one\n[2Jtwo" {
		t.Errorf("got %q", got)
	}
}

func TestTableAlignsByCharacters(t *testing.T) {
	table := table{header: []string{"A", "B"}}
	table.add("größe", "x")
	table.add(cell{"ok", green}, "y")
	want := "A       B\ngröße   x\nok      y"
	if got := strings.Join(table.lines(false), "\n"); got != want {
		t.Errorf("got\n%s", got)
	}
	if got := table.lines(true)[2]; got != "\x1b[32mok\x1b[0m      y" {
		t.Errorf("got %q", got)
	}
}

func TestPrefixerBoundsLines(t *testing.T) {
	var out bytes.Buffer
	p := newPrefixer(&out, true)
	p.write("a", []byte("one\ntw"))
	p.write("b", []byte("x"))
	p.write("a", []byte("o\n"))
	p.write("b", bytes.Repeat([]byte("y"), maxLine))
	p.write("a", []byte("end"))
	p.flush()
	want := "a: one\na: two\nb: x" + strings.Repeat("y", maxLine) + "\na: end\n"
	if out.String() != want {
		t.Errorf("got %d bytes, want %d", out.Len(), len(want))
	}
}

func TestSignsAndFields(t *testing.T) {
	var out bytes.Buffer
	writeChanges(&out, []*provisionrv1.Change{
		{Action: "update", Kind: "Pool", Name: "web", Warnings: []string{"machines are replaced"}, Machines: []string{"replace web-1"},
			Fields: []*provisionrv1.FieldChange{{Path: "spec.size", Before: "1", After: "2"}, {Path: "spec.zone", Before: "a"}, {Path: "spec.network", After: "n"}}},
		{Action: "none", Kind: "Zone", Name: "default"},
	})
	want := `~ pool web: update
    spec.size: 1 -> 2
    spec.zone: a -> (none)
    spec.network: n
  machine: replace web-1
  warning: machines are replaced
plan: 0 to create, 1 to change, 1 as they are
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}
