package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/spec"
)

// fetch asks for the objects of a kind; pool and gone select machines, slots and events.
type fetch func(ctx context.Context, c *client, pool string, gone bool) ([]proto.Message, error)

// resource is a kind that `get` knows.
type resource struct {
	name    string
	aliases []string
	fetch   fetch
	view    func() view
}

type getFlags struct {
	output output
	pool   string
	gone   bool
}

func newGet(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "get KIND [NAME...]", Short: "List objects of a kind",
		Long: "List objects of a kind, all or by name. -o manifest prints what could be applied again.",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	for _, r := range resources() {
		var f getFlags
		sub := &cobra.Command{
			Use:     r.name + " [NAME...]",
			Aliases: r.aliases,
			Short:   "List " + r.name,
			RunE: o.run(func(ctx context.Context, c *client, args []string) error {
				return runGet(ctx, c, o.streams, r, f, args)
			}),
			ValidArgsFunction: o.completeNames(r),
		}
		formats := []string{"table", "wide", "json", "yaml", "name"}
		if slices.Contains([]string{"pools", "zones", "networks", "providers", "users", "vpns", "vpn-peers"}, r.name) {
			formats = append(formats, "manifest")
		}
		f.output.register(sub, formats...)
		if slices.Contains([]string{"machines", "slots", "events"}, r.name) {
			sub.Flags().StringVar(&f.pool, "pool", "", "only those of this pool")
		}
		if r.name == "machines" {
			sub.Flags().BoolVar(&f.gone, "gone", false, "also machines that are gone")
		}
		cmd.AddCommand(sub)
	}
	return cmd
}

func runGet(ctx context.Context, c *client, s Streams, r resource, f getFlags, names []string) error {
	items, err := r.fetch(ctx, c, f.pool, f.gone)
	if err != nil {
		return err
	}
	v := r.view()
	if len(names) > 0 {
		if items, err = pick(items, v, names); err != nil {
			return err
		}
	}
	v.items, v.single = items, len(names) == 1
	return v.print(s, f.output)
}

// pick selects items by name. A machine is also found by its id and FQDN.
func pick(items []proto.Message, v view, names []string) ([]proto.Message, error) {
	var out []proto.Message
	for _, name := range names {
		i := slices.IndexFunc(items, func(m proto.Message) bool {
			if machine, ok := m.(*provisionrv1.Machine); ok && (machine.GetMetadata().GetName() == name || machine.GetSpec().GetFqdn() == name) {
				return true
			}
			return v.name(m) == name
		})
		if i < 0 {
			return nil, errs.New(errs.NotFound, "cannot find %s %q", v.kind, name)
		}
		out = append(out, items[i])
	}
	return out, nil
}

// completeNames completes names from the server; without one there is nothing to complete.
func (o *options) completeNames(r resource) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		c, err := o.dial()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.conn.Close()
		items, err := r.fetch(cmd.Context(), c, "", false)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, m := range items {
			if name := r.view().name(m); strings.HasPrefix(name, prefix) {
				names = append(names, name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// messages makes a list of any messages out of one of some.
func messages[T proto.Message](list []T, err error) ([]proto.Message, error) {
	out := make([]proto.Message, 0, len(list))
	for _, m := range list {
		out = append(out, m)
	}
	return out, err
}

// namedBy reads the name out of the metadata.
func namedBy[T interface{ GetMetadata() *provisionrv1.Metadata }](m proto.Message) string {
	t, _ := m.(T)
	return t.GetMetadata().GetName()
}

// rowOf makes a row function for one type of message.
func rowOf[T proto.Message](row func(T) []any) func(proto.Message) []any {
	return func(m proto.Message) []any {
		t, _ := m.(T)
		return row(t)
	}
}

func resourceOf(name string) resource {
	for _, r := range resources() {
		if r.name == name || slices.Contains(r.aliases, name) {
			return r
		}
	}
	return resource{}
}

// slots are streamed, for the API has no list of them: all until the bookmark.
func slots(ctx context.Context, c *client, pool string) ([]*provisionrv1.Slot, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.watch.Watch(ctx, &provisionrv1.WatchRequest{Kinds: []string{"slots"}, Pool: pool})
	if err != nil {
		return nil, err
	}
	var out []*provisionrv1.Slot
	for {
		delta, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		switch d := delta.Delta.(type) {
		case *provisionrv1.WatchResponse_Put:
			if s := d.Put.GetSlot(); s != nil {
				out = append(out, s)
			}
		case *provisionrv1.WatchResponse_Relist:
			out = nil
		case *provisionrv1.WatchResponse_Bookmark:
			slices.SortFunc(out, func(a, b *provisionrv1.Slot) int {
				if c := strings.Compare(a.Pool, b.Pool); c != 0 {
					return c
				}
				return int(a.Index) - int(b.Index)
			})
			return out, nil
		}
	}
}

// manifestName is how a kind of the API is called in commands, as pool for Pool.
func manifestName(o *provisionrv1.Object) string {
	return strings.ToLower(spec.KindOf(o)) + "/" + spec.Name(o)
}
