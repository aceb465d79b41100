package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func newAudit(o *options) *cobra.Command {
	return group("audit", "Compare the records with what there is", newAuditCloud(o))
}

func newAuditCloud(o *options) *cobra.Command {
	var f output
	cmd := &cobra.Command{
		Use:   "cloud [PROVIDER...]",
		Short: "Line up what providers have with the records",
		Long: `Line up what providers have with the records: every instance that carries this cluster's tag, and every machine.

  matched    an instance that a record explains
  expected   about to come, or has just gone
  orphan     an instance that no record explains: it is deleted after a grace period
  missing    a machine that the provider does not have: it is replaced

The exit code is 1 if anything is an orphan or missing, or a provider gave no complete list.`,
		ValidArgsFunction: o.completeNames(resourceOf("providers")),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			return runAudit(ctx, c, o.streams, f, args)
		}),
	}
	f.register(cmd, "table", "json", "yaml")
	return cmd
}

func runAudit(ctx context.Context, c *client, s Streams, f output, names []string) error {
	if len(names) == 0 {
		r, err := c.infra.ListProviders(ctx, &provisionrv1.ListInfraRequest{})
		if err != nil {
			return err
		}
		for _, p := range r.GetProviders() {
			names = append(names, p.GetMetadata().GetName())
		}
	}
	v := auditView()
	counts := map[string]int{}
	var failed []error
	for _, name := range names {
		r, err := c.infra.AuditProvider(ctx, &provisionrv1.AuditProviderRequest{Name: name})
		if err != nil {
			failed = append(failed, err)
			continue
		}
		for _, e := range r.GetEntries() {
			counts[e.GetVerdict()]++
			v.items = append(v.items, e)
		}
	}
	if err := v.print(s, f); err != nil {
		return err
	}
	if len(failed) > 0 {
		return errors.Join(failed...)
	}
	if f.format == "table" && len(v.items) > 0 {
		fmt.Fprintf(s.Out, "%d matched, %d expected, %d missing, %s\n", counts["matched"], counts["expected"], counts["missing"], counted(counts["orphan"], "orphan"))
	}
	if counts["orphan"]+counts["missing"] > 0 {
		return exitError
	}
	return nil
}

func auditView() view {
	return view{kind: "instance", wide: 7,
		name:   func(m proto.Message) string { return m.(*provisionrv1.AuditEntry).GetMachine() },
		header: []string{"MACHINE", "SLOT", "PHASE", "INSTANCE", "STATE", "ADDRESS", "VERDICT"},
		row: rowOf(func(e *provisionrv1.AuditEntry) []any {
			verdict := cell{e.GetVerdict(), plain}
			switch e.GetVerdict() {
			case "matched":
				verdict.style = green
			case "orphan", "missing":
				verdict.style = red
			}
			phase := cell{"-", plain}
			if e.GetPhase() != provisionrv1.Phase_PHASE_UNSPECIFIED {
				phase = phaseCell(e.GetPhase())
			}
			return []any{orDash(e.GetMachine()), orDash(e.GetSlot()), phase, orDash(e.GetProviderId()), orDash(e.GetState()), orDash(e.GetAddress()), verdict}
		})}
}
