package cli

import (
	"encoding/xml"
	"fmt"
	"io"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// The elements of JUnit's XML that CI systems read.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Failure *junitMessage `xml:"failure,omitempty"`
		Skipped *junitMessage `xml:"skipped,omitempty"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit writes a suite for each pool and a case for each machine and assumption.
func writeJUnit(w io.Writer, matrices []matrix) error {
	var out junitSuites
	for _, m := range matrices {
		suite := junitSuite{Name: m.pool}
		for _, machine := range m.machines {
			for _, a := range m.assumptions {
				c := m.junit(machine, a)
				suite.Tests++
				if c.Failure != nil {
					suite.Failures++
				}
				if c.Skipped != nil {
					suite.Skipped++
				}
				suite.Cases = append(suite.Cases, c)
			}
		}
		out.Suites = append(out.Suites, suite)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(out); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (m matrix) junit(machine *provisionrv1.Machine, assumption string) junitCase {
	id := machine.GetMetadata().GetName()
	c := junitCase{Class: m.pool + "." + machineName(machine), Name: assumption}
	state := m.outcome(id, assumption)
	if state == provisionrv1.ProofState_PROOF_STATE_UNSPECIFIED {
		c.Failure = &junitMessage{Message: "no proof"}
		return c
	}
	for _, p := range m.proofs[id][assumption] {
		if p.State != state {
			continue
		}
		switch state {
		case provisionrv1.ProofState_PROOF_STATE_FAILED:
			c.Failure = &junitMessage{
				Message: fmt.Sprintf("expected %s, found %s", p.Expected, p.Found),
				Text:    fmt.Sprintf("by: %s\nremedy: %s", m.named(p.Observer), p.Remedy),
			}
		case provisionrv1.ProofState_PROOF_STATE_UNPROVABLE:
			c.Skipped = &junitMessage{Message: p.Found}
		}
		return c
	}
	return c
}
