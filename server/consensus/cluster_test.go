package consensus_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/consensus"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/member"
	"github.com/provisionr/provisionr/server/state"
)

// authority signs the certificates of a test's members.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{key: key, cert: cert, pool: pool}
}

func (a *authority) issue(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// network connects the members of a test over loopback and can cut members off.
type network struct {
	mu    sync.Mutex
	names map[string]string // address to member
	cut   map[string]bool
	conns map[net.Conn][2]string
}

func newNetwork() *network {
	return &network{names: map[string]string{}, cut: map[string]bool{}, conns: map[net.Conn][2]string{}}
}

// isolate cuts a member off from all others, or joins it again. Connections that are open die.
func (n *network) isolate(name string, off bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[name] = off
	for conn, ends := range n.conns {
		if n.cut[ends[0]] || n.cut[ends[1]] {
			_ = conn.Close()
			delete(n.conns, conn)
		}
	}
}

func (n *network) nameAt(address string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.names[address]
}

func (n *network) dialer(from string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, proto, address string) (net.Conn, error) {
		n.mu.Lock()
		to := n.names[address]
		off := n.cut[from] || n.cut[to]
		n.mu.Unlock()
		if off {
			return nil, errors.New("the network is partitioned")
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, proto, address)
		if err != nil {
			return nil, err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.cut[from] || n.cut[to] {
			_ = conn.Close()
		}
		n.conns[conn] = [2]string{from, to}
		return conn, nil
	}
}

type cluster struct {
	t       testing.TB
	ca      *authority
	net     *network
	servers []*server
	tune    func(*consensus.Config)
}

// newCluster starts members; the first is bootstrapped and initialised, the others are added to it.
func newCluster(t testing.TB, size int) *cluster {
	t.Helper()
	c := &cluster{t: t, ca: newAuthority(t), net: newNetwork()}
	c.run(size)
	return c
}

func (c *cluster) run(size int) {
	t := c.t
	t.Helper()
	for i := range size {
		c.servers = append(c.servers, &server{t: t, c: c, name: fmt.Sprintf("s%d", i+1), dir: filepath.Join(t.TempDir(), "raft")})
	}
	for _, s := range c.servers {
		s.start()
	}
	t.Cleanup(func() {
		for _, s := range c.servers {
			s.stop()
		}
	})
	first := c.servers[0]
	if err := first.node.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	first.do("init", &raftlogv1.Command{Kind: &raftlogv1.Command_InitCluster{InitCluster: &raftlogv1.InitCluster{
		Cluster: &provisionrv1.Cluster{Id: "c-1", Name: "test"},
		Objects: []*provisionrv1.Object{
			{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{
				Metadata: &provisionrv1.Metadata{Name: "default"}, Spec: &provisionrv1.ZoneSpec{Domain: "provisionr.internal"}}}},
			{Kind: &provisionrv1.Object_Provider{Provider: &provisionrv1.Provider{
				Metadata: &provisionrv1.Metadata{Name: "local"},
				Spec:     &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Local{Local: &provisionrv1.LocalProvider{Owner: "s1"}}}}}},
			pool("p0"), pool("p1"), pool("p2"),
		},
	}}})
	for _, s := range c.servers[1:] {
		if err := first.node.AddMember(t.Context(), s.name, s.addr); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range c.servers {
		c.eventually("every member votes", func() bool { return s.node.Status().GetVoter() && s.node.Leader() != "" })
	}
}

func pool(name string) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Pool{Pool: &provisionrv1.Pool{
		Metadata: &provisionrv1.Metadata{Name: name}, Spec: &provisionrv1.PoolSpec{}}}}
}

// eventually waits for a condition that other goroutines bring about.
func (c *cluster) eventually(what string, holds func() bool) {
	c.t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Fatalf("not in time: %s", what)
		}
	}
}

func (c *cluster) leader() *server {
	c.t.Helper()
	var leader *server
	c.eventually("a leader", func() bool {
		for _, s := range c.servers {
			if s.node != nil && s.node.IsLeader() && s.node.VerifyLeader(c.t.Context()) == nil {
				leader = s
				return true
			}
		}
		return false
	})
	return leader
}

func (c *cluster) followers() []*server {
	leader := c.leader()
	var followers []*server
	for _, s := range c.servers {
		if s != leader && s.node != nil {
			followers = append(followers, s)
		}
	}
	return followers
}

// server is one member of a test.
type server struct {
	t     testing.TB
	c     *cluster
	name  string
	addr  string
	dir   string
	store *state.Store
	node  *consensus.Node
	fatal chan error

	listener *member.Listener
	conns    *member.Conns
	grpc     *grpc.Server
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

// start opens the member; its address stays the same after a restart.
func (s *server) start() {
	s.t.Helper()
	if err := s.open(); err != nil {
		s.t.Fatalf("start %s: %v", s.name, err)
	}
}

func (s *server) open() error {
	s.t.Helper()
	bind := s.addr
	if bind == "" {
		bind = "127.0.0.1:0"
	}
	inner, err := net.Listen("tcp", bind)
	if err != nil {
		return err
	}
	s.c.net.mu.Lock()
	s.addr = inner.Addr().String()
	s.c.net.names[s.addr] = s.name
	s.c.net.mu.Unlock()
	cert := s.c.ca.issue(s.t, s.name)
	log := slog.New(slog.DiscardHandler)
	s.listener, err = member.NewListener(member.ListenerConfig{Inner: inner, Logger: log, TLS: func() (*tls.Config, error) {
		return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientCAs: s.c.ca.pool, ClientAuth: tls.RequireAndVerifyClientCert}, nil
	}})
	if err != nil {
		return err
	}
	s.conns, err = member.NewConns(member.ConnsConfig{
		Address: s.c.address, Dial: s.c.net.dialer(s.name),
		TLS: func(name, _ string) (*tls.Config, error) {
			return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: s.c.ca.pool, ServerName: name}, nil
		},
	})
	if err != nil {
		return err
	}
	s.store = state.New()
	s.fatal = make(chan error, 1)
	config := consensus.Config{
		Name: s.name, Address: s.addr, DataDir: s.dir, Listener: s.listener.Raft(), Conns: s.conns, Store: s.store,
		Dial: func(ctx context.Context, name, address string) (net.Conn, error) {
			if name == "" {
				name = s.c.net.nameAt(address)
			}
			return s.conns.DialRaft(ctx, name, address)
		},
		FSM: fsm.New(s.store, fsm.Level, log), Logger: log, Fatal: func(err error) { s.fatal <- err },
		HeartbeatTimeout: 150 * time.Millisecond, ElectionTimeout: 150 * time.Millisecond, LeaseTimeout: 100 * time.Millisecond, MinFree: 1 << 20,
	}
	if s.c.tune != nil {
		s.c.tune(&config)
	}
	node, err := consensus.Open(config)
	if err != nil {
		_ = s.listener.Close()
		return err
	}
	s.node = node
	s.grpc = member.NewServer(member.NewService(node, nil))
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.wg.Go(func() { _ = s.listener.Run(ctx) })
	s.wg.Go(func() { _ = s.grpc.Serve(s.listener.GRPC()) })
	return nil
}

func (c *cluster) address(name string) string {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for _, s := range c.servers {
		if s.name == name {
			return s.addr
		}
	}
	return ""
}

// stop ends the member without a word to the others: its connections die first.
func (s *server) stop() {
	if s.node == nil {
		return
	}
	s.c.net.isolate(s.name, true)
	s.cancel()
	s.grpc.Stop()
	_ = s.conns.Close()
	if err := s.node.Close(); err != nil {
		s.t.Errorf("close %s: %v", s.name, err)
	}
	s.wg.Wait()
	s.node = nil
	s.c.net.isolate(s.name, false)
}

func (s *server) do(id string, cmd *raftlogv1.Command) *provisionrv1.Version {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	v, err := s.node.Do(ctx, &provisionrv1.Caller{Name: "tester", Kind: "user"}, id, cmd)
	if err != nil {
		s.t.Fatalf("do %s at %s: %v", id, s.name, err)
	}
	return v
}

func scale(pool string, size uint32) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_ScalePool{ScalePool: &raftlogv1.ScalePool{Name: pool, Size: size}}}
}

func (s *server) size(pool string) uint32 { return s.store.Read().Pool(pool).GetSpec().GetSize() }
