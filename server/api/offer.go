package api

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/spec"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// Bounds of the questions that a plan asks of providers.
const (
	// askTimeout bounds the questions about one pool.
	askTimeout = 15 * time.Second
	// maxAsked bounds how many pools are asked about at a time.
	maxAsked = 8
)

// Providers finds providers wherever they run.
type Providers interface {
	Provider(name string) (provider.Provider, error)
	// Trial returns the provider that an object which is not applied yet would make. It fails, with an error of kind
	// Unsupported, where making it would act on a host.
	Trial(object *provisionrv1.Provider) (provider.Provider, error)
}

// inquiry is one pool that a provider is asked about.
type inquiry struct {
	base     *base
	snapshot *state.Snapshot
	// objects are those of the manifest.
	objects []*provisionrv1.Object
	pool    *provisionrv1.Pool
	change  *provisionrv1.Change
	// grows says that machines are to be launched.
	grows bool
	// kinds of the errors, as those of change.
	kinds []errs.Kind
}

// ask has providers say what the changes of pools come to, and returns why they cannot be, if so. Providers that do not
// answer become warnings.
func (b *base) ask(ctx context.Context, snapshot *state.Snapshot, objects []*provisionrv1.Object, changes []*provisionrv1.Change) error {
	var asked []*inquiry
	for i, o := range objects {
		if p := o.GetPool(); p != nil && changes[i].Action != actionNone {
			asked = append(asked, &inquiry{
				base: b, snapshot: snapshot, objects: objects, pool: p, change: changes[i],
				grows: slices.ContainsFunc(changes[i].Machines, launches),
			})
		}
	}
	var running sync.WaitGroup
	places := make(chan struct{}, maxAsked)
	for _, q := range asked {
		places <- struct{}{}
		running.Go(func() {
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			q.run(ctx)
		})
	}
	running.Wait()
	return refusal(asked)
}

// launches reports whether a line of a plan says that a machine is made. What a long plan leaves out counts as one.
func launches(line string) bool {
	return strings.HasPrefix(line, "create ") || strings.HasPrefix(line, "replace ") || strings.HasPrefix(line, "and ")
}

// refusal is what apply answers where a provider cannot do what a plan says.
func refusal(asked []*inquiry) error {
	var texts []string
	kind := errs.Exhausted
	for _, q := range asked {
		for i, text := range q.change.Errors {
			texts = append(texts, fmt.Sprintf("pool %s: %s", q.change.Name, text))
			if q.kinds[i] != errs.Exhausted {
				kind = errs.Invalid
			}
		}
	}
	if len(texts) == 0 {
		return nil
	}
	if len(texts) > maxViolations {
		texts = append(texts[:maxViolations], "and more")
	}
	return errs.New(kind, "cannot apply: %s", strings.Join(texts, "; ")).
		WithHint("`provisionr plan` shows what the provider would give; nothing was changed")
}

func (q *inquiry) fail(kind errs.Kind, format string, args ...any) {
	q.change.Errors = append(q.change.Errors, fmt.Sprintf(format, args...))
	q.kinds = append(q.kinds, kind)
}

func (q *inquiry) warn(format string, args ...any) {
	q.change.Warnings = append(q.change.Warnings, fmt.Sprintf(format, args...))
}

func (q *inquiry) say(format string, args ...any) {
	q.change.Provider = append(q.change.Provider, fmt.Sprintf(format, args...))
}

func (q *inquiry) run(ctx context.Context) {
	name := state.ProviderName(q.pool)
	q.kernel(name)
	p, err := q.provider(name)
	if err != nil {
		q.decide(name, "images, types and quota", err)
		return
	}
	network := q.network()
	if network == nil {
		q.fail(errs.Invalid, "provider %s has no network: apply one with spec.provider: %s", name, name)
		return
	}
	q.userData(network, p.Capabilities())
	if spec.Cloud(q.kind(name)) {
		// Clouds only look, and complete what the manifest leaves to them.
		network, err = completed(ctx, p, network)
		if err != nil {
			q.decide(name, "network "+network.GetMetadata().GetName(), err)
			return
		}
	}
	q.resolve(ctx, p, network, q.snapshot.Cluster().GetId())
	q.firewall(ctx, p, name, network)
}

// provider returns the one that the manifest has, if it changes it, else the one that runs.
func (q *inquiry) provider(name string) (provider.Provider, error) {
	for _, o := range q.objects {
		if p := o.GetProvider(); p.GetMetadata().GetName() == name && !proto.Equal(p.GetSpec(), q.snapshot.Provider(name).GetSpec()) {
			return q.base.Providers.Trial(p)
		}
	}
	return q.base.Providers.Provider(name)
}

// kind is that of the provider, as the manifest or the state has it.
func (q *inquiry) kind(name string) string {
	for _, o := range q.objects {
		if p := o.GetProvider(); p.GetMetadata().GetName() == name {
			return spec.ProviderKind(p)
		}
	}
	return spec.ProviderKind(q.snapshot.Provider(name))
}

// network returns that of the pool's machines: the manifest's own objects come before those of the state.
func (q *inquiry) network() *provisionrv1.Network {
	named := q.pool.GetSpec().GetNetwork()
	var first *provisionrv1.Network
	for _, o := range q.objects {
		n := o.GetNetwork()
		switch {
		case n == nil:
		case named != "" && n.GetMetadata().GetName() == named:
			return n
		case named == "" && n.GetSpec().GetProvider() == state.ProviderName(q.pool):
			if first == nil || n.GetMetadata().GetName() == state.ProviderName(q.pool) || n.GetMetadata().GetName() < first.GetMetadata().GetName() {
				first = n
			}
		}
	}
	if n := q.snapshot.NetworkOf(q.pool); n != nil && (first == nil || n.GetMetadata().GetName() != first.GetMetadata().GetName()) {
		return n
	}
	return first
}

func completed(ctx context.Context, p provider.Provider, n *provisionrv1.Network) (*provisionrv1.Network, error) {
	s, err := p.EnsureNetwork(ctx, proto.CloneOf(n))
	if err != nil || s == nil {
		return n, err
	}
	n = proto.CloneOf(n)
	n.Spec = s
	return n, nil
}

func (q *inquiry) resolve(ctx context.Context, p provider.Provider, network *provisionrv1.Network, cluster string) {
	s, name := q.pool.GetSpec(), state.ProviderName(q.pool)
	offer, err := p.Resolve(ctx, &provisionrv1.Wish{
		ClusterId: cluster, Pool: q.change.Name, Os: s.GetOs(), Hardware: s.GetHardware(), Image: s.GetImage(),
		Placement: s.GetPlacement(), Spot: s.GetSpot(), Network: network, Count: s.GetSize(),
	})
	if err != nil {
		q.decide(name, "image, type and quota", err)
		return
	}
	q.change.Warnings = append(q.change.Warnings, offer.GetWarnings()...)
	q.change.Provider = append(q.change.Provider, choiceLines(offer.GetChoices())...)
}

func (q *inquiry) firewall(ctx context.Context, p provider.Provider, name string, network *provisionrv1.Network) {
	groups, ok := p.(provider.FirewallGroups)
	if !ok || q.base.Firewall == nil {
		return
	}
	lines, err := groups.PlanFirewall(ctx, q.base.Firewall(q.snapshot, q.pool, network))
	if err != nil {
		q.decide(name, "firewall group", err)
		return
	}
	for _, line := range lines {
		if !strings.HasPrefix(line, "+ ") && !strings.HasPrefix(line, "- ") {
			line = "+ " + line
		}
		q.say("firewall: %s", line)
	}
}

// decide turns an error of a provider into one of the plan where it is sure, else into a warning.
func (q *inquiry) decide(name, what string, err error) {
	switch kind := provider.KindOf(err); {
	case errs.Is(err, errs.Unsupported):
		q.warn("provider %s is not applied yet: its %s are known afterwards", name, what)
	case errs.Is(err, errs.Invalid), kind == provider.Invalid, kind == provider.NotFound, kind == provider.Unauthorized:
		q.fail(errs.Invalid, "provider %s: %s", name, err)
	case kind == provider.QuotaExceeded && q.grows:
		q.fail(errs.Exhausted, "provider %s: %s", name, err)
	case kind == provider.QuotaExceeded, kind == provider.NoCapacity:
		q.warn("provider %s: %s", name, err)
	case errors.Is(err, context.DeadlineExceeded):
		q.warn("provider %s did not answer within %s: its %s are unknown", name, askTimeout, what)
	default:
		q.warn("provider %s did not answer, so its %s are unknown: %s", name, what, err)
	}
}

// choiceLines tell the choices for people: each property once, in order of preference.
func choiceLines(choices []*provisionrv1.Choice) []string {
	var lines []string
	line := func(what, between string, text func(*provisionrv1.Choice) string) {
		var all []string
		for _, c := range choices {
			if t := text(c); t != "" && !slices.Contains(all, t) {
				all = append(all, t)
			}
		}
		if len(all) > 0 {
			lines = append(lines, what+": "+strings.Join(all, between))
		}
	}
	line("image", ", then ", func(c *provisionrv1.Choice) string { return named(c.GetImageName(), c.GetImage()) })
	line("type", ", then ", func(c *provisionrv1.Choice) string {
		t := named(c.GetTypeName(), c.GetType())
		if t == "" || c.GetCpus() == 0 && c.GetMemoryMib() == 0 {
			return t
		}
		return fmt.Sprintf("%s: %d cpus, %d MiB", t, c.GetCpus(), c.GetMemoryMib())
	})
	line("price", ", then ", func(c *provisionrv1.Choice) string {
		if c.GetMaxPrice() != "" {
			return c.GetPriceClass() + " up to " + c.GetMaxPrice() + " an hour"
		}
		return c.GetPriceClass()
	})
	line("network", ", ", func(c *provisionrv1.Choice) string { return c.GetNetwork() })
	line("zone", ", ", func(c *provisionrv1.Choice) string {
		if c.GetZone() != "" && c.GetSubnet() != "" {
			return c.GetZone() + ", subnet " + c.GetSubnet()
		}
		if c.GetSubnet() != "" {
			return "subnet " + c.GetSubnet()
		}
		return c.GetZone()
	})
	return lines
}

// named writes a name with the id behind it, where they differ.
func named(name, id string) string {
	switch {
	case name == "" || name == id:
		return id
	case id == "":
		return name
	}
	return name + " (" + id + ")"
}

// inside reports whether an address is a machine's in a network: within the range, and neither its gateway nor an end.
func inside(n *provisionrv1.NetworkSpec, a netip.Addr) bool {
	cidr, err := netip.ParsePrefix(n.GetCidr())
	if err != nil || !cidr.Contains(a) || a == cidr.Masked().Addr() || a.String() == n.GetGateway() {
		return false
	}
	return !a.Is4() || cidr.Contains(a.Next()) || cidr.Bits() > 30
}

// kindOf is the kind of a machine's provider, as static.
func kindOf(snapshot *state.Snapshot, m *provisionrv1.Machine) string {
	return spec.ProviderKind(snapshot.Provider(m.GetSpec().GetProvider()))
}
