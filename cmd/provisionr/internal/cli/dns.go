package cli

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func newDNS(o *options) *cobra.Command {
	var (
		f    output
		zone string
	)
	records := &cobra.Command{
		Use:   "records",
		Short: "List every record that the servers answer",
		Args:  cobra.NoArgs,
		RunE: o.run(func(ctx context.Context, c *client, _ []string) error {
			r, err := c.infra.ListRecords(ctx, &provisionrv1.ListRecordsRequest{Zone: zone})
			if err != nil {
				return err
			}
			v := view{kind: "record", wide: 4, name: func(m proto.Message) string { return m.(*provisionrv1.Record).GetName() },
				header: []string{"NAME", "TTL", "TYPE", "DATA", "ZONE"},
				row: rowOf(func(r *provisionrv1.Record) []any {
					return []any{r.GetName(), dec(r.GetTtl()), r.GetType(), r.GetData(), r.GetZone()}
				})}
			v.items, _ = messages(r.Records, nil)
			return v.print(o.streams, f)
		}),
	}
	f.register(records)
	records.Flags().StringVar(&zone, "zone", "", "only this zone, by its domain")
	return group("dns", "Look at the cluster's DNS, and exchange DNSSEC keys",
		records, newZoneKeys(o), newDS(o), newRollKey(o), newActivateKey(o))
}
