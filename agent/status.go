package agent

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/provisionr/provisionr/agent/confirm"
	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/watch"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// Status is what the agent tells people on the machine, in JSON in /run/provisionr-agent/status.json.
type Status struct {
	Version string `json:"version"`
	Machine string `json:"machine"`
	Name    string `json:"name,omitempty"`
	// Server that the session is with; empty while there is none. Since is when that began.
	Server string    `json:"server,omitempty"`
	Since  time.Time `json:"since"`
	// PoolGeneration and Run are of the last finished run.
	PoolGeneration uint64     `json:"pool_generation"`
	Run            *RunStatus `json:"run,omitempty"`
	// Proofs are the newest outcome of each.
	Proofs []ProofStatus `json:"proofs,omitempty"`
	// Drift are the last repairs, oldest first.
	Drift []DriftStatus `json:"drift,omitempty"`
	// Confirm tells of changes that could cut the machine off.
	Confirm confirm.Status `json:"confirm"`
	// Events tells of the sources of events.
	Events []watch.Status `json:"events,omitempty"`
}

// maxDrift bounds the repairs that are told.
const maxDrift = 20

// DriftStatus is one repair of what was right before, or that something differs where it is only looked at.
type DriftStatus struct {
	At       time.Time `json:"at"`
	Resource string    `json:"resource"`
	Diff     string    `json:"diff,omitempty"`
	Error    string    `json:"error,omitempty"`
	Audit    bool      `json:"audit,omitempty"`
}

// RunStatus is a finished run.
type RunStatus struct {
	Started   time.Time        `json:"started"`
	Ended     time.Time        `json:"ended"`
	Resources []ResourceStatus `json:"resources"`
}

// ResourceStatus is the outcome of one resource.
type ResourceStatus struct {
	Resource string `json:"resource"`
	Changed  bool   `json:"changed,omitempty"`
	Drift    bool   `json:"drift,omitempty"`
	Error    string `json:"error,omitempty"`
}

// ProofStatus is the outcome of one proof.
type ProofStatus struct {
	Assumption string `json:"assumption"`
	Machine    string `json:"machine"`
	State      string `json:"state"`
	Expected   string `json:"expected,omitempty"`
	Found      string `json:"found,omitempty"`
	Remedy     string `json:"remedy,omitempty"`
}

// statusFile writes the status whenever a part of it is new.
type statusFile struct {
	host *host.Host
	fail func(error)
	// sources tells of the sources of events; nil where there are none.
	sources func() []watch.Status

	mu     sync.Mutex
	status Status
}

func newStatusFile(h *host.Host, s Status, fail func(error)) *statusFile {
	return &statusFile{host: h, status: s, fail: fail}
}

func (f *statusFile) change(with func(*Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	with(&f.status)
	f.status.Confirm = confirm.ReadStatus(f.host)
	if f.sources != nil {
		f.status.Events = f.sources()
	}
	data, err := json.MarshalIndent(&f.status, "", " ")
	if err == nil {
		err = f.host.WriteFile(StatusPath, append(data, '\n'), host.Attributes{Mode: 0o600})
	}
	if err != nil {
		f.fail(err)
	}
}

func (f *statusFile) connected(server string) {
	f.change(func(s *Status) { s.Server, s.Since = server, time.Now() })
}

func (f *statusFile) ran(r converge.Report) {
	if len(r.Changes) == 0 && r.Run.Checked < len(r.Run.Outcomes) && r.Run.Err() == nil {
		return // an event that meant nothing
	}
	run := &RunStatus{Started: r.Run.Started, Ended: r.Run.Ended}
	for _, o := range r.Run.Outcomes {
		rs := ResourceStatus{Resource: o.Resource, Changed: o.Changed, Drift: o.Drift}
		if o.Err != nil {
			rs.Error = o.Err.Error()
		}
		run.Resources = append(run.Resources, rs)
	}
	f.change(func(s *Status) {
		s.Run = run
		for _, c := range r.Changes {
			if c.Drift || c.Audit {
				s.Drift = append(s.Drift, DriftStatus{c.At.AsTime(), c.Resource, c.Diff, c.Error, c.Audit})
			}
		}
		s.Drift = slices.Clone(s.Drift[max(0, len(s.Drift)-maxDrift):])
		if d, ok := r.Epoch.(*desired.State); ok {
			s.Name, s.PoolGeneration = d.Machine.Name, d.PoolGeneration
		}
	})
}

func (f *statusFile) proven(set []*agentv1.Proof) {
	list := make([]ProofStatus, len(set))
	for i, p := range set {
		state := strings.ToLower(strings.TrimPrefix(p.State.String(), "PROOF_STATE_"))
		list[i] = ProofStatus{p.Assumption, p.Machine, state, p.Expected, p.Found, p.Remedy}
	}
	f.change(func(s *Status) {
		if !slices.Equal(s.Proofs, list) {
			s.Proofs = list
		}
	})
}

// ReadStatus reads the status of the agent on a machine.
func ReadStatus(h host.Host) (*Status, error) {
	data, err := h.ReadFile(StatusPath)
	if err != nil {
		return nil, errs.New(errs.NotFound, "cannot read the agent's status: %w", err).WithHint("see systemctl status provisionr-agent")
	}
	var s Status
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, errs.New(errs.Internal, "cannot read the agent's status: %w", err)
	}
	return &s, nil
}

// Print writes the status for people.
func (s *Status) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	p := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	server := "none"
	if s.Server != "" {
		server = fmt.Sprintf("%s since %s", s.Server, s.Since.Format(time.DateTime))
	}
	p("machine\t%s %s\nagent\t%s\nsession\t%s", s.Machine, s.Name, s.Version, server)
	if s.Run == nil {
		p("run\tnone yet")
	} else {
		p("run\tended %s, took %s, generation %d, %s", s.Run.Ended.Format(time.DateTime),
			s.Run.Ended.Sub(s.Run.Started).Round(time.Millisecond), s.PoolGeneration, s.Run.summary())
		for _, r := range s.Run.Resources {
			switch {
			case r.Error != "":
				p("  %s\tfailed: %s", r.Resource, oneLine(r.Error))
			case r.Changed:
				p("  %s\tchanged", r.Resource)
			}
		}
	}
	s.printSafety(p)
	if len(s.Proofs) > 0 {
		p("\nASSUMPTION\tMACHINE\tOUTCOME\tFOUND")
	}
	for _, one := range s.Proofs {
		found := one.Found
		if one.State != "proven" {
			found += "; expected " + one.Expected
		}
		p("%s\t%s\t%s\t%s", one.Assumption, one.Machine, one.State, oneLine(found))
	}
	return w.Flush()
}

// printSafety writes what drifted, what is confirmed, and where events come from.
func (s *Status) printSafety(p func(format string, args ...any)) {
	if s.Confirm.Pending != "" {
		p("change\t%s waits to be confirmed", s.Confirm.Pending)
	}
	for name, no := range s.Confirm.Rejected {
		p("rolled back\t%s until %s: %s", name, no.Until.Format(time.DateTime), oneLine(no.Why))
	}
	for _, e := range s.Events {
		if state := fmt.Sprintf("%d watched, %d events", e.Watched, e.Events); e.Error != "" {
			p("events of %ss\t%s; %s", e.Source, state, oneLine(e.Error))
		} else if e.Watched > 0 {
			p("events of %ss\t%s", e.Source, state)
		}
	}
	if len(s.Drift) > 0 {
		p("\nDRIFT\tWHEN\tOUTCOME\tDIFFERENCE")
	}
	for _, d := range s.Drift {
		outcome := "repaired"
		switch {
		case d.Audit:
			outcome = "only looked at"
		case d.Error != "":
			outcome = "not repaired: " + oneLine(d.Error)
		}
		p("%s\t%s\t%s\t%s", d.Resource, d.At.Local().Format(time.DateTime), outcome, oneLine(d.Diff))
	}
}

func (r *RunStatus) summary() string {
	changed, failed := 0, 0
	for _, one := range r.Resources {
		switch {
		case one.Error != "":
			failed++
		case one.Changed:
			changed++
		}
	}
	return fmt.Sprintf("%d resources: %d changed, %d failed", len(r.Resources), changed, failed)
}

func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' {
			return ' '
		}
		return c
	}, s)
}
