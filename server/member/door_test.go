package member

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
)

// TestOnlyMembers: the certificate of a server that was removed is good for nothing, long before it ends.
func TestOnlyMembers(t *testing.T) {
	authority, err := pki.NewAuthority("c", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	roots := func() []*x509.Certificate { return []*x509.Certificate{authority.Cert} }
	certificate := func(name string) func() (*tls.Certificate, error) {
		key, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := authority.Issue(pki.Leaf{ID: pki.ID{Cluster: "c", Kind: pki.Server, Name: name}, Key: &key.PublicKey, TTL: time.Hour}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		pair, err := pki.TLSCertificate(pki.EncodeCerts(cert, authority.Cert), key)
		return func() (*tls.Certificate, error) { return pair, err }
	}
	server, err := pki.ServerTLS(pki.ServerConfig{Certificate: certificate("a"), Roots: roots, Cluster: "c", Clients: []pki.Kind{pki.Server}, Protocols: []string{ProtocolGRPC}})
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rpc := grpc.NewServer(append(OnlyMembers(func(name string) bool { return name == "b" }), grpc.Creds(ServerCredentials()))...)
	memberv1.RegisterMemberServiceServer(rpc, memberv1.UnimplementedMemberServiceServer{})
	go func() { _ = rpc.Serve(&handshaking{inner, server}) }()
	t.Cleanup(rpc.Stop)
	for name, want := range map[string]errs.Kind{"b": errs.Unsupported, "removed": errs.Unavailable} {
		config, err := pki.ClientTLS(pki.ClientConfig{Certificate: certificate(name), Roots: roots, Protocols: []string{ProtocolGRPC}})
		if err != nil {
			t.Fatal(err)
		}
		conns, err := NewConns(ConnsConfig{
			TLS:     func(string, string) (*tls.Config, error) { return config, nil },
			Address: func(string) string { return inner.Addr().String() },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer conns.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		conn, err := conns.Conn(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := memberv1.NewMemberServiceClient(conn).Status(ctx, &memberv1.StatusRequest{}); errs.KindOf(errs.FromRPC(err)) != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
		stream, err := memberv1.NewMemberServiceClient(conn).Exec(ctx, &memberv1.ExecRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if errs.KindOf(errs.FromRPC(err)) != want {
			t.Errorf("%s, stream: %v, want %s", name, err, want)
		}
	}
}

// handshaking accepts connections past their handshake, as Listener does.
type handshaking struct {
	net.Listener
	config *tls.Config
}

func (h *handshaking) Accept() (net.Conn, error) {
	raw, err := h.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := tls.Server(raw, h.config)
	if err := conn.Handshake(); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}
