package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/auth"
	"github.com/provisionr/provisionr/server/ca"
	"github.com/provisionr/provisionr/server/console"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/seal"
	"github.com/provisionr/provisionr/server/state"
)

// cluster is one server's API over a real state and FSM, with a log that commits at once.
type cluster struct {
	t     *testing.T
	store *state.Store
	fsm   *fsm.FSM
	log   lockedBuffer

	mu    sync.Mutex
	index uint64

	id        string
	authority *ca.CA
	root      []*x509.Certificate
	agents    fakeAgents
	clouds    fakeClouds
	removed   []string
	// mayNotReboot is why no machine may.
	mayNotReboot error
	url          string
	addr         string
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Do commits a command.
func (c *cluster) Do(_ context.Context, caller *provisionrv1.Caller, id string, cmd *raftlogv1.Command) (*provisionrv1.Version, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry, err := proto.Marshal(&raftlogv1.Entry{Requests: []*raftlogv1.Request{{
		Id: id, Time: timestamppb.Now(), Caller: caller, FeatureLevel: fsm.Level, Command: cmd,
	}}})
	if err != nil {
		return nil, err
	}
	c.index++
	results := c.fsm.Apply(c.index, entry)
	if len(results) != 1 {
		return nil, errors.New("the FSM stopped")
	}
	if results[0].Err != nil {
		return nil, results[0].Err
	}
	return results[0].Version, nil
}

func (c *cluster) Sync(ctx context.Context, _ provisionrv1.Consistency) error { return ctx.Err() }
func (c *cluster) Leader() string                                             { return "a" }
func (c *cluster) Members(context.Context) ([]*provisionrv1.MemberStatus, error) {
	return []*provisionrv1.MemberStatus{{Member: c.store.Read().Member("a"), Leader: true}}, nil
}
func (c *cluster) RemoveMember(_ context.Context, name string) error {
	c.removed = append(c.removed, name)
	return nil
}
func (c *cluster) SaveSnapshot(w io.Writer) error {
	_, err := w.Write(bytes.Repeat([]byte("snapshot"), 30000))
	return err
}
func (c *cluster) RestoreSnapshot(_ context.Context, r io.Reader) error {
	data, err := io.ReadAll(r)
	c.removed = append(c.removed, string(data[:min(8, len(data))]))
	return err
}
func (c *cluster) Console(context.Context, *provisionrv1.Machine) (string, error) {
	return strings.Repeat("boot\xff ok ", 20000), nil
}

type fakeAgents struct {
	exec   func(ctx context.Context, slot string, send func(*provisionrv1.ExecResponse) error) error
	verify func(ctx context.Context, machine string) error
	ask    func(ctx context.Context, machine string, ask *agentv1.Ask) (*agentv1.Answer, error)
}

func (f *fakeAgents) Ask(ctx context.Context, id string, ask *agentv1.Ask) (*agentv1.Answer, error) {
	return f.ask(ctx, id, ask)
}

func (f *fakeAgents) Exec(ctx context.Context, _, slot string, _ *provisionrv1.ExecRequest, send func(*provisionrv1.ExecResponse) error) error {
	return f.exec(ctx, slot, send)
}
func (f *fakeAgents) Verify(ctx context.Context, id string) error { return f.verify(ctx, id) }

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, store: state.New()}
	logger := slog.New(slog.NewTextHandler(&c.log, nil))
	c.fsm = fsm.New(c.store, fsm.Level, slog.New(slog.DiscardHandler))
	sealing, err := seal.NewMemberKey()
	c.ok(err)
	identity, err := pki.OpenStore(t.TempDir())
	c.ok(err)
	m, err := ca.Bootstrap(ca.BootstrapConfig{
		Cluster: &provisionrv1.Cluster{Name: "test", FeatureLevel: fsm.Level},
		Objects: firstObjects(),
		Member: &provisionrv1.Member{
			Metadata: &provisionrv1.Metadata{Name: "a"}, SealingKey: sealing.Public(), FeatureLevel: fsm.Level, RaftAddress: "127.0.0.1:7445",
		},
		ServerKey: &identity.Key().PublicKey, Hosts: []string{"127.0.0.1"}, Now: time.Now(),
	})
	c.ok(err)
	c.ok(identity.Put(m.Certificate, m.Roots))
	c.id, c.root = m.ClusterID, identity.Roots()
	for i, cmd := range m.Commands {
		_, err := c.Do(t.Context(), nil, "init-"+string(rune('a'+i)), cmd)
		c.ok(err)
	}
	c.authority, err = ca.New(ca.Config{State: func() ca.Records { return c.store.Read() }, Member: "a", Key: sealing})
	c.ok(err)
	door, err := auth.New(auth.Config{
		State: func() auth.Records { return c.store.Read() }, Roots: c.authority.Roots, Public: []string{JoinMethod}, Logger: logger,
	})
	c.ok(err)
	page, err := console.New()
	c.ok(err)
	api, err := New(Config{
		Proposer: c, Syncer: c, State: c.store, Door: door, Authority: c.authority, Raft: c, Archive: c, Agents: &c.agents, Consoles: c,
		Records:   func(*state.Snapshot) []*provisionrv1.Record { return nil },
		ZoneKeys:  fakeZoneKeys{},
		Providers: &c.clouds, Seed: anySeed, Adoption: anyAdoption, Firewall: anyFirewall,
		Future: c.future, Preview: preview, AgentProgram: agentProgram, MayReboot: c.mayReboot,
		Console: page, Version: "v0", Logger: logger,
	})
	c.ok(err)
	config, err := pki.ServerTLS(pki.ServerConfig{
		Certificate: identity.Certificate, Roots: c.authority.Roots, Cluster: c.id, Optional: true, Protocols: []string{"h2", "http/1.1"},
	})
	c.ok(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	c.ok(err)
	c.addr = listener.Addr().String()
	c.url = "https://" + c.addr
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- api.Run(ctx, listener, config) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c
}

func firstObjects() []*provisionrv1.Object {
	meta := func(name string) *provisionrv1.Metadata { return &provisionrv1.Metadata{Name: name} }
	return []*provisionrv1.Object{
		{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{
			ApiVersion: "provisionr/v1", Kind: "Zone", Metadata: meta("default"), Spec: &provisionrv1.ZoneSpec{Domain: "provisionr.internal", Ttl: 30},
		}}},
		{Kind: &provisionrv1.Object_Provider{Provider: &provisionrv1.Provider{
			ApiVersion: "provisionr/v1", Kind: "Provider", Metadata: meta("local"),
			Spec: &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Local{Local: &provisionrv1.LocalProvider{Owner: "a"}}},
		}}},
		{Kind: &provisionrv1.Object_Network{Network: &provisionrv1.Network{
			ApiVersion: "provisionr/v1", Kind: "Network", Metadata: meta("local"),
			Spec: &provisionrv1.NetworkSpec{Cidr: "10.88.0.0/24", Provider: "local", Gateway: "10.88.0.1", Managed: true},
		}}},
	}
}

func (c *cluster) ok(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// user commits a user.
func (c *cluster) user(name string, role provisionrv1.Role) {
	c.t.Helper()
	c.commit(&provisionrv1.Object{Kind: &provisionrv1.Object_User{User: &provisionrv1.User{
		ApiVersion: "provisionr/v1", Kind: "User", Metadata: &provisionrv1.Metadata{Name: name}, Spec: &provisionrv1.UserSpec{Role: role},
	}}})
}

func (c *cluster) commit(o *provisionrv1.Object) {
	c.t.Helper()
	_, err := c.Do(c.t.Context(), nil, newID(), &raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{
		ApplyObjects: &raftlogv1.ApplyObjects{Objects: []*provisionrv1.Object{o}, Uids: []string{newID()}},
	}})
	c.ok(err)
}

// machine commits a machine for a slot and returns its id.
func (c *cluster) machine(pool string, index uint32) string {
	c.t.Helper()
	id := "m-" + newID()[:16]
	_, err := c.Do(c.t.Context(), nil, newID(), &raftlogv1.Command{Kind: &raftlogv1.Command_CreateMachine{CreateMachine: &raftlogv1.CreateMachine{
		Id: id, Pool: pool, Index: index, PoolGeneration: c.store.Read().Pool(pool).GetMetadata().GetGeneration(),
	}}})
	c.ok(err)
	return id
}

func (c *cluster) phase(id string, from, to provisionrv1.Phase) {
	c.t.Helper()
	_, err := c.Do(c.t.Context(), nil, newID(), &raftlogv1.Command{Kind: &raftlogv1.Command_SetPhase{SetPhase: &raftlogv1.SetPhase{
		Id: id, From: []provisionrv1.Phase{from}, To: to,
	}}})
	c.ok(err)
}

// running commits a machine that has an agent.
func (c *cluster) running(pool string, index uint32) string {
	c.t.Helper()
	id := c.machine(pool, index)
	_, err := c.Do(c.t.Context(), nil, newID(), &raftlogv1.Command{Kind: &raftlogv1.Command_BeginLaunch{BeginLaunch: &raftlogv1.BeginLaunch{
		Launch: &provisionrv1.LaunchRequest{MachineId: id, Attempt: 1},
	}}})
	c.ok(err)
	c.phase(id, provisionrv1.Phase_PHASE_LAUNCHING, provisionrv1.Phase_PHASE_CONVERGING)
	return id
}

// cert issues a certificate for an identity of this cluster.
func (c *cluster) cert(kind pki.Kind, name string) *tls.Certificate {
	c.t.Helper()
	key, err := pki.NewKey()
	c.ok(err)
	chain, err := c.authority.Issue(pki.ID{Cluster: c.id, Kind: kind, Name: name}, &key.PublicKey, time.Hour)
	c.ok(err)
	cert, err := pki.TLSCertificate(chain, key)
	c.ok(err)
	return cert
}

func (c *cluster) clientTLS(cert *tls.Certificate, protocols ...string) *tls.Config {
	c.t.Helper()
	config := pki.ClientConfig{Roots: func() []*x509.Certificate { return c.root }, Protocols: protocols}
	if cert != nil {
		config.Certificate = func() (*tls.Certificate, error) { return cert, nil }
	}
	out, err := pki.ClientTLS(config)
	c.ok(err)
	return out
}

// dial returns a gRPC connection with a certificate or none.
func (c *cluster) dial(cert *tls.Certificate) *grpc.ClientConn {
	c.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+c.addr, grpc.WithTransportCredentials(credentials.NewTLS(c.clientTLS(cert, "h2"))))
	c.ok(err)
	c.t.Cleanup(func() { conn.Close() })
	return conn
}

// as returns a connection of a user with a role, who is made where missing.
func (c *cluster) as(role provisionrv1.Role) *grpc.ClientConn {
	c.t.Helper()
	name := strings.ToLower(strings.TrimPrefix(role.String(), "ROLE_"))
	if c.store.Read().User(name) == nil {
		c.user(name, role)
	}
	return c.dial(c.cert(pki.User, name))
}

const (
	viewer   = provisionrv1.Role_ROLE_VIEWER
	operator = provisionrv1.Role_ROLE_OPERATOR
	admin    = provisionrv1.Role_ROLE_ADMIN
)

// web is a REST client with a certificate or none.
func (c *cluster) web(cert *tls.Certificate) *http.Client {
	c.t.Helper()
	transport := &http.Transport{TLSClientConfig: c.clientTLS(cert, "h2", "http/1.1"), ForceAttemptHTTP2: true}
	c.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// request does a REST call and returns status and body.
func (c *cluster) request(client *http.Client, method, path, body string, header ...string) (int, []byte) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(body))
	c.ok(err)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(r)
	c.ok(err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	c.ok(err)
	return resp.StatusCode, data
}

// failure reads the body of a REST call that failed.
func (c *cluster) failure(data []byte) auth.Body {
	c.t.Helper()
	var b auth.Body
	if err := json.Unmarshal(data, &b); err != nil {
		c.t.Fatalf("%v: %s", err, data)
	}
	return b
}

func (c *cluster) decode(data []byte, into proto.Message) {
	c.t.Helper()
	if err := protojson.Unmarshal(data, into); err != nil {
		c.t.Fatalf("%v: %s", err, data)
	}
}

func pool(name string, size uint32) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Pool{Pool: &provisionrv1.Pool{
		ApiVersion: "provisionr/v1", Kind: "Pool", Metadata: &provisionrv1.Metadata{Name: name},
		Spec: &provisionrv1.PoolSpec{Size: size, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}},
	}}}
}
