package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
)

func newZoneKeys(o *options) *cobra.Command {
	var f output
	cmd := &cobra.Command{
		Use:   "keys [ORIGIN]",
		Short: "List the DNSSEC keys of zones, and what comes next for each",
		Args:  cobra.MaximumNArgs(1),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			keys, err := zoneKeys(ctx, c, strings.Join(args, ""))
			if err != nil {
				return err
			}
			v := view{kind: "key", wide: 5, name: func(m proto.Message) string { return keyName(m.(*provisionrv1.ZoneKeyInfo)) },
				header: []string{"ZONE", "TAG", "STATE", "AGE", "NEXT", "DS"},
				row: rowOf(func(k *provisionrv1.ZoneKeyInfo) []any {
					return []any{k.GetOrigin(), dec(k.GetTag()), k.GetState(), age(k.GetSince()), k.GetNext(), k.GetDs()}
				})}
			v.items, _ = messages(keys, nil)
			return v.print(o.streams, f)
		}),
	}
	f.register(cmd)
	return cmd
}

func keyName(k *provisionrv1.ZoneKeyInfo) string {
	return k.GetOrigin() + "/" + strconv.FormatUint(uint64(k.GetTag()), 10)
}

func zoneKeys(ctx context.Context, c *client, origin string) ([]*provisionrv1.ZoneKeyInfo, error) {
	r, err := c.infra.ListZoneKeys(ctx, &provisionrv1.ListZoneKeysRequest{Origin: origin})
	return r.GetKeys(), err
}

func newDS(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "ds ORIGIN",
		Short: "Print the DS records that the parent zone is to have",
		Long: `Print the DS records of a signed zone, which its parent zone is to have: those of the active key, and of the one that
is to follow it.`,
		Example: "  provisionr dns ds provisionr.internal",
		Args:    cobra.ExactArgs(1),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			keys, err := zoneKeys(ctx, c, args[0])
			if err != nil {
				return err
			}
			keys = slices.DeleteFunc(keys, func(k *provisionrv1.ZoneKeyInfo) bool { return k.GetState() == "retired" })
			if len(keys) == 0 {
				return errs.New(errs.NotFound, "zone %s is not signed", args[0]).WithHint("set spec.dnssec of its Zone; `provisionr dns keys` lists the zones that are")
			}
			for _, k := range keys {
				fmt.Fprintln(o.streams.Out, k.GetDs())
			}
			return nil
		}),
	}
}

func newRollKey(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "roll ORIGIN",
		Short: "Publish a new DNSSEC key beside the active one",
		Long: `Publish a new DNSSEC key of a zone beside the active one, which goes on signing, and print its DS record.

When the parent zone has the record, and resolvers had the time to learn the key, have it sign with
` + "`provisionr dns activate`" + `.`,
		Example: "  provisionr dns roll provisionr.internal",
		Args:    cobra.ExactArgs(1),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			if _, err := c.infra.RollZoneKey(ctx, &provisionrv1.RollZoneKeyRequest{Origin: args[0], RequestId: requestID()}); err != nil {
				return err
			}
			keys, err := zoneKeys(ctx, c, args[0])
			if err != nil {
				return err
			}
			for _, k := range keys {
				if k.GetState() == "published" {
					fmt.Fprintln(o.streams.Out, k.GetDs())
					fmt.Fprintf(o.streams.Err, "published key %d: %s\n", k.GetTag(), k.GetNext())
				}
			}
			return nil
		}),
	}
}

func newActivateKey(o *options) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "activate ORIGIN TAG",
		Short: "Have a published DNSSEC key sign",
		Long: `Have a published DNSSEC key sign in the place of the active one, which is retired, and removed two days later.

Without its DS record in the parent zone, the zone cannot be validated any more when that key is gone.`,
		Example: "  provisionr dns activate provisionr.internal 12345",
		Args:    cobra.ExactArgs(2),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			tag, err := strconv.ParseUint(args[1], 10, 16)
			if err != nil {
				return errs.New(errs.Invalid, "%q is not the tag of a key", args[1]).WithHint("see provisionr dns keys %s", args[0])
			}
			if !yes {
				if err := ask(ctx, o.streams, fmt.Sprintf("does the parent zone of %s have the DS record of key %d, for as long as that record's TTL?", args[0], tag)); err != nil {
					return err
				}
			}
			if _, err := c.infra.ActivateZoneKey(ctx, &provisionrv1.ActivateZoneKeyRequest{Origin: args[0], Tag: uint32(tag), RequestId: requestID()}); err != nil {
				return err
			}
			fmt.Fprintf(o.streams.Out, "key %d of %s is active\n", tag, args[0])
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
