package session

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	clusterID = "c-test"
	patience  = 10 * time.Second
)

// log is a consensus of one: commands go straight to the real FSM.
type log struct {
	mu    sync.Mutex
	store *state.Store
	fsm   *fsm.FSM
	index uint64
	// refuse, where set, fails every command of a report.
	refuse error
	syncs  int
	// facts counts the reports with facts.
	facts int
}

func (l *log) Do(_ context.Context, who *provisionrv1.Caller, id string, c *raftlogv1.Command) (*provisionrv1.Version, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil && c.GetReportMachine() != nil {
		return nil, l.refuse
	}
	if c.GetReportMachine().GetFacts() != nil {
		l.facts++
	}
	l.index++
	entry, err := proto.Marshal(&raftlogv1.Entry{Requests: []*raftlogv1.Request{{Id: id, Time: timestamppb.Now(), Caller: who, FeatureLevel: 1, Command: c}}})
	if err != nil {
		return nil, err
	}
	results := l.fsm.Apply(l.index, entry)
	if len(results) != 1 {
		return nil, errs.New(errs.Internal, "the fsm stopped")
	}
	if results[0].Err != nil {
		return nil, results[0].Err
	}
	return results[0].Version, nil
}

func (l *log) Sync(context.Context, provisionrv1.Consistency) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.syncs++
	return nil
}

func (l *log) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = err
}

func (l *log) must(t testing.TB, commands ...*raftlogv1.Command) {
	t.Helper()
	for _, c := range commands {
		if _, err := l.Do(t.Context(), &provisionrv1.Caller{Name: "test", Kind: "server"}, rand.Text(), c); err != nil {
			t.Fatalf("%v: %v", c, err)
		}
	}
}

func apply(objects ...*provisionrv1.Object) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{ApplyObjects: &raftlogv1.ApplyObjects{Objects: objects}}}
}

func poolObject(name string, spec *provisionrv1.PoolSpec) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Pool{Pool: &provisionrv1.Pool{
		ApiVersion: "provisionr/v1", Kind: "Pool", Metadata: &provisionrv1.Metadata{Name: name}, Spec: spec,
	}}}
}

func named(name string) *provisionrv1.Metadata { return &provisionrv1.Metadata{Name: name} }

// newLog makes a cluster with one member, a network, and a pool zk of three.
func newLog(t testing.TB) *log {
	t.Helper()
	store := state.New()
	l := &log{store: store, fsm: fsm.New(store, fsm.Level, slog.New(slog.DiscardHandler))}
	l.must(t,
		&raftlogv1.Command{Kind: &raftlogv1.Command_InitCluster{InitCluster: &raftlogv1.InitCluster{
			Cluster: &provisionrv1.Cluster{Id: clusterID, Name: "test"},
			Objects: []*provisionrv1.Object{
				{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{ApiVersion: "provisionr/v1", Kind: "Zone", Metadata: named("default"), Spec: &provisionrv1.ZoneSpec{Domain: "p.internal"}}}},
				{Kind: &provisionrv1.Object_Provider{Provider: &provisionrv1.Provider{ApiVersion: "provisionr/v1", Kind: "Provider", Metadata: named("local"), Spec: &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Local{Local: &provisionrv1.LocalProvider{Owner: "s1"}}}}}},
				{Kind: &provisionrv1.Object_Network{Network: &provisionrv1.Network{ApiVersion: "provisionr/v1", Kind: "Network", Metadata: named("local"), Spec: &provisionrv1.NetworkSpec{
					Cidr: "10.88.0.0/24", Provider: "local", Managed: true, NtpServers: []string{"10.88.0.1"}, HttpProxy: "http://10.88.0.1:3142",
				}}}},
			},
		}}},
		&raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: &provisionrv1.Member{
			Metadata: named("s1"), FeatureLevel: 1, AgentAddress: "192.0.2.1:7444", DnsAddress: "0.0.0.0:5353", NetworkHosts: map[string]string{"local": "10.88.0.1"},
		}}}},
		apply(poolObject("zk", &provisionrv1.PoolSpec{Size: 3, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}})),
	)
	return l
}

// launch makes the machine of a slot, up to where it may join.
func (l *log) launch(t testing.TB, pool string, index uint32) (id string) {
	t.Helper()
	id = fmt.Sprintf("m-%s-%d", pool, index)
	l.must(t,
		&raftlogv1.Command{Kind: &raftlogv1.Command_CreateMachine{CreateMachine: &raftlogv1.CreateMachine{
			Id: id, Pool: pool, Index: index, PoolGeneration: l.store.Read().Pool(pool).GetMetadata().GetGeneration(),
		}}},
		&raftlogv1.Command{Kind: &raftlogv1.Command_BeginLaunch{BeginLaunch: &raftlogv1.BeginLaunch{
			Launch: &provisionrv1.LaunchRequest{MachineId: id, Attempt: 1}, Deadline: timestamppb.New(time.Now().Add(time.Hour)),
		}}},
	)
	return id
}

func (l *log) phase(t testing.TB, id string, to provisionrv1.Phase) {
	t.Helper()
	from := l.store.Read().Machine(id).GetStatus().GetPhase()
	l.must(t, &raftlogv1.Command{Kind: &raftlogv1.Command_SetPhase{SetPhase: &raftlogv1.SetPhase{Id: id, From: []provisionrv1.Phase{from}, To: to}}})
}

// authority signs with one key and knows one token for each machine and attempt.
type authority struct{ *pki.Authority }

func (a authority) Issue(id pki.ID, key crypto.PublicKey, ttl time.Duration) ([]byte, error) {
	cert, err := a.Authority.Issue(pki.Leaf{ID: id, Key: key, TTL: ttl}, time.Now())
	if err != nil {
		return nil, err
	}
	return pki.EncodeCerts(cert, a.Cert), nil
}

func (a authority) RootsPEM() []byte { return pki.EncodeCerts(a.Cert) }

func (a authority) roots() []*x509.Certificate { return []*x509.Certificate{a.Cert} }

func token(id string, attempt uint32) string { return fmt.Sprintf("token of %s %d", id, attempt) }

func (a authority) CheckMachineToken(id string, attempt uint32, shown string) error {
	if shown != token(id, attempt) {
		return errs.New(errs.Unauthenticated, "not the token: %s", shown)
	}
	return nil
}

// member is a hub on loopback with real TLS.
type member struct {
	*Hub
	log     *log
	ca      authority
	address string
	records *records
}

// records keeps what was logged.
type records struct {
	mu   sync.Mutex
	text string
}

func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text += string(p)
	return len(p), nil
}

func (r *records) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text
}

func start(t testing.TB, edit func(*Config)) *member {
	t.Helper()
	// Certificates that ended long ago were issued by an authority that was older still.
	ca, err := pki.NewAuthority(clusterID, time.Now().Add(-100*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	m := &member{log: newLog(t), ca: authority{ca}, records: &records{}}
	cfg := Config{
		Member: "s1", Cluster: clusterID, State: m.log.store, Consensus: m.log, Tokens: m.ca, Authority: m.ca,
		Logger: slog.New(slog.NewTextHandler(m.records, nil)), PushInterval: time.Millisecond, ReportInterval: time.Millisecond,
	}
	if edit != nil {
		edit(&cfg)
	}
	if m.Hub, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	own := m.certificate(t, pki.ID{Cluster: clusterID, Kind: pki.Server, Name: "s1"}, nil, time.Hour)
	config, err := pki.ServerTLS(pki.ServerConfig{
		Certificate: func() (*tls.Certificate, error) { return own, nil }, Roots: m.ca.roots, Cluster: clusterID,
		Clients: []pki.Kind{pki.Agent}, Optional: true, ExpiredGrace: RenewGrace, Protocols: []string{"h2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.address = listener.Addr().String()
	server := grpc.NewServer(ServerOptions(TransportConfig{TLS: config})...)
	m.Register(server)
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = server.Serve(listener) })
	group.Go(func() { _ = m.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		server.Stop()
		group.Wait()
	})
	return m
}

// certificate makes a certificate for an identity; a nil key is made.
func (m *member) certificate(t testing.TB, id pki.ID, key *ecdsa.PrivateKey, ttl time.Duration) *tls.Certificate {
	t.Helper()
	var err error
	if key == nil {
		if key, err = pki.NewKey(); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	if ttl < 0 {
		now, ttl = now.Add(ttl-time.Hour), time.Hour
	}
	cert, err := m.ca.Authority.Issue(pki.Leaf{ID: id, Key: key.Public(), TTL: ttl}, now)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw, m.ca.Cert.Raw}, PrivateKey: key, Leaf: cert}
}

// dial connects from an address of loopback, with a certificate or none.
func (m *member) dial(t testing.TB, cert *tls.Certificate, from string) agentv1.AgentServiceClient {
	t.Helper()
	client := pki.ClientConfig{Roots: m.ca.roots, Cluster: clusterID, Protocols: []string{"h2"}}
	if cert != nil {
		client.Certificate = func() (*tls.Certificate, error) { return cert, nil }
	}
	config, err := pki.ClientTLS(client)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+m.address, grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			return d.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return agentv1.NewAgentServiceClient(conn)
}

// agent is a machine's side of a session.
type agent struct {
	t    testing.TB
	id   string
	key  *ecdsa.PrivateKey
	cert *tls.Certificate
	// program is the hash of its program.
	program []byte
	stream  agentv1.AgentService_SessionClient
}

// join joins a machine with a new key.
func (m *member) join(t testing.TB, id string) *agent {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{t: t, id: id, key: key}
	resp, err := m.joinWith(t, id, token(id, 1), key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = pki.TLSCertificate(resp.GetCertificate(), key); err != nil {
		t.Fatal(err)
	}
	return a
}

func (m *member) joinWith(t testing.TB, id, shown string, key *ecdsa.PrivateKey) (*agentv1.JoinResponse, error) {
	t.Helper()
	csr, err := pki.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := m.dial(t, nil, "127.0.0.1").Join(t.Context(), &agentv1.JoinRequest{MachineId: id, Token: shown, Attempt: 1, Csr: csr})
	return resp, errs.FromRPC(err)
}

// connect opens a session and reads the welcome.
func (a *agent) connect(m *member, from, boot string, have ...[]byte) (*agentv1.Welcome, error) {
	a.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a.t.Cleanup(cancel)
	stream, err := m.dial(a.t, a.cert, from).Session(ctx)
	if err != nil {
		return nil, errs.FromRPC(err)
	}
	a.stream = stream
	a.say(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Hello{Hello: &agentv1.Hello{AgentVersion: "1.0", BootId: boot, Have: have, Program: a.program}}})
	first, err := stream.Recv()
	if err != nil {
		return nil, errs.FromRPC(err)
	}
	return first.GetWelcome(), nil
}

func (a *agent) mustConnect(m *member) {
	a.t.Helper()
	if w, err := a.connect(m, "127.0.0.1", "boot-1"); err != nil || w == nil {
		a.t.Fatalf("welcome %v, error %v", w, err)
	}
}

func (a *agent) say(m *agentv1.AgentMessage) {
	a.t.Helper()
	// Where sending fails, receiving tells why.
	_ = a.stream.Send(m)
}

// hear returns the next message that is of a wanted kind.
func (a *agent) hear(want func(*agentv1.ServerMessage) bool) *agentv1.ServerMessage {
	a.t.Helper()
	for {
		m, err := a.stream.Recv()
		if err != nil {
			a.t.Fatalf("session ended: %v", err)
		}
		if want(m) {
			return m
		}
	}
}

func (a *agent) hearDesired() *agentv1.Desired {
	a.t.Helper()
	return a.hear(func(m *agentv1.ServerMessage) bool { return m.GetDesired() != nil }).GetDesired()
}

// end reads until the session ends and returns why.
func (a *agent) end() error {
	for {
		if _, err := a.stream.Recv(); err != nil {
			return errs.FromRPC(err)
		}
	}
}

// eventually waits for a condition of the state, which is looked at after each change.
func (m *member) eventually(t testing.TB, what string, holds func(*state.Snapshot) bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		changed := m.log.store.Watch()
		if holds(m.log.store.Read()) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

func reasons(s *state.Snapshot) []string {
	var out []string
	for e := range s.Events(0) {
		out = append(out, e.GetReason())
	}
	return slices.Compact(out)
}
