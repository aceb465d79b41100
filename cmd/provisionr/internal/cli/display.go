package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// display shows a scene as it changes.
type display interface {
	update(scene)
	// note says something that is not in the scene.
	note(string)
	finish(scene)
	// patience is how long to wait for a change before looking again.
	patience() time.Duration
}

// lineDisplay writes one line for each change of a machine's phase: for logs and pipes.
type lineDisplay struct {
	out    io.Writer
	phases map[string]provisionrv1.Phase
	noted  string
}

func (d *lineDisplay) patience() time.Duration { return 10 * time.Second }

func (d *lineDisplay) update(now scene) {
	d.noted = ""
	for _, m := range now.machines {
		id, phase := m.GetMetadata().GetName(), m.GetStatus().GetPhase()
		if d.phases[id] == phase {
			continue
		}
		d.phases[id] = phase
		line := fmt.Sprintf("%s %s", machineName(m), enumText(phase))
		if message := machineMessage(m); message != "" {
			line += ": " + clean(message)
		}
		fmt.Fprintln(d.out, line)
	}
}

func (d *lineDisplay) note(text string) {
	if text != d.noted {
		d.noted = text
		fmt.Fprintln(d.out, clean(text))
	}
}

func (d *lineDisplay) finish(now scene) { writeScene(d.out, now, false) }

// screenDisplay redraws a table in place on a terminal. It never draws more lines than the terminal has, for it could
// not go back over those that have scrolled away.
type screenDisplay struct {
	out           io.Writer
	width, height int
	colour        bool
	drawn         int
	begun         time.Time
}

func (d *screenDisplay) patience() time.Duration { return time.Second }

func (d *screenDisplay) update(now scene) { d.draw(now, "") }

func (d *screenDisplay) note(text string) {
	fmt.Fprintf(d.out, "%s%s\n", d.back(), short(clean(text), d.width-1))
	d.drawn = 1
}

func (d *screenDisplay) finish(now scene) {
	io.WriteString(d.out, d.back())
	d.drawn = 0
	writeScene(d.out, now, d.colour)
}

// back goes to the first line drawn and clears from there.
func (d *screenDisplay) back() string {
	if d.drawn == 0 {
		return ""
	}
	return fmt.Sprintf("\x1b[%dA\r\x1b[J", d.drawn)
}

func (d *screenDisplay) draw(now scene, _ string) {
	if d.begun.IsZero() {
		d.begun = time.Now()
	}
	t := table{header: []string{"MACHINE", "PHASE", "FOR", "ADDRESS", "MESSAGE"}}
	ready, hidden := 0, 0
	most := max(d.height-5, 3)
	for _, m := range now.machines {
		phase := m.GetStatus().GetPhase()
		if phase == provisionrv1.Phase_PHASE_READY {
			ready++
		}
		if len(t.rows) == most || len(now.machines) > most && phase == provisionrv1.Phase_PHASE_READY {
			hidden++
			continue
		}
		t.add(machineName(m), phaseCell(phase), age(m.GetStatus().GetSince()), orDash(m.GetStatus().GetAddress()),
			short(machineMessage(m), max(d.width-70, 12)))
	}
	lines := t.lines(d.colour)
	if hidden > 0 {
		lines = append(lines, fmt.Sprintf("and %s", counted(hidden, "more machine")))
	}
	lines = append(lines, fmt.Sprintf("%d of %d ready, %s", ready, len(now.machines), time.Since(d.begun).Truncate(time.Second)))
	fmt.Fprintf(d.out, "%s%s\n", d.back(), strings.Join(lines, "\n"))
	d.drawn = len(lines)
}

// writeScene ends a wait with the table of machines and a line for each pool.
func writeScene(w io.Writer, now scene, colour bool) {
	v := machineView()
	t := table{header: v.header[:v.wide]}
	for _, m := range now.machines {
		t.add(v.row(proto.Message(m))[:v.wide]...)
	}
	if len(t.rows) > 0 {
		fmt.Fprintln(w, strings.Join(t.lines(colour), "\n"))
	}
	for _, p := range now.pools {
		s := p.GetStatus()
		line := fmt.Sprintf("pool %s is %s: %d of %d ready", p.GetMetadata().GetName(), orDash(s.GetState()), s.GetReady(), p.GetSpec().GetSize())
		if s.GetState() != "ready" && s.GetMessage() != "" {
			line += ": " + clean(s.GetMessage())
		}
		fmt.Fprintln(w, line)
	}
}
