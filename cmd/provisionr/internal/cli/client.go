package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/contexts"
	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
)

// maxMessage bounds an answer: a list of 10,000 machines is about 10 MiB.
const maxMessage = 64 << 20

// retries repeats calls that a server refused because it was not ready, as during a change of leader. Writes carry
// request ids, so repeating them is harmless.
const retries = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.2s",
	"maxBackoff": "2s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// options are what all commands share.
type options struct {
	streams Streams
	context string
	servers []string
}

// client is a connection to the API.
type client struct {
	context   *contexts.Context
	conn      *grpc.ClientConn
	manifests provisionrv1.ManifestServiceClient
	pools     provisionrv1.PoolServiceClient
	machines  provisionrv1.MachineServiceClient
	infra     provisionrv1.InfraServiceClient
	events    provisionrv1.EventServiceClient
	watch     provisionrv1.WatchServiceClient
	cluster   provisionrv1.ClusterServiceClient
	access    provisionrv1.AccessServiceClient
	vpns      provisionrv1.VpnServiceClient
	secrets   provisionrv1.SecretServiceClient
}

// run makes a command's RunE out of a function that needs a connection. Errors lose their RPC form here.
func (o *options) run(f func(ctx context.Context, c *client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := o.dial()
		if err != nil {
			return err
		}
		err = f(cmd.Context(), c, args)
		return errors.Join(c.explain(err), c.conn.Close())
	}
}

// current returns the context that the flags and the file choose.
func (o *options) current() (*contexts.Context, error) {
	path, err := contexts.DefaultPath()
	if err != nil {
		return nil, err
	}
	file, err := contexts.Load(path)
	if err != nil {
		return nil, err
	}
	c, err := file.Select(o.context)
	if err != nil {
		return nil, err
	}
	if len(o.servers) > 0 {
		c.Servers = o.servers
	}
	return c, nil
}

func (o *options) dial() (*client, error) {
	c, err := o.current()
	if err != nil {
		return nil, err
	}
	transport, err := transport(c)
	if err != nil {
		return nil, err
	}
	addresses := make([]resolver.Endpoint, 0, len(c.Servers))
	for _, s := range c.Servers {
		if _, _, err := net.SplitHostPort(s); err != nil {
			return nil, errs.New(errs.Invalid, "cannot use server %q: %w", s, err).WithHint("give HOST:PORT, as 127.0.0.1:7443")
		}
		addresses = append(addresses, resolver.Endpoint{Addresses: []resolver.Address{{Addr: s}}})
	}
	if len(addresses) == 0 {
		return nil, errs.New(errs.Invalid, "cannot connect: context %s has no servers", c.Name).WithHint("give --server HOST:PORT")
	}
	// pick_first tries one address after the other, and the next one when a connection is lost.
	names := manual.NewBuilderWithScheme("provisionr")
	names.InitialState(resolver.State{Endpoints: addresses})
	dial := []grpc.DialOption{
		grpc.WithResolvers(names),
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(retries),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
	token, err := secret(c.Token, c.Path(c.TokenFile))
	if err != nil {
		return nil, err
	}
	if token != "" {
		dial = append(dial, grpc.WithPerRPCCredentials(bearer(token)))
	}
	conn, err := grpc.NewClient("provisionr:///cluster", dial...)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot connect: %w", err)
	}
	return &client{
		context: c, conn: conn,
		manifests: provisionrv1.NewManifestServiceClient(conn), pools: provisionrv1.NewPoolServiceClient(conn),
		machines: provisionrv1.NewMachineServiceClient(conn), infra: provisionrv1.NewInfraServiceClient(conn),
		events: provisionrv1.NewEventServiceClient(conn), watch: provisionrv1.NewWatchServiceClient(conn),
		cluster: provisionrv1.NewClusterServiceClient(conn), access: provisionrv1.NewAccessServiceClient(conn),
		vpns: provisionrv1.NewVpnServiceClient(conn), secrets: provisionrv1.NewSecretServiceClient(conn),
	}, nil
}

// transport makes TLS out of a context: the server proves its identity by the CA, not by a host name.
func transport(c *contexts.Context) (credentials.TransportCredentials, error) {
	ca, err := text(c.CA, c.Path(c.CAFile), "CA")
	if err != nil {
		return nil, err
	}
	roots, err := pki.ParseCerts(ca)
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot use the CA of context %s: %w", c.Name, err)
	}
	config := pki.ClientConfig{Roots: func() []*x509.Certificate { return roots }, Cluster: c.Cluster}
	if c.Certificate != "" {
		certificate, err := clientCertificate(c)
		if err != nil {
			return nil, err
		}
		config.Certificate = func() (*tls.Certificate, error) { return certificate, nil }
	}
	own, err := pki.ClientTLS(config)
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(own), nil
}

func clientCertificate(c *contexts.Context) (*tls.Certificate, error) {
	chain, err := text("", c.Path(c.Certificate), "certificate")
	if err != nil {
		return nil, err
	}
	data, err := text("", c.Path(c.Key), "key")
	if err != nil {
		return nil, err
	}
	key, err := pki.ParseKey(data)
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot use the key of context %s: %w", c.Name, err)
	}
	certificate, err := pki.TLSCertificate(chain, key)
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot use the certificate of context %s: %w", c.Name, err)
	}
	if time.Now().After(certificate.Leaf.NotAfter) {
		return nil, errs.New(errs.Unauthenticated, "cannot use the certificate of context %s: it expired on %s", c.Name,
			certificate.Leaf.NotAfter.Format(time.DateOnly)).WithHint("have an admin run `provisionr user issue-cert`")
	}
	return certificate, nil
}

// text returns what is given in place or in a file; one of them is required.
func text(inline, path, what string) ([]byte, error) {
	if inline != "" {
		return []byte(inline), nil
	}
	if path == "" {
		return nil, errs.New(errs.Invalid, "cannot connect: the context has no %s", what)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot read the %s of the context: %w", what, err)
	}
	return data, nil
}

func secret(inline, path string) (string, error) {
	if inline != "" || path == "" {
		return inline, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", errs.New(errs.Invalid, "cannot read the token of the context: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// bearer sends a token with every call; gRPC refuses to send it without TLS.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (b bearer) RequireTransportSecurity() bool { return true }

// explain turns an error of a call into one for a person.
func (c *client) explain(err error) error {
	var code exit
	if err == nil || errors.As(err, &code) {
		return err
	}
	err = errs.FromRPC(err)
	hint := errs.HintOf(err)
	switch _, reason, unreachable := strings.Cut(err.Error(), "connection error: desc = "); {
	case errs.Is(err, errs.Canceled), errors.Is(err, context.Canceled):
		return exitInterrupted
	case unreachable:
		if text, err := strconv.Unquote(reason); err == nil {
			reason = text
		}
		if hint == "" {
			hint = "is the server running? `provisionr context list` shows where this looks"
		}
		return errs.New(errs.Unavailable, "cannot reach a server of context %s at %s: %s", c.context.Name,
			strings.Join(c.context.Servers, ", "), strings.TrimPrefix(reason, "transport: ")).WithHint("%s", hint)
	case hint != "":
		return err
	case errs.Is(err, errs.Unauthenticated):
		return errs.New(errs.Unauthenticated, "%w", err).WithHint("context %s has no valid certificate or token", c.context.Name)
	}
	return err
}
