package cli

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"rsc.io/qr"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/spec"
)

// noKey is the line of a peer's configuration that the servers leave empty: they never see the key.
const noKey = "PrivateKey = \n"

type peerFlags struct {
	vpn, out, key string
	routes        []string
	qr            bool
}

func newVPN(o *options) *cobra.Command {
	listed := func(use, short, kind string) *cobra.Command {
		var list output
		cmd := &cobra.Command{
			Use: use, Short: short, Args: cobra.NoArgs,
			RunE: o.run(func(ctx context.Context, c *client, _ []string) error {
				return runGet(ctx, c, o.streams, resourceOf(kind), getFlags{output: list}, nil)
			}),
		}
		list.register(cmd)
		return cmd
	}
	var f peerFlags
	add := &cobra.Command{
		Use:   "add-peer NAME --vpn VPN",
		Short: "Let a device into a VPN",
		Long: `Let a device into a VPN: make its key here, apply the VpnPeer, and print its file for wg-quick(8) or for the WireGuard
app. The private key goes nowhere else, and is never shown again.`,
		Example: `  provisionr vpn add-peer laptop --vpn office --out laptop.conf && sudo wg-quick up ./laptop.conf
  provisionr vpn add-peer phone --vpn office --qr`,
		Args: cobra.ExactArgs(1),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			return addPeer(ctx, c, o.streams, f, args[0])
		}),
	}
	add.Flags().StringVar(&f.vpn, "vpn", "", "VPN to join")
	add.Flags().StringSliceVar(&f.routes, "route", nil, "range behind the device, as 192.168.7.0/24")
	add.Flags().StringVar(&f.out, "out", "", "file to write instead of standard output; it must not exist")
	add.Flags().BoolVar(&f.qr, "qr", false, "draw a QR code for the WireGuard app")
	config := &cobra.Command{
		Use:   "config NAME",
		Short: "Print the file of a device for wg-quick(8) as it should be now",
		Long: `Print the file of a device for wg-quick(8) as it should be now, its private key left out.

With --key the file is complete. A file as wg-quick has it gives its key too, so that it can be brought up to date.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeNames(resourceOf("vpn-peers")),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			key, err := savedKey(f.key)
			if err != nil {
				return err
			}
			r, err := c.vpns.GetVpnPeerConfig(ctx, &provisionrv1.GetVpnPeerConfigRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return writeConfig(o.streams.Out, f, strings.Replace(r.Config, noKey, strings.TrimSuffix(noKey, "\n")+key+"\n", 1))
		}),
	}
	config.Flags().StringVar(&f.key, "key", "", "file with the private key, or an older configuration with it")
	config.Flags().BoolVar(&f.qr, "qr", false, "draw a QR code for the WireGuard app")
	remove := &cobra.Command{
		Use:               "delete-peer NAME",
		Short:             "Shut a device out of its VPN",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeNames(resourceOf("vpn-peers")),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			if _, err := c.vpns.DeleteVpn(ctx, &provisionrv1.DeleteInfraRequest{Kind: "vpn-peers", Name: args[0], RequestId: requestID()}); err != nil {
				return err
			}
			fmt.Fprintf(o.streams.Out, "deleted vpn peer %s\n", args[0])
			return nil
		}),
	}
	return group("vpn", "Manage VPNs and the devices in them; VPNs are applied as manifests",
		listed("list", "List VPNs", "vpns"), listed("peers", "List the devices in VPNs", "vpn-peers"), add, config, remove)
}

func addPeer(ctx context.Context, c *client, s Streams, f peerFlags, name string) error {
	if f.vpn == "" {
		return errs.New(errs.Invalid, "cannot add a peer to no vpn").WithHint("give --vpn; `provisionr vpn list` has them")
	}
	peers, err := c.vpns.ListVpnPeers(ctx, &provisionrv1.ListVpnPeersRequest{})
	if err != nil {
		return err
	}
	for _, p := range peers.Peers {
		if p.GetMetadata().GetName() == name {
			return errs.New(errs.Exists, "vpn peer %s exists already, in vpn %s", name, p.GetSpec().GetVpn()).
				WithHint("to give it another key: provisionr vpn delete-peer %s, then add it again", name)
		}
	}
	// The file is made before anything else is: a key that cannot be kept is of no use.
	out := s.Out
	if f.out != "" {
		file, err := os.OpenFile(f.out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return errs.New(errs.Exists, "cannot write %s: it exists already", f.out).WithHint("it may hold a key: give another name, or move it away")
		}
		if err != nil {
			return errs.New(errs.Invalid, "cannot write the configuration: %w", err)
		}
		defer file.Close()
		out = file
	}
	config, err := makePeer(ctx, c, f, name)
	if err != nil {
		if f.out != "" {
			return errors.Join(err, os.Remove(f.out))
		}
		return err
	}
	if f.out == "" {
		return writeConfig(out, f, config)
	}
	if _, err := io.WriteString(out, config); err != nil {
		return errs.New(errs.Invalid, "cannot write the configuration: %w", err)
	}
	fmt.Fprintln(s.Out, f.out)
	if !f.qr {
		return nil
	}
	return drawQR(s.Out, config)
}

// makePeer applies a peer with a new key and returns its configuration with the key.
func makePeer(ctx context.Context, c *client, f peerFlags, name string) (string, error) {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return "", errs.New(errs.Internal, "cannot make key: %w", err)
	}
	peer := &provisionrv1.Object{Kind: &provisionrv1.Object_VpnPeer{VpnPeer: &provisionrv1.VpnPeer{
		ApiVersion: spec.APIVersion, Kind: "VpnPeer", Metadata: &provisionrv1.Metadata{Name: name},
		Spec: &provisionrv1.VpnPeerSpec{Vpn: f.vpn, PublicKey: base64.StdEncoding.EncodeToString(private.PublicKey().Bytes()), Routes: f.routes},
	}}}
	if _, err := c.manifests.Apply(ctx, &provisionrv1.ApplyRequest{Objects: []*provisionrv1.Object{peer}, RequestId: requestID()}); err != nil {
		return "", err
	}
	r, err := c.vpns.GetVpnPeerConfig(ctx, &provisionrv1.GetVpnPeerConfigRequest{Name: name})
	if err != nil {
		return "", err
	}
	return strings.Replace(r.Config, noKey, "PrivateKey = "+base64.StdEncoding.EncodeToString(private.Bytes())+"\n", 1), nil
}

// savedKey reads a private key from a file that holds nothing else, or from a configuration. No file gives no key.
func savedKey(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", errs.New(errs.Invalid, "cannot read the key: %w", err)
	}
	key := strings.TrimSpace(string(data))
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(name) == "PrivateKey" {
			key = strings.TrimSpace(value)
		}
	}
	if raw, err := base64.StdEncoding.DecodeString(key); err != nil || len(raw) != 32 {
		return "", errs.New(errs.Invalid, "%s holds no private key", path).WithHint("give what `wg genkey` prints, or a file of wg-quick(8)")
	}
	return key, nil
}

func writeConfig(w io.Writer, f peerFlags, config string) error {
	if f.qr {
		return drawQR(w, config)
	}
	_, err := io.WriteString(w, config)
	return err
}

// quiet is the light border that readers need, in modules (ISO/IEC 18004 asks for 4; two are enough for phones).
const quiet = 2

// drawQR draws a QR code, light on dark, two modules in one character.
func drawQR(w io.Writer, text string) error {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return errs.New(errs.Exhausted, "the configuration of %d bytes is too large for a QR code", len(text)).
			WithHint("a VPN with relays needs fewer peers on a device; or give the file to the device in another way")
	}
	light := func(x, y int) bool { return y < code.Size+quiet && !code.Black(x, y) }
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		for x := -quiet; x < code.Size+quiet; x++ {
			switch upper, lower := light(x, y), light(x, y+1); {
			case upper && lower:
				b.WriteRune('█')
			case upper:
				b.WriteRune('▀')
			case lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	_, err = io.WriteString(w, b.String())
	return err
}

func getVpns(ctx context.Context, c *client, _ string, _ bool) ([]proto.Message, error) {
	r, err := c.vpns.ListVpns(ctx, &provisionrv1.ListInfraRequest{})
	return messages(r.GetVpns(), err)
}

func vpnView() view {
	return view{kind: "vpn", name: namedBy[*provisionrv1.Vpn], wide: 4,
		header: []string{"NAME", "CIDR", "PORT", "ROUTES", "MESH", "MTU"},
		row: rowOf(func(v *provisionrv1.Vpn) []any {
			s := v.GetSpec()
			return []any{v.GetMetadata().GetName(), s.GetCidr(), dec(s.GetPort()), orDash(strings.Join(s.GetRoutes(), ",")), dec(s.GetMeshLimit()), dec(s.GetMtu())}
		})}
}

func getVpnPeers(ctx context.Context, c *client, _ string, _ bool) ([]proto.Message, error) {
	r, err := c.vpns.ListVpnPeers(ctx, &provisionrv1.ListVpnPeersRequest{})
	return messages(r.GetPeers(), err)
}

func vpnPeerView() view {
	return view{kind: "vpn-peer", name: namedBy[*provisionrv1.VpnPeer], wide: 5,
		header: []string{"NAME", "VPN", "ADDRESS", "ROUTES", "AGE", "PUBLIC KEY"},
		row: rowOf(func(p *provisionrv1.VpnPeer) []any {
			return []any{p.GetMetadata().GetName(), p.GetSpec().GetVpn(), orDash(p.GetAddress()), orDash(strings.Join(p.GetSpec().GetRoutes(), ",")),
				age(p.GetMetadata().GetCreated()), p.GetSpec().GetPublicKey()}
		})}
}
