package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// freePort returns a port that nobody listens on.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// TestRun has one member begin a cluster, and uses what it is composed of.
func TestRun(t *testing.T) {
	agents := t.TempDir()
	for _, name := range []string{"provisionr-agent-amd64", "provisionr-wireguard-amd64"} {
		if err := os.WriteFile(filepath.Join(agents, name), []byte(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ready, credentialed := make(chan struct{}), make(chan Credentials, 1)
	c := Config{
		Name: "a", DataDir: t.TempDir(), CacheDir: t.TempDir(), AgentDir: agents, Advertise: "127.0.0.1", Bootstrap: true,
		Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Logger: slog.New(slog.DiscardHandler), Version: "v1",
		Ports: Ports{API: freePort(t), Agent: freePort(t), Member: freePort(t), DNS: freePort(t)},
		Admin: func(c Credentials) error { credentialed <- c; return nil }, Ready: func() { close(ready) },
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, c) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("Run: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("not ready within 30 s")
	}
	conn := dialAPI(t, c.Ports.API, <-credentialed)
	call, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	secrets := provisionrv1.NewSecretServiceClient(conn)
	if _, err := secrets.PutSecret(call, &provisionrv1.PutSecretRequest{Name: "db", Value: []byte("hush")}); err != nil {
		t.Errorf("put secret: %v", err)
	}
	if r, err := secrets.ListSecrets(call, &provisionrv1.ListSecretsRequest{}); err != nil || len(r.GetSecrets()) != 1 {
		t.Errorf("secrets: %v, %v", r, err)
	}
	if _, err := provisionrv1.NewVpnServiceClient(conn).ListVpns(call, &provisionrv1.ListInfraRequest{}); err != nil {
		t.Errorf("vpns: %v", err)
	}
	if r, err := provisionrv1.NewManifestServiceClient(conn).PlanMachines(call, &provisionrv1.PlanMachinesRequest{}); err != nil || len(r.GetMachines()) != 0 {
		t.Errorf("plan of machines: %v, %v", r, err)
	}
	// The leader makes the authority for ssh by itself.
	access := provisionrv1.NewAccessServiceClient(conn)
	for {
		r, err := access.GetSshAuthorities(call, &provisionrv1.GetSshAuthoritiesRequest{})
		if err != nil {
			t.Fatalf("ssh authorities: %v", err)
		}
		if len(r.GetPublicKeys()) > 0 {
			if !strings.HasPrefix(r.GetPublicKeys()[0], "ssh-ed25519 ") {
				t.Errorf("authority %q", r.GetPublicKeys())
			}
			return
		}
	}
}

func dialAPI(t *testing.T, port uint16, c Credentials) *grpc.ClientConn {
	t.Helper()
	certificate, err := tls.X509KeyPair(c.Certificate, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := pki.ParseCerts(c.Roots)
	if err != nil {
		t.Fatal(err)
	}
	config, err := pki.ClientTLS(pki.ClientConfig{
		Certificate: func() (*tls.Certificate, error) { return &certificate, nil }, Protocols: []string{"h2"},
		Roots: func() []*x509.Certificate { return parsed },
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///127.0.0.1:"+strconv.Itoa(int(port)), grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
