package agenttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/identity"
	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// What a Server and Bootstrap agree on.
const (
	Cluster   = "test-cluster"
	MachineID = "m-aaaabbbbccccdddd"
	Token     = "the-one-time-token"
)

// Grace is how long after its end a certificate may still be renewed.
const Grace = 30 * 24 * time.Hour

// Server is a server of one cluster. Change its fields under Lock.
type Server struct {
	agentv1.UnimplementedAgentServiceServer
	sync.Mutex

	// Authority that certificates are issued with.
	Authority *pki.Authority
	// TTL of issued certificates. Now is the server's clock.
	TTL time.Duration
	Now func() time.Time
	// Trust is what Join, Renew and Welcome carry.
	Trust *agentv1.Trust
	// Refuse, where not nil, is what every Join answers.
	Refuse error
	// Joins and Renewals count the calls that were answered with a certificate; keys are their fingerprints.
	Joins, Renewals int
	Keys            []string
	// Reach answers each port of Confirm. Nil has all reached, as by a server.
	Reach func(port uint32) *agentv1.Reach
	// Values are those of secrets, by name; what is missing is denied.
	Values map[string][]byte
	// Programs that Fetch streams, by SHA-256.
	Programs map[[sha256.Size]byte][]byte
	// Confirms counts the calls of Confirm.
	Confirms int
	// Sessions get each new stream after its Hello.
	Sessions chan *Session

	Addr   string
	cert   *tls.Certificate
	server *grpc.Server
}

// Session is a stream as the server sees it. It lasts until End is called or the agent goes.
type Session struct {
	Hello *agentv1.Hello
	grpc.BidiStreamingServer[agentv1.AgentMessage, agentv1.ServerMessage]
	end chan error
}

// Give sends a message. It may be called by one goroutine at a time.
func (s *Session) Give(t testing.TB, m *agentv1.ServerMessage) {
	t.Helper()
	if err := s.Send(m); err != nil {
		t.Fatal(err)
	}
}

// Next waits for the next message of the agent.
func (s *Session) Next(t testing.TB) *agentv1.AgentMessage {
	t.Helper()
	m, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// End ends the session from the server's side.
func (s *Session) End(err error) { s.end <- err }

// New returns a server that listens on loopback until the test ends. Authority may be nil for a new one.
func New(t testing.TB, authority *pki.Authority) *Server {
	t.Helper()
	if authority == nil {
		var err error
		if authority, err = pki.NewAuthority(Cluster, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	s := &Server{Authority: authority, TTL: pki.AgentTTL, Now: time.Now, Sessions: make(chan *Session, 16)}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s.cert = s.serverCert(t, key, time.Now())
	s.Listen(t, "127.0.0.1:0")
	t.Cleanup(func() { s.Stop() })
	return s
}

func (s *Server) serverCert(t testing.TB, key *ecdsa.PrivateKey, now time.Time) *tls.Certificate {
	t.Helper()
	leaf, err := s.Authority.Issue(pki.Leaf{ID: pki.ID{Cluster: Cluster, Kind: pki.Server, Name: "s1"}, Key: &key.PublicKey, TTL: pki.ServerTTL}, now)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.TLSCertificate(pki.EncodeCerts(leaf, s.Authority.Cert), key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// SetClock moves the server's clock by an offset, and gives it a certificate of that time.
func (s *Server) SetClock(t testing.TB, offset time.Duration) {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return time.Now().Add(offset) }
	s.Lock()
	defer s.Unlock()
	s.Now, s.cert = now, s.serverCert(t, key, now())
}

// Listen starts the server at an address, where it was stopped before.
func (s *Server) Listen(t testing.TB, addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s.Addr = ln.Addr().String()
	s.Lock()
	if s.Trust == nil {
		s.Trust = &agentv1.Trust{Version: 1, ClusterId: Cluster, Roots: pki.EncodeCerts(s.Authority.Cert), Endpoints: []string{s.Addr}}
	}
	s.Unlock()
	config, err := pki.ServerTLS(pki.ServerConfig{
		Certificate: func() (*tls.Certificate, error) {
			s.Lock()
			defer s.Unlock()
			return s.cert, nil
		},
		Roots: func() []*x509.Certificate { return []*x509.Certificate{s.Authority.Cert} }, Cluster: Cluster,
		Clients: []pki.Kind{pki.Agent}, Optional: true, ExpiredGrace: Grace, Protocols: []string{"h2"}, Now: s.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.server = grpc.NewServer(grpc.Creds(credentials.NewTLS(config)),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second}))
	agentv1.RegisterAgentServiceServer(s.server, s)
	go func() {
		// A test may stop the server before this goroutine runs.
		if err := s.server.Serve(ln); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	}()
}

// Stop breaks all connections, as a killed server does.
func (s *Server) Stop() { s.server.Stop() }

func (s *Server) now() time.Time {
	s.Lock()
	defer s.Unlock()
	return s.Now()
}

// Join implements agentv1.AgentServiceServer.
func (s *Server) Join(_ context.Context, r *agentv1.JoinRequest) (*agentv1.JoinResponse, error) {
	s.Lock()
	defer s.Unlock()
	if s.Refuse != nil {
		return nil, s.Refuse
	}
	if r.Token != Token || r.MachineId != MachineID {
		return nil, errs.New(errs.Unauthenticated, "cannot join machine %s: its token is wrong", r.MachineId).WithHint("look for a second machine")
	}
	s.Joins++
	return s.issue(r.Csr)
}

// Renew implements agentv1.AgentServiceServer.
func (s *Server) Renew(ctx context.Context, r *agentv1.RenewRequest) (*agentv1.JoinResponse, error) {
	if _, err := caller(ctx); err != nil {
		return nil, err
	}
	s.Lock()
	defer s.Unlock()
	s.Renewals++
	return s.issue(r.Csr)
}

func (s *Server) issue(csr []byte) (*agentv1.JoinResponse, error) {
	key, err := pki.ParseCSR(csr)
	if err != nil {
		return nil, err
	}
	print, err := pki.Fingerprint(key)
	if err != nil {
		return nil, err
	}
	s.Keys = append(s.Keys, print)
	cert, err := s.Authority.Issue(pki.Leaf{ID: pki.ID{Cluster: Cluster, Kind: pki.Agent, Name: MachineID}, Key: key, TTL: s.TTL}, s.Now())
	if err != nil {
		return nil, err
	}
	return &agentv1.JoinResponse{Certificate: pki.EncodeCerts(cert), ServerTime: timestamppb.New(s.Now()), Trust: proto.CloneOf(s.Trust)}, nil
}

// Session implements agentv1.AgentServiceServer.
func (s *Server) Session(stream grpc.BidiStreamingServer[agentv1.AgentMessage, agentv1.ServerMessage]) error {
	cert, err := caller(stream.Context())
	if err != nil {
		return err
	}
	if pki.Expired(cert, s.now()) {
		return errs.New(errs.Unauthenticated, "the certificate has expired")
	}
	hello, err := stream.Recv()
	if err != nil {
		return err
	}
	s.Lock()
	welcome := &agentv1.Welcome{Server: "s1", ServerTime: timestamppb.New(s.Now()), Trust: proto.CloneOf(s.Trust)}
	s.Unlock()
	if err := stream.Send(&agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	session := &Session{Hello: hello.GetHello(), BidiStreamingServer: stream, end: make(chan error, 1)}
	s.Sessions <- session
	select {
	case err := <-session.end:
		return err
	case <-stream.Context().Done():
		return nil
	}
}

func caller(ctx context.Context) (*x509.Certificate, error) {
	p, ok := peer.FromContext(ctx)
	if info, is := p.AuthInfo.(credentials.TLSInfo); ok && is && len(info.State.PeerCertificates) > 0 {
		return info.State.PeerCertificates[0], nil
	}
	return nil, errs.New(errs.Unauthenticated, "no client certificate")
}

// Bootstrap writes the bootstrap file of the machine below the host's root. It pins the authority of s.
func (s *Server) Bootstrap(t testing.TB, h host.Host, token string) {
	t.Helper()
	data, err := json.Marshal(identity.Bootstrap{
		ClusterID: Cluster, MachineID: MachineID, Attempt: 1, Token: token,
		CAPins: []string{pki.SPKIPin(s.Authority.Cert)}, AgentEndpoints: []string{s.Addr},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.Root, "etc/provisionr")
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "bootstrap.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Desired returns a desired state with its components, whose pool is as given and named p.
func Desired(t testing.TB, pool *agentv1.PoolComponent) (*agentv1.Desired, []*agentv1.Component) {
	t.Helper()
	pool.Name = "p"
	machine := &agentv1.MachineComponent{MachineId: MachineID, Name: "p-1", Fqdn: "p-1.provisionr.internal", Index: 1, Pool: "p", Domain: "provisionr.internal", Address: "127.0.0.1"}
	d := &agentv1.Desired{PoolGeneration: 1}
	sum := sha256.New()
	var components []*agentv1.Component
	for _, part := range []struct {
		name string
		m    proto.Message
	}{{"machine", machine}, {"pool", pool}} {
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(part.m)
		if err != nil {
			t.Fatal(err)
		}
		hash := sha256.Sum256(body)
		sum.Write(hash[:])
		d.Components = append(d.Components, &agentv1.ComponentRef{Name: part.name, Hash: hash[:]})
		components = append(components, &agentv1.Component{Hash: hash[:], Body: body})
	}
	d.Hash = sum.Sum(nil)
	return d, components
}
