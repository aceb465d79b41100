package cli

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"testing"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// proven is a matrix of n machines with all assumptions proven, but for those of the second machine that fail.
func proven(n int, assumptions []string, fails ...string) matrix {
	r := &provisionrv1.ListProofsResponse{Machines: machines(n, provisionrv1.Phase_PHASE_READY)}
	for i, m := range r.Machines {
		id := m.Metadata.Name
		for _, a := range assumptions {
			p := &provisionrv1.Proof{Machine: id, Observer: id, Assumption: a, State: provisionrv1.ProofState_PROOF_STATE_PROVEN, Expected: "x", Found: "x"}
			for _, f := range fails {
				if i == 1 && f == a {
					p.State, p.Found, p.Remedy = provisionrv1.ProofState_PROOF_STATE_FAILED, "y\x1b[31m", "do z"
				}
			}
			r.Proofs = append(r.Proofs, p)
		}
	}
	return newMatrix("web", r)
}

// The matrix is no wider than the terminal, whatever its size, and loses no cell.
func TestMatrixWraps(t *testing.T) {
	var many []string
	for i := range 31 {
		many = append(many, fmt.Sprintf("assumption.%02d", i))
	}
	for _, c := range []struct{ machines, assumptions, width, tables int }{
		{2, 31, 80, 1}, {10, 31, 80, 2}, {10, 31, 30, 5}, {11, 31, 120, 5}, {200, 5, 120, 1}, {3, 3, 1, 3}, {0, 0, 80, 1},
	} {
		m := proven(c.machines, many[:c.assumptions])
		tables, cells := m.tables(c.width), 0
		if len(tables) != c.tables {
			t.Errorf("%+v: %d tables", c, len(tables))
		}
		for _, table := range tables {
			for _, line := range table.lines(false) {
				cells += strings.Count(line, "ok")
				if len(line) > c.width && c.width >= 30 {
					t.Errorf("%+v: line of %d: %q", c, len(line), line)
				}
			}
		}
		if cells != c.machines*c.assumptions {
			t.Errorf("%+v: %d cells", c, cells)
		}
	}
}

// Below the matrix is what an operator needs of each failure.
func TestMatrixTellsWhatToDo(t *testing.T) {
	var out bytes.Buffer
	m := proven(3, []string{"os", "hadoop.ptr"}, "hadoop.ptr")
	if err := m.write(&out); err != nil {
		t.Fatal(err)
	}
	want := "FAIL web-2 hadoop.ptr\n     expected: x\n     found:    y[31m\n     by:       web-2\n     remedy:   do z\npool web: 5 proven, 1 failed, 0 not provable, 0 missing\n"
	if !strings.HasSuffix(out.String(), want) || m.good() {
		t.Errorf("got %q, want it to end with %q", out.String(), want)
	}
}

// What CI systems read is well-formed whatever machines say.
func TestJUnitIsXML(t *testing.T) {
	var out bytes.Buffer
	if err := writeJUnit(&out, []matrix{proven(2, []string{"os", "vpn.peer"}, "vpn.peer")}); err != nil {
		t.Fatal(err)
	}
	var read junitSuites
	if err := xml.Unmarshal(out.Bytes(), &read); err != nil {
		t.Fatal(err)
	}
	if s := read.Suites[0]; s.Tests != 4 || s.Failures != 1 || s.Cases[3].Failure == nil || !strings.Contains(s.Cases[3].Failure.Text, "remedy: do z") {
		t.Errorf("%+v", s)
	}
}
