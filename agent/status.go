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

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
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
	host host.Host
	path string
	fail func(error)

	mu     sync.Mutex
	status Status
}

func (f *statusFile) change(with func(*Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	with(&f.status)
	data, err := json.MarshalIndent(&f.status, "", " ")
	if err == nil {
		err = f.host.WriteFile(f.path, append(data, '\n'), host.Attributes{Mode: 0o600})
	}
	if err != nil {
		f.fail(err)
	}
}

func (f *statusFile) connected(server string) {
	f.change(func(s *Status) { s.Server, s.Since = server, time.Now() })
}

func (f *statusFile) ran(r converge.Report) {
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
