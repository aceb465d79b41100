package cli

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/durationpb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
)

// The names of a key and its certificate.
const (
	keyFile         = "id_ed25519"
	certificateFile = "id_ed25519-cert.pub"
)

// certify makes a key in the folder and has it certified. It returns what the certificate is good for, or nil where the cluster
// certifies no keys, or none of the caller's.
func certify(ctx context.Context, c *client, dir string, ttl time.Duration) ([]string, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot make key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot encode key: %w", err)
	}
	wire, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot encode key: %w", err)
	}
	signed, err := c.access.SignSshKey(ctx, signRequest(string(ssh.MarshalAuthorizedKey(wire)), ttl))
	switch kind := errs.KindOf(errs.FromRPC(err)); {
	case err == nil:
	case kind == errs.Denied || kind == errs.Unsupported || kind == errs.Unavailable:
		return nil, nil
	default:
		return nil, err
	}
	for name, data := range map[string][]byte{keyFile: pem.EncodeToMemory(block), certificateFile: []byte(signed.Certificate + "\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return nil, errs.New(errs.Internal, "cannot write key: %w", err)
		}
	}
	return signed.Principals, nil
}

func signRequest(publicKey string, ttl time.Duration) *provisionrv1.SignSshKeyRequest {
	r := &provisionrv1.SignSshKeyRequest{PublicKey: publicKey}
	if ttl > 0 {
		r.Ttl = durationpb.New(ttl)
	}
	return r
}

// authorityLines are lines of known_hosts(5) for the machines of all domains. A server of an older version has none.
func authorityLines(ctx context.Context, c *client) ([]string, error) {
	found, err := c.access.GetSshAuthorities(ctx, &provisionrv1.GetSshAuthoritiesRequest{})
	if errs.Is(errs.FromRPC(err), errs.Unsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var patterns []string
	for _, domain := range found.Domains {
		patterns = append(patterns, "*."+domain)
	}
	var lines []string
	for _, key := range found.PublicKeys {
		if len(patterns) > 0 {
			lines = append(lines, clean("@cert-authority "+strings.Join(patterns, ",")+" "+key))
		}
	}
	return lines, nil
}

func newSSHConfig(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print lines for ~/.ssh, for logins without this program",
		Long: `Print lines for ~/.ssh/known_hosts and ~/.ssh/config, with which plain ssh knows the machines' host keys and finds the
certificate that ` + "`provisionr ssh sign`" + ` makes of your key. The names must resolve: ask the servers for the domain.`,
		Args: cobra.NoArgs,
		RunE: o.run(func(ctx context.Context, c *client, _ []string) error {
			lines, err := authorityLines(ctx, c)
			if err != nil {
				return err
			}
			if len(lines) == 0 {
				return errs.New(errs.Unavailable, "the cluster has no authority for ssh yet").WithHint("it has one as soon as all servers have this version")
			}
			found, err := c.access.GetSshAuthorities(ctx, &provisionrv1.GetSshAuthoritiesRequest{})
			if err != nil {
				return err
			}
			fmt.Fprintf(o.streams.Out, "# ~/.ssh/known_hosts\n%s\n\n# ~/.ssh/config\n", strings.Join(lines, "\n"))
			for _, domain := range found.Domains {
				fmt.Fprintf(o.streams.Out, "Host *.%s\n    StrictHostKeyChecking yes\n    CertificateFile ~/.ssh/%s\n", clean(domain), certificateFile)
			}
			return nil
		}),
	}
}

func newSSHSign(o *options) *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "sign FILE.pub",
		Short: "Have your own public key certified, for logins without this program",
		Long:  "Have a public key certified under your name and role. The certificate is written beside it, as FILE-cert.pub, where ssh and ssh-add find it.",
		Args:  cobra.ExactArgs(1),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			base, ok := strings.CutSuffix(args[0], ".pub")
			if !ok {
				return errs.New(errs.Invalid, "cannot certify %s: it is no file of a public key", args[0]).WithHint("give one that ends in .pub, as ~/.ssh/id_ed25519.pub")
			}
			key, err := os.ReadFile(args[0])
			if err != nil {
				return errs.New(errs.Invalid, "cannot read the public key: %w", err)
			}
			signed, err := c.access.SignSshKey(ctx, signRequest(string(key), ttl))
			if err != nil {
				return err
			}
			if err := os.WriteFile(base+"-cert.pub", []byte(signed.Certificate+"\n"), 0o644); err != nil {
				return errs.New(errs.Invalid, "cannot write the certificate: %w", err)
			}
			fmt.Fprintf(o.streams.Out, "%s-cert.pub is good until %s as %s\n", base, signed.Expires.AsTime().Local().Format("2006-01-02 15:04"),
				strings.Join(signed.Principals, ", "))
			return nil
		}),
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long the certificate is good for (default: the server's)")
	return cmd
}
