package prove

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// outcomes answers the results of the resources' checks. It waits for them until the set's time is over.
type outcomes func() (*converge.Run, error)

// checked starts one check for all proofs that need it. Join waits for its end.
func (p *Prover) checked(ctx context.Context) (run outcomes, join func()) {
	var r *converge.Run
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, err = p.check(ctx)
	}()
	return func() (*converge.Run, error) {
		select {
		case <-done:
			return r, err
		case <-ctx.Done():
			return nil, errors.New("the resources are still being checked")
		}
	}, func() { <-done }
}

func (p *Prover) check(ctx context.Context) (*converge.Run, error) {
	if p.results == nil {
		return nil, errors.New("the resources have not been checked")
	}
	run, err := p.results(ctx)
	if err == nil && run == nil {
		err = errors.New("the resources have not been checked yet")
	}
	return run, err
}

// resources proves that all resources of the kinds are as desired.
func resources(run outcomes, what string, kinds ...string) verdict {
	expected := what + " as desired"
	r, err := run()
	if err != nil {
		return unprovable(expected, "not known: "+firstLine(err.Error()), "wait for the agent's next run")
	}
	for _, o := range r.Outcomes {
		kind, _, _ := strings.Cut(o.Resource, "/")
		if !slices.Contains(kinds, kind) {
			continue
		}
		switch {
		case o.Err != nil && !errors.Is(o.Err, converge.ErrAudit):
			return failed(expected, o.Resource+": "+firstLine(o.Err.Error()), "see the machine's events")
		case o.Diff != "" && !o.Changed:
			return failed(expected, o.Resource+": "+firstLine(o.Diff), repairs)
		}
	}
	return proven(expected, "as desired")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// os proves the operating system by os-release(5).
func (p *Prover) os(want *agentv1.OperatingSystem) verdict {
	expected := strings.TrimSpace(want.GetDistribution() + " " + want.GetRelease())
	content, err := p.host.ReadFile("/etc/os-release")
	if err != nil {
		content, err = p.host.ReadFile("/usr/lib/os-release")
	}
	if err != nil {
		return unprovable(expected, "no os-release file", "use an image that says what it is")
	}
	release := parseRelease(content)
	found := release["ID"] + " " + release["VERSION_ID"]
	if codename := release["VERSION_CODENAME"]; codename != "" {
		found += " (" + codename + ")"
	}
	// Kernels differ between pools and are not stated: the proof only tells.
	if kernel, err := p.host.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		found += ", Linux " + string(bytes.TrimSpace(kernel))
	}
	right := want.GetDistribution() == "" || want.GetDistribution() == release["ID"]
	if r := want.GetRelease(); r != "" && r != release["VERSION_ID"] && r != release["VERSION_CODENAME"] {
		right = false
	}
	if !right {
		return failed(expected, found, "replace the machine: its image has another operating system")
	}
	return proven(expected, found)
}

func parseRelease(content []byte) map[string]string {
	values := make(map[string]string)
	for line := range strings.Lines(string(content)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[key] = strings.Trim(value, `"'`)
		}
	}
	return values
}

// hostname proves the machine's own name, in the kernel and in its files.
func (p *Prover) hostname(name string, run outcomes) verdict {
	now, err := p.host.ReadFile("/proc/sys/kernel/hostname")
	if err != nil {
		return unprovable(name, fmt.Sprintf("cannot read the kernel's host name: %v", err), "see whether /proc is mounted")
	}
	if got := string(bytes.TrimSpace(now)); got != name {
		return failed(name, got, "see who sets the host name: "+repairs)
	}
	if v := resources(run, name, "hosts"); v.state == agentv1.ProofState_PROOF_STATE_FAILED {
		return failed(name, v.found, v.remedy)
	}
	return proven(name, name)
}
