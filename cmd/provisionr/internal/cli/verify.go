package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/spec"
)

type verifyFlags struct {
	output  output
	cached  bool
	timeout time.Duration
}

func newVerify(o *options) *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify [POOL...]",
		Short: "Have every machine prove its assumptions",
		Long: `Have every machine of the pools, of all pools by default, prove its assumptions anew, and show the results as a table
of assumptions by machines.

The exit code is 1 if a proof failed or is missing. "ok" is proven; "n/a" cannot be proven on this machine, for the
reason that is shown; "FAIL" is followed by what was expected, what was found, by whom, and what to do.`,
		ValidArgsFunction: o.completeNames(resourceOf("pools")),
	}
	cmd.RunE = o.run(func(ctx context.Context, c *client, args []string) error {
		return runVerify(ctx, c, o.streams, f, args)
	})
	f.output.register(cmd, "table", "json", "junit")
	cmd.Flags().BoolVar(&f.cached, "cached", false, "show the newest known results instead of proving anew")
	cmd.Flags().DurationVar(&f.timeout, "timeout", time.Minute, "how long machines may take")
	return cmd
}

// matrix is what is proven about the machines of a pool.
type matrix struct {
	pool        string
	machines    []*provisionrv1.Machine
	assumptions []string
	// proofs by machine id, then assumption: the machine's own and its peers'.
	proofs map[string]map[string][]*provisionrv1.Proof
}

func runVerify(ctx context.Context, c *client, s Streams, f verifyFlags, pools []string) error {
	if len(pools) == 0 {
		list, err := c.pools.ListPools(ctx, &provisionrv1.ListPoolsRequest{})
		if err != nil {
			return err
		}
		for _, p := range list.Pools {
			pools = append(pools, p.GetMetadata().GetName())
		}
	}
	if len(pools) == 0 {
		return errs.New(errs.NotFound, "cannot verify: there is no pool").WithHint("make one with `provisionr apply -f examples/web.yaml`")
	}
	var matrices []matrix
	for _, pool := range pools {
		response, err := proofsOf(ctx, c, f, pool)
		if err != nil {
			return err
		}
		matrices = append(matrices, newMatrix(pool, response))
	}
	if err := writeMatrices(s.Out, f.output.format, matrices); err != nil {
		return err
	}
	for _, m := range matrices {
		if !m.good() {
			return exitError
		}
	}
	return nil
}

func proofsOf(ctx context.Context, c *client, f verifyFlags, pool string) (*provisionrv1.ListProofsResponse, error) {
	if f.cached {
		return c.pools.ListProofs(ctx, &provisionrv1.ListProofsRequest{Pool: pool})
	}
	return c.pools.VerifyPool(ctx, &provisionrv1.VerifyPoolRequest{Pool: pool, Timeout: durationpb.New(f.timeout)})
}

func newMatrix(pool string, r *provisionrv1.ListProofsResponse) matrix {
	m := matrix{pool: pool, machines: ordered(r.Machines), proofs: map[string]map[string][]*provisionrv1.Proof{}}
	for _, p := range r.Proofs {
		if m.proofs[p.Machine] == nil {
			m.proofs[p.Machine] = map[string][]*provisionrv1.Proof{}
		}
		m.proofs[p.Machine][p.Assumption] = append(m.proofs[p.Machine][p.Assumption], p)
		if !slices.Contains(m.assumptions, p.Assumption) {
			m.assumptions = append(m.assumptions, p.Assumption)
		}
	}
	// In the order in which spec lists them; unknown ones, of a newer agent, come last.
	place := func(a string) int {
		if i := slices.Index(spec.Assumptions(), a); i >= 0 {
			return i
		}
		return len(spec.Assumptions())
	}
	slices.SortFunc(m.assumptions, func(a, b string) int { return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a, b)) })
	return m
}

// outcome is the worst that any observer says; none is unspecified.
func (m matrix) outcome(machine, assumption string) provisionrv1.ProofState {
	rank := func(p *provisionrv1.Proof) int {
		return slices.Index([]provisionrv1.ProofState{
			provisionrv1.ProofState_PROOF_STATE_PROVEN, provisionrv1.ProofState_PROOF_STATE_UNPROVABLE, provisionrv1.ProofState_PROOF_STATE_FAILED,
		}, p.State)
	}
	proofs := m.proofs[machine][assumption]
	if len(proofs) == 0 {
		return provisionrv1.ProofState_PROOF_STATE_UNSPECIFIED
	}
	return slices.MaxFunc(proofs, func(a, b *provisionrv1.Proof) int { return cmp.Compare(rank(a), rank(b)) }).State
}

// good reports whether every machine has every proof and none failed.
func (m matrix) good() bool {
	for _, machine := range m.machines {
		id := machine.GetMetadata().GetName()
		if len(m.proofs[id]) == 0 {
			return false
		}
		for _, a := range m.assumptions {
			if s := m.outcome(id, a); s == provisionrv1.ProofState_PROOF_STATE_FAILED || s == provisionrv1.ProofState_PROOF_STATE_UNSPECIFIED {
				return false
			}
		}
	}
	return true
}

// named returns the slot of a machine id, or the id.
func (m matrix) named(id string) string {
	for _, machine := range m.machines {
		if machine.GetMetadata().GetName() == id {
			return machineName(machine)
		}
	}
	return id
}

func writeMatrices(w io.Writer, format string, matrices []matrix) error {
	switch format {
	case "json":
		return writeProofsJSON(w, matrices)
	case "junit":
		return writeJUnit(w, matrices)
	}
	for i, m := range matrices {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := m.write(w); err != nil {
			return err
		}
	}
	return nil
}

func proofCell(s provisionrv1.ProofState) cell {
	switch s {
	case provisionrv1.ProofState_PROOF_STATE_PROVEN:
		return cell{"ok", green}
	case provisionrv1.ProofState_PROOF_STATE_FAILED:
		return cell{"FAIL", red}
	case provisionrv1.ProofState_PROOF_STATE_UNPROVABLE:
		return cell{"n/a", yellow}
	}
	return cell{"-", red}
}

const (
	// widestMatrix is the number of machines up to which they are columns, since assumptions have the longer names.
	widestMatrix = 10
	// matrixWidth is how wide the matrix may be where the output is no terminal.
	matrixWidth = 120
)

func (m matrix) write(w io.Writer) error {
	width := matrixWidth
	if columns, _, ok := size(w); ok {
		width = columns
	}
	for i, t := range m.tables(width) {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := t.write(w, colours(w)); err != nil {
			return err
		}
	}
	m.writeDetails(w)
	return nil
}

// tables lays the matrix out as one table, or as several below each other where one would be wider than the terminal. Each has
// all rows, and at least one column.
func (m matrix) tables(width int) []*table {
	var machines, ids []string
	for _, machine := range m.machines {
		machines, ids = append(machines, machineName(machine)), append(ids, machine.GetMetadata().GetName())
	}
	rows, columns := m.assumptions, machines
	at := func(row, column int) cell { return proofCell(m.outcome(ids[column], m.assumptions[row])) }
	if len(machines) > widestMatrix {
		rows, columns = machines, m.assumptions
		at = func(row, column int) cell { return proofCell(m.outcome(ids[row], m.assumptions[column])) }
	}
	title := strings.ToUpper(m.pool)
	first := utf8.RuneCountInString(title)
	for _, r := range rows {
		first = max(first, utf8.RuneCountInString(r))
	}
	var out []*table
	for from := 0; from < len(columns) || len(out) == 0; {
		to, used := from, first
		for to < len(columns) && (to == from || used+columnWidth(columns[to]) <= width) {
			used += columnWidth(columns[to])
			to++
		}
		t := &table{header: append([]string{title}, columns[from:to]...)}
		for r, name := range rows {
			row := []any{name}
			for c := from; c < to; c++ {
				row = append(row, at(r, c))
			}
			t.add(row...)
		}
		out, from = append(out, t), to
	}
	return out
}

// columnWidth is that of a column of outcomes with the space before it: FAIL is the longest of them.
func columnWidth(header string) int { return 3 + max(utf8.RuneCountInString(header), len("FAIL")) }

// writeDetails says why proofs failed or are impossible, and sums up.
func (m matrix) writeDetails(w io.Writer) {
	counts := map[provisionrv1.ProofState]int{}
	reasons := map[string][]string{}
	var order []string
	for _, a := range m.assumptions {
		for _, machine := range m.machines {
			id := machine.GetMetadata().GetName()
			counts[m.outcome(id, a)]++
			for _, p := range m.proofs[id][a] {
				switch p.State {
				case provisionrv1.ProofState_PROOF_STATE_FAILED:
					m.writeFailure(w, p)
				case provisionrv1.ProofState_PROOF_STATE_UNPROVABLE:
					reason := a + ": " + clean(p.Found)
					if !slices.Contains(order, reason) {
						order = append(order, reason)
					}
					if name := m.named(id); !slices.Contains(reasons[reason], name) {
						reasons[reason] = append(reasons[reason], name)
					}
				}
			}
		}
	}
	for _, reason := range order {
		fmt.Fprintf(w, "n/a %s (%s)\n", reason, strings.Join(reasons[reason], ", "))
	}
	for _, machine := range m.machines {
		if len(m.proofs[machine.GetMetadata().GetName()]) == 0 {
			fmt.Fprintf(w, "%s has no proofs: it is %s\n", machineName(machine), enumText(machine.GetStatus().GetPhase()))
		}
	}
	fmt.Fprintf(w, "pool %s: %d proven, %d failed, %d not provable, %d missing\n", m.pool,
		counts[provisionrv1.ProofState_PROOF_STATE_PROVEN], counts[provisionrv1.ProofState_PROOF_STATE_FAILED],
		counts[provisionrv1.ProofState_PROOF_STATE_UNPROVABLE], counts[provisionrv1.ProofState_PROOF_STATE_UNSPECIFIED])
}

func (m matrix) writeFailure(w io.Writer, p *provisionrv1.Proof) {
	fmt.Fprintln(w, red.paint(fmt.Sprintf("FAIL %s %s", m.named(p.Machine), p.Assumption), colours(w)))
	for _, line := range [][2]string{{"expected", p.Expected}, {"found", p.Found}, {"by", m.named(p.Observer)}, {"remedy", p.Remedy}} {
		if line[1] != "" {
			fmt.Fprintf(w, "     %-9s %s\n", line[0]+":", clean(line[1]))
		}
	}
}

func writeProofsJSON(w io.Writer, matrices []matrix) error {
	response := &provisionrv1.ListProofsResponse{}
	for _, m := range matrices {
		response.Machines = append(response.Machines, m.machines...)
		for _, machine := range m.machines {
			for _, a := range m.assumptions {
				response.Proofs = append(response.Proofs, m.proofs[machine.GetMetadata().GetName()][a]...)
			}
		}
	}
	text, err := spec.MarshalJSON(response)
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}
