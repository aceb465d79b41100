package member_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/member"
)

// trust is a CA of a test.
type trust struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newTrust(t *testing.T) *trust {
	c := &trust{t: t, pool: x509.NewCertPool()}
	c.key, c.cert = c.sign("ca", nil)
	c.pool.AddCert(c.cert)
	return c
}

func (c *trust) sign(name string, parent *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: parent == nil,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	signer := c.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return key, cert
}

func (c *trust) issue(name string) tls.Certificate {
	key, cert := c.sign(name, c.cert)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// consensus is a member's consensus that only answers.
type consensus struct {
	member.Consensus
	proposed []*raftlogv1.Request
	caller   string
	restored string
}

func (c *consensus) ProposeLocal(ctx context.Context, requests []*raftlogv1.Request) ([]*memberv1.Result, error) {
	if p, ok := peer.FromContext(ctx); ok {
		c.caller = p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].Subject.CommonName
	}
	c.proposed = requests
	return []*memberv1.Result{{Version: &provisionrv1.Version{Index: 9}}}, nil
}

func (*consensus) ReadIndexLocal(context.Context, bool) (uint64, error) {
	return 0, errs.New(errs.Unavailable, "not the leader").WithHint("ask another")
}

func (c *consensus) RestoreLocal(_ context.Context, r io.Reader) (*provisionrv1.Version, error) {
	data, err := io.ReadAll(r)
	c.restored = string(data)
	return &provisionrv1.Version{Index: 3}, err
}

func (*consensus) Status() *provisionrv1.MemberStatus {
	return &provisionrv1.MemberStatus{Health: "alive"}
}

// sessions are those of one machine.
type sessions struct{ verified string }

func (*sessions) LocalSessions() (uint64, []string) { return 7, []string{"m-1", "m-2"} }

func (*sessions) LocalExec(_ context.Context, _, slot string, req *provisionrv1.ExecRequest, send func(*provisionrv1.ExecResponse) error) error {
	return send(&provisionrv1.ExecResponse{Machine: slot, Event: &provisionrv1.ExecResponse_Stdout{Stdout: []byte(req.GetCommand()[0])}})
}

func (s *sessions) LocalVerify(_ context.Context, id string) error {
	s.verified = id
	return nil
}

// LocalAsk answers with what was asked, and for how long.
func (*sessions) LocalAsk(ctx context.Context, id string, ask *agentv1.Ask) (*agentv1.Answer, error) {
	if id != "m-1" {
		return nil, errs.New(errs.NotFound, "no session")
	}
	until, ok := ctx.Deadline()
	if !ok || time.Until(until) > time.Minute {
		return nil, errs.New(errs.Internal, "no bound")
	}
	return &agentv1.Answer{Id: ask.GetReboot().GetReason()}, nil
}

// fixture is one listening member, s1.
type fixture struct {
	t         *testing.T
	ca        *trust
	addr      string
	listener  *member.Listener
	consensus *consensus
	sessions  *sessions
}

func start(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, ca: newTrust(t), consensus: &consensus{}, sessions: &sessions{}}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = inner.Addr().String()
	cert := f.ca.issue("s1")
	f.listener, err = member.NewListener(member.ListenerConfig{Inner: inner, Logger: slog.New(slog.DiscardHandler), TLS: func() (*tls.Config, error) {
		return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientCAs: f.ca.pool, ClientAuth: tls.RequireAndVerifyClientCert}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	server := member.NewServer(member.NewService(f.consensus, f.sessions))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- f.listener.Run(ctx) }()
	go func() { done <- server.Serve(f.listener.GRPC()) }()
	t.Cleanup(func() {
		cancel()
		server.Stop()
		<-done
		<-done
	})
	return f
}

// conns dials as s2 and expects the member asked for at every address.
func (f *fixture) conns(roots *x509.CertPool, certs ...tls.Certificate) *member.Conns {
	f.t.Helper()
	c, err := member.NewConns(member.ConnsConfig{
		Address: func(name string) string {
			if name == "unknown" {
				return ""
			}
			return f.addr
		},
		TLS: func(name, _ string) (*tls.Config, error) {
			return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: certs, RootCAs: roots, ServerName: name}, nil
		},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (f *fixture) client(c *member.Conns, name string) memberv1.MemberServiceClient {
	f.t.Helper()
	conn, err := c.Conn(f.t.Context(), name)
	if err != nil {
		f.t.Fatal(err)
	}
	return memberv1.NewMemberServiceClient(conn)
}

func TestCalls(t *testing.T) {
	f := start(t)
	conns := f.conns(f.ca.pool, f.ca.issue("s2"))
	client := f.client(conns, "s1")
	resp, err := client.Propose(t.Context(), &memberv1.ProposeRequest{Requests: []*raftlogv1.Request{{Id: "r"}}})
	if err != nil || resp.GetResults()[0].GetVersion().GetIndex() != 9 || f.consensus.proposed[0].GetId() != "r" {
		t.Errorf("propose: %v, %v", resp, err)
	}
	if f.consensus.caller != "s2" {
		t.Errorf("the service sees the caller %q, want s2", f.consensus.caller)
	}
	if _, err := client.ReadIndex(t.Context(), &memberv1.ReadIndexRequest{}); !errs.Is(errs.FromRPC(err), errs.Unavailable) || errs.HintOf(errs.FromRPC(err)) != "ask another" {
		t.Errorf("read index: %v", err)
	}
	list, err := client.Sessions(t.Context(), &memberv1.SessionsRequest{})
	if err != nil || len(list.GetMachines()) != 2 {
		t.Errorf("sessions: %v, %v", list, err)
	}
	if list, err = client.Sessions(t.Context(), &memberv1.SessionsRequest{Revision: 7}); err != nil || !list.GetUnchanged() || len(list.GetMachines()) != 0 {
		t.Errorf("sessions that are known: %v, %v", list, err)
	}
	stream, err := client.Exec(t.Context(), &memberv1.ExecRequest{MachineId: "m-1", Slot: "a-1", Exec: &provisionrv1.ExecRequest{Command: []string{"id"}}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := stream.Recv()
	if err != nil || out.GetMachine() != "a-1" || string(out.GetStdout()) != "id" {
		t.Errorf("exec: %v, %v", out, err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("end of exec: %v", err)
	}
	question := &memberv1.AskRequest{
		MachineId: "m-1", Ask: &agentv1.Ask{Kind: &agentv1.Ask_Reboot{Reboot: &agentv1.Reboot{Reason: "why"}}}, Timeout: durationpb.New(time.Minute),
	}
	if answer, err := client.Ask(t.Context(), question); err != nil || answer.GetId() != "why" {
		t.Errorf("ask: %v, %v", answer, err)
	}
	question.MachineId = "m-9"
	if _, err := client.Ask(t.Context(), question); !errs.Is(errs.FromRPC(err), errs.NotFound) {
		t.Errorf("ask a machine without a session: %v", err)
	}
	if _, err := client.Verify(t.Context(), &memberv1.VerifyRequest{MachineId: "m-2"}); err != nil || f.sessions.verified != "m-2" {
		t.Errorf("verify: %v", err)
	}
	status, err := client.Status(t.Context(), &memberv1.StatusRequest{})
	if err != nil || status.GetSessions() != 2 {
		t.Errorf("status: %v, %v", status, err)
	}
	restore, err := client.Restore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"one ", "", "two"} {
		if err := restore.Send(&provisionrv1.SnapshotChunk{Data: []byte(part)}); err != nil {
			t.Fatal(err)
		}
	}
	if answer, err := restore.CloseAndRecv(); err != nil || answer.GetVersion().GetIndex() != 3 || f.consensus.restored != "one two" {
		t.Errorf("restore of %q: %v, %v", f.consensus.restored, answer, err)
	}
}

func TestSplitByProtocol(t *testing.T) {
	f := start(t)
	conns := f.conns(f.ca.pool, f.ca.issue("s2"))
	got := make(chan string, 1)
	go func() {
		conn, err := f.listener.Raft().Accept()
		if err != nil {
			got <- err.Error()
			return
		}
		defer conn.Close()
		line := make([]byte, 5)
		if _, err := io.ReadFull(conn, line); err != nil {
			got <- err.Error()
			return
		}
		got <- string(line)
	}()
	conn, err := conns.DialRaft(t.Context(), "s1", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if line := <-got; line != "hello" {
		t.Errorf("raft's listener got %q", line)
	}
}

func TestWhoIsNotAMemberIsRefused(t *testing.T) {
	f := start(t)
	foreign := newTrust(t)
	for name, test := range map[string]struct {
		roots  *x509.CertPool
		certs  []tls.Certificate
		member string
	}{
		"no certificate":      {f.ca.pool, nil, "s1"},
		"foreign certificate": {f.ca.pool, []tls.Certificate{foreign.issue("s2")}, "s1"},
		"another member":      {f.ca.pool, []tls.Certificate{f.ca.issue("s2")}, "s3"},
		"foreign roots":       {foreign.pool, []tls.Certificate{f.ca.issue("s2")}, "s1"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			conns := f.conns(test.roots, test.certs...)
			if _, err := f.client(conns, test.member).Status(ctx, &memberv1.StatusRequest{}); !errs.Is(errs.FromRPC(err), errs.Unavailable) {
				t.Errorf("gRPC: %v, want unavailable", err)
			}
			conn, err := conns.DialRaft(ctx, test.member, f.addr)
			if err == nil {
				// With TLS 1.3 a client learns of a refusal of its certificate at its first read.
				_, err = conn.Read(make([]byte, 1))
				_ = conn.Close()
			}
			if err == nil {
				t.Error("raft: no error")
			}
		})
	}
	if _, err := f.conns(f.ca.pool).Conn(t.Context(), "unknown"); !errs.Is(err, errs.NotFound) {
		t.Errorf("a member without an address: %v", err)
	}
}

func TestGarbageIsRefused(t *testing.T) {
	f := start(t)
	for _, garbage := range []string{"", "\x00", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\xff", 4096), "\x16\x03\x01\x00\x05hello"} {
		conn, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, garbage); err != nil {
			t.Fatal(err)
		}
		// The end of the connection, not silence, is the answer; a reset counts, also one that is quicker than this.
		_ = conn.(*net.TCPConn).CloseWrite()
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, conn)
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			t.Errorf("a connection that sent %.20q stays open", garbage)
		}
		_ = conn.Close()
	}
	// A member without the right protocol, and then one with it.
	cert := f.ca.issue("s2")
	plain, err := tls.Dial("tcp", f.addr, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: f.ca.pool, ServerName: "s1"})
	if err == nil {
		if _, err = plain.Read(make([]byte, 1)); err == nil {
			t.Error("a connection without a protocol is served")
		}
		_ = plain.Close()
	}
	if _, err := f.client(f.conns(f.ca.pool, cert), "s1").Status(t.Context(), &memberv1.StatusRequest{}); err != nil {
		t.Errorf("after garbage: %v", err)
	}
}

func TestClosedConns(t *testing.T) {
	f := start(t)
	conns := f.conns(f.ca.pool, f.ca.issue("s2"))
	client := f.client(conns, "s1")
	if _, err := client.Status(t.Context(), &memberv1.StatusRequest{}); err != nil {
		t.Fatal(err)
	}
	conns.Forget("s1")
	if _, err := client.Status(t.Context(), &memberv1.StatusRequest{}); err == nil {
		t.Error("a forgotten connection works")
	}
	if _, err := f.client(conns, "s1").Status(t.Context(), &memberv1.StatusRequest{}); err != nil {
		t.Errorf("a new connection after Forget: %v", err)
	}
	if err := conns.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := conns.Conn(t.Context(), "s1"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("a connection after Close: %v", err)
	}
}
