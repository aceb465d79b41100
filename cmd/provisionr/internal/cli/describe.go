package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func newDescribe(o *options) *cobra.Command {
	pool := &cobra.Command{
		Use:               "pool NAME",
		Short:             "Tell all about a pool",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeNames(resourceOf("pools")),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			return describePool(ctx, c, o.streams.Out, args[0])
		}),
	}
	machine := &cobra.Command{
		Use:               "machine NAME",
		Short:             "Tell all about a machine",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeNames(resourceOf("machines")),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			return describeMachine(ctx, c, o.streams.Out, args[0])
		}),
	}
	return group("describe", "Tell all about a pool or machine", pool, machine)
}

// details writes names and values in two columns.
type details struct{ w io.Writer }

func (d details) field(name, value string) {
	if value != "" {
		fmt.Fprintf(d.w, "%-18s %s\n", name+":", clean(value))
	}
}

func (d details) title(text string) {
	fmt.Fprintf(d.w, "\n%s\n", bold.paint(text, colours(d.w)))
}

// recent is how many events a description shows.
const recent = 12

func (d details) events(list []*provisionrv1.Event) error {
	if len(list) == 0 {
		return nil
	}
	d.title("Events")
	for _, e := range list {
		if err := writeEvent(d.w, "text", e); err != nil {
			return err
		}
	}
	return nil
}

func describePool(ctx context.Context, c *client, w io.Writer, name string) error {
	p, err := c.pools.GetPool(ctx, &provisionrv1.GetPoolRequest{Name: name})
	if err != nil {
		return err
	}
	machines, err := c.machines.ListMachines(ctx, &provisionrv1.ListMachinesRequest{Pool: name})
	if err != nil {
		return err
	}
	proofs, err := c.pools.ListProofs(ctx, &provisionrv1.ListProofsRequest{Pool: name})
	if err != nil {
		return err
	}
	events, err := c.events.ListEvents(ctx, &provisionrv1.ListEventsRequest{Pool: name, Limit: recent})
	if err != nil {
		return err
	}
	d, s := details{w}, p.GetSpec()
	d.field("pool", name)
	d.field("state", p.GetStatus().GetState())
	d.field("message", p.GetStatus().GetMessage())
	d.field("ready", fmt.Sprintf("%d of %d", p.GetStatus().GetReady(), s.GetSize()))
	d.field("generation", dec(p.GetMetadata().GetGeneration()))
	d.field("created", age(p.GetMetadata().GetCreated())+" ago")
	d.field("system", s.GetOs().GetDistribution()+" "+s.GetOs().GetRelease())
	d.field("provider", s.GetProvider())
	d.field("network", s.GetNetwork())
	d.field("zone", s.GetZone())
	d.field("aliases", strings.Join(s.GetAliases(), ", "))
	var contents []string
	for _, part := range []struct {
		n    int
		noun string
	}{
		{len(s.GetPackages()), "package"}, {len(s.GetFiles()), "file"}, {len(s.GetUsers()), "user"},
		{len(s.GetServices()), "service"}, {len(s.GetFirewall().GetRules()), "firewall rule"},
	} {
		contents = append(contents, counted(part.n, part.noun))
	}
	d.field("assumptions", strings.Join(contents, ", "))
	if len(machines.Machines) > 0 {
		d.title("Machines")
		v := machineView()
		t := table{header: v.header[:v.wide]}
		for _, m := range ordered(machines.Machines) {
			t.add(v.row(m)[:v.wide]...)
		}
		if err := t.write(w, colours(w)); err != nil {
			return err
		}
	}
	d.proofs(newMatrix(name, proofs))
	return d.events(events.Events)
}

// proofs tells the failed ones and sums up.
func (d details) proofs(m matrix) {
	if len(m.assumptions) > 0 {
		d.title("Proofs")
		m.writeDetails(d.w)
	}
}

func describeMachine(ctx context.Context, c *client, w io.Writer, name string) error {
	m, err := c.machines.GetMachine(ctx, &provisionrv1.GetMachineRequest{Name: name})
	if err != nil {
		return err
	}
	id := m.GetMetadata().GetName()
	events, err := c.events.ListEvents(ctx, &provisionrv1.ListEventsRequest{Machine: id, Limit: recent})
	if err != nil {
		return err
	}
	proofs, err := c.pools.ListProofs(ctx, &provisionrv1.ListProofsRequest{Pool: m.GetSpec().GetPool()})
	if err != nil {
		return err
	}
	d, s := details{w}, m.GetStatus()
	d.field("machine", machineName(m))
	d.field("id", id)
	d.field("fqdn", m.GetSpec().GetFqdn())
	d.field("pool", m.GetSpec().GetPool())
	d.field("phase", enumText(s.GetPhase())+" for "+age(s.GetSince()))
	d.field("reason", s.GetReason())
	d.field("quarantined", s.GetQuarantined())
	d.field("address", s.GetAddress())
	d.field("vpn address", s.GetVpnAddress())
	d.field("provider", m.GetSpec().GetProvider())
	d.field("provider id", s.GetProviderId())
	d.field("launch attempt", dec(s.GetAttempt()))
	d.field("boot stage", s.GetBootStage())
	if a := s.GetAgent(); a != nil {
		d.field("agent", a.GetVersion())
		d.field("converged", fmt.Sprintf("%v, generation %d", a.GetConverged(), a.GetPoolGeneration()))
		d.field("agent says", a.GetMessage())
	}
	if f := s.GetFacts(); f != nil {
		d.field("system", strings.TrimSpace(f.GetOsRelease()+" "+f.GetKernel()+" "+f.GetArchitecture()))
		d.field("must boot again", f.GetRebootRequired())
	}
	if r := s.GetReboot(); r != nil {
		d.field("boots again", fmt.Sprintf("asked %s ago: %s", age(r.GetSince()), r.GetReason()))
	}
	if e := s.GetEvidence().GetConsole(); e != "" {
		d.title("Console of the failed boot")
		fmt.Fprintln(w, strings.TrimRight(harmless(e), "\n"))
	}
	all := newMatrix(m.GetSpec().GetPool(), proofs)
	all.machines = []*provisionrv1.Machine{m}
	d.proofs(all)
	return d.events(events.Events)
}
