//go:build machine

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/provisionr/provisionr/internal/contexts"
	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// callTimeout bounds one call; it is longer than any change of leader takes.
const callTimeout = 20 * time.Second

// api, agents, members and dns are the addresses of the nth server, from 1. The DNS port of the first is the API's + 50.
func (d *dev) api(n int) string     { return "127.0.0.1:" + strconv.Itoa(d.port+10*(n-1)) }
func (d *dev) agents(n int) string  { return "127.0.0.1:" + strconv.Itoa(d.port+10*(n-1)+1) }
func (d *dev) members(n int) string { return "127.0.0.1:" + strconv.Itoa(d.port+10*(n-1)+2) }
func (d *dev) dns(n int) string     { return "127.0.0.1:" + strconv.Itoa(d.dnsPort(n)) }
func (d *dev) dnsPort(n int) int    { return d.port + 50 + 1000*(n-1) }

// startServers starts a cluster that boots no machines.
func startServers(t *testing.T, disk string, servers, port int) *dev {
	t.Helper()
	return startDevOn(t, disk, "10.222.1.0/24", port,
		"--no-local", "--servers", strconv.Itoa(servers), "--dns-port", strconv.Itoa(port+50))
}

// context is the first administrator's, as the server wrote it.
func (d *dev) context() *contexts.Context {
	d.t.Helper()
	file, err := contexts.Load(filepath.Join(d.dir, "config.yaml"))
	if err != nil {
		d.t.Fatal(err)
	}
	c, err := file.Select("")
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// roots are the authorities of the cluster.
func (d *dev) roots() []*x509.Certificate {
	d.t.Helper()
	roots, err := pki.ParseCerts(read(d.t, d.context().CAFile))
	if err != nil {
		d.t.Fatal(err)
	}
	return roots
}

// admin is the client certificate of the first administrator.
func (d *dev) admin() *tls.Certificate {
	d.t.Helper()
	c := d.context()
	key, err := pki.ParseKey(read(d.t, c.Key))
	if err != nil {
		d.t.Fatal(err)
	}
	certificate, err := pki.TLSCertificate(read(d.t, c.Certificate), key)
	if err != nil {
		d.t.Fatal(err)
	}
	return certificate
}

// tls is how a client with the certificate, or with none, connects.
func (d *dev) tls(certificate *tls.Certificate, protocols ...string) *tls.Config {
	d.t.Helper()
	roots := d.roots()
	config := pki.ClientConfig{Roots: func() []*x509.Certificate { return roots }, Protocols: protocols}
	if certificate != nil {
		config.Certificate = func() (*tls.Certificate, error) { return certificate, nil }
	}
	own, err := pki.ClientTLS(config)
	if err != nil {
		d.t.Fatal(err)
	}
	return own
}

// dial connects to one address; the connection comes back soon after the server does.
func (d *dev) dial(address string, certificate *tls.Certificate, options ...grpc.DialOption) *grpc.ClientConn {
	d.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(d.tls(certificate))),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: 300 * time.Millisecond},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20)),
	}, options...)...)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// bearer is a token as gRPC sends it.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// createToken makes a token of a user.
func (d *dev) createToken(name, user string, role provisionrv1.Role, ttl time.Duration) string {
	d.t.Helper()
	resp, err := provisionrv1.NewAccessServiceClient(d.dial(d.api(1), d.admin())).CreateToken(d.t.Context(),
		&provisionrv1.CreateTokenRequest{Name: name, User: user, Role: role, Ttl: durationpb.New(ttl)})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.Secret
}

// pid is the process of the nth server.
func (d *dev) pid(n int) (int, error) {
	text, err := os.ReadFile(filepath.Join(d.data(), "s"+strconv.Itoa(n), "lock"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// killServer ends one of several servers at once; `dev` starts it anew.
func (d *dev) killServer(n int) {
	d.t.Helper()
	pid, err := d.pid(n)
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		d.t.Fatalf("cannot kill server %d: %v", n, err)
	}
	d.eventually(fmt.Sprintf("another process is server %d", n), 20*time.Second, func() error {
		if now, err := d.pid(n); err != nil || now == pid {
			return errors.Join(err, fmt.Errorf("its process is %d", now))
		}
		return nil
	})
}

// fullLog is all that the servers logged.
func (d *dev) fullLog() string {
	d.t.Helper()
	return string(read(d.t, filepath.Join(d.dir, "server.log")))
}

// code runs the CLI and returns its exit code and all that it printed.
func (d *dev) code(args ...string) (int, string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary("provisionr"), args...)
	cmd.Env = d.env()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// write writes a file of the test and returns its path.
func (d *dev) write(name, text string) string {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
