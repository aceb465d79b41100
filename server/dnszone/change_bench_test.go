package dnszone_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/provisionr/provisionr/dnsserver"
	"github.com/provisionr/provisionr/dnsserver/zone"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/consensus"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/member"
	"github.com/provisionr/provisionr/server/state"
)

const (
	// changedHosts is as many as a cluster takes: fsm.MaxMachines.
	changedHosts    = fsm.MaxMachines
	changedPoolSize = 10000
	// changesPerSecond are made while the time to their answers is measured.
	changesPerSecond = 100
	// changeable machines are launched, so that they can become ready: each once.
	changeable = 4000
)

// BenchmarkChange measures how long it takes until a machine that becomes ready, at an address that was not known before, is
// answered by each of three members, forward and reverse, with as many hosts as a cluster takes and 100 such changes a second.
// Raft, state, publisher and DNS server are the real ones, in one process; only TLS between members is left out.
func BenchmarkChange(b *testing.B) {
	members := startMembers(b, 3)
	leader := members[0]
	for _, m := range members {
		m.serve(b)
	}
	next := 0
	b.Run(fmt.Sprintf("%d-hosts", changedHosts), func(b *testing.B) {
		if next+b.N > changeable {
			b.Fatalf("%d changes are more than there are machines for", next+b.N)
		}
		var group sync.WaitGroup
		var mu sync.Mutex
		var committed, proposed []time.Duration
		tick := time.NewTicker(time.Second / changesPerSecond)
		defer tick.Stop()
		for range b.N {
			change := newChange(next)
			next++
			<-tick.C
			group.Go(func() {
				begin := time.Now()
				seen := make([]time.Time, len(members))
				var servers sync.WaitGroup
				for i, m := range members {
					servers.Go(func() { seen[i] = change.await(b, m.names.Addr()) })
				}
				_, err := leader.node.Do(b.Context(), &provisionrv1.Caller{Name: "bench", Kind: "user"}, "", change.command())
				commit := time.Now()
				servers.Wait()
				if err != nil {
					b.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, at := range seen {
					committed, proposed = append(committed, max(at.Sub(commit), 0)), append(proposed, at.Sub(begin))
				}
			})
		}
		group.Wait()
		for _, of := range []struct {
			times []time.Duration
			since string
		}{{committed, "commit"}, {proposed, "proposal"}} {
			slices.Sort(of.times)
			b.ReportMetric(of.times[len(of.times)/2].Seconds()*1000, "ms-after-"+of.since+"-p50")
			b.ReportMetric(of.times[len(of.times)*99/100].Seconds()*1000, "ms-after-"+of.since+"-p99")
		}
	})
}

// change makes one machine ready at a new address.
type change struct {
	id, slot string
	address  netip.Addr
}

func hostOf(i int) (id, pool string, index uint32) {
	return fmt.Sprintf("m-%d", i), fmt.Sprintf("pool%d", i/changedPoolSize), uint32(i%changedPoolSize + 1)
}

func hostAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// newChange is of the i-th launched machine: they are spread over all pools.
func newChange(i int) change {
	i *= changedHosts / changeable
	id, pool, index := hostOf(i)
	return change{id: id, slot: fmt.Sprintf("%s-%d", pool, index), address: hostAddress(i + 1<<17)}
}

func (c change) command() *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_SetPhase{SetPhase: &raftlogv1.SetPhase{
		Id: c.id, From: []provisionrv1.Phase{provisionrv1.Phase_PHASE_LAUNCHING}, To: provisionrv1.Phase_PHASE_READY, Address: c.address.String()}}}
}

// await asks a server for the machine's name, every millisecond, until it answers the new address, and then at once for the
// address's name: both are of one version.
func (c change) await(b *testing.B, server netip.AddrPort) time.Time {
	conn, err := net.Dial("udp", server.String())
	if err != nil {
		b.Error(err)
		return time.Now()
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		b.Error(err)
	}
	ask := func(name string, qtype byte) []byte {
		answer := make([]byte, 1500)
		if _, err := conn.Write(question(name, qtype)); err != nil {
			b.Error(err)
			return nil
		}
		n, err := conn.Read(answer)
		if err != nil {
			b.Error(err)
		}
		return answer[:n]
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !bytes.HasSuffix(ask(c.slot+".p.internal.", 1), c.address.AsSlice()) {
		if b.Failed() {
			return time.Now()
		}
		<-tick.C
	}
	at := time.Now()
	if !bytes.Contains(ask(zone.ReverseName(c.address), 12), []byte(c.slot)) {
		b.Errorf("%s answers %s for %s but has no pointer back", server, c.address, c.slot)
	}
	return at
}

func question(name string, qtype byte) []byte {
	q := []byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, 0, qtype, 0, 1)
}

// manyHosts is a snapshot of a cluster with all hosts: machines with an address, of which those to be changed are launched.
func manyHosts(b *testing.B) *bytes.Buffer {
	version := &provisionrv1.Version{Incarnation: 1, Index: 1}
	named := func(name string) *provisionrv1.Metadata { return &provisionrv1.Metadata{Name: name, Version: version} }
	store := state.New()
	tx := store.Begin()
	tx.PutCluster(&provisionrv1.Cluster{Id: "c-1", Name: "bench", FeatureLevel: fsm.Level, Incarnation: 1, ZoneIndex: 1, DefaultZone: "default"})
	tx.Put(&provisionrv1.Zone{Metadata: named("default"), Spec: &provisionrv1.ZoneSpec{Domain: "p.internal"}})
	tx.Put(&provisionrv1.Network{Metadata: named("local"), Spec: &provisionrv1.NetworkSpec{Cidr: "10.0.0.0/13", Provider: "local"}})
	for i := range changedHosts {
		id, pool, index := hostOf(i)
		if index == 1 {
			tx.Put(&provisionrv1.Pool{Metadata: named(pool), Spec: &provisionrv1.PoolSpec{Size: changedPoolSize}})
		}
		slot, address := fmt.Sprintf("%s-%d", pool, index), hostAddress(i+1).String()
		status := &provisionrv1.MachineStatus{Phase: provisionrv1.Phase_PHASE_PENDING, Address: address}
		if i%(changedHosts/changeable) == 0 {
			status.Phase, status.Attempt = provisionrv1.Phase_PHASE_LAUNCHING, 1
		}
		tx.Put(&provisionrv1.Machine{Metadata: named(id), Status: status, Spec: &provisionrv1.MachineSpec{
			Pool: pool, Slot: slot, Index: index, Provider: "local", Network: "local", Zone: "default", Fqdn: slot + ".p.internal"}})
		tx.Put(&provisionrv1.Slot{Metadata: named(slot), Pool: pool, Index: index, Holder: id, Fqdn: slot + ".p.internal"})
		tx.Put(&provisionrv1.AddressClaim{Metadata: named("local/" + address), Network: "local", Address: address, Machine: id})
	}
	tx.SetVersion(version)
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	store.Publish()
	var saved bytes.Buffer
	if err := store.Read().Save(&saved); err != nil {
		b.Fatal(err)
	}
	return &saved
}

// benchMember is one member: Raft, state and DNS.
type benchMember struct {
	name, raft, rpc string
	store           *state.Store
	node            *consensus.Node
	names           *dnsserver.Server
}

// benchConns connects members by name, without TLS.
type benchConns map[string]*grpc.ClientConn

func (c benchConns) Conn(_ context.Context, name string) (*grpc.ClientConn, error) {
	return c[name], nil
}

// startMembers starts members of which the first leads, with all hosts.
func startMembers(b *testing.B, count int) []*benchMember {
	conns, members := benchConns{}, make([]*benchMember, count)
	for i := range members {
		members[i] = newBenchMember(b, fmt.Sprintf("s%d", i+1), conns)
	}
	leader := members[0].node
	if err := leader.Bootstrap(); err != nil {
		b.Fatal(err)
	}
	eventually(b, "the first member leads", leader.IsLeader)
	if _, err := leader.RestoreLocal(b.Context(), manyHosts(b)); err != nil {
		b.Fatal(err)
	}
	for _, m := range members[1:] {
		if err := leader.AddMember(b.Context(), m.name, m.raft); err != nil {
			b.Fatal(err)
		}
	}
	for _, m := range members {
		eventually(b, "every member votes", func() bool { return m.node.Status().GetVoter() })
	}
	return members
}

func newBenchMember(b *testing.B, name string, conns benchConns) *benchMember {
	m := &benchMember{name: name, store: state.New()}
	var listeners [2]net.Listener
	for i := range listeners {
		var err error
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			b.Fatal(err)
		}
	}
	m.raft, m.rpc = listeners[0].Addr().String(), listeners[1].Addr().String()
	log := slog.New(slog.DiscardHandler)
	var err error
	m.node, err = consensus.Open(consensus.Config{
		Name: name, Address: m.raft, DataDir: b.TempDir(), Listener: listeners[0], Conns: conns, Store: m.store, FSM: fsm.New(m.store, fsm.Level, log),
		Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		},
		Logger: log, Fatal: func(err error) { b.Errorf("%s: %v", name, err) },
		// One process has all members and all their garbage: the host may be slow without being dead.
		HeartbeatTimeout: 5 * time.Second, ElectionTimeout: 5 * time.Second, LeaseTimeout: 5 * time.Second,
	})
	if err != nil {
		b.Fatal(err)
	}
	rpc := grpc.NewServer()
	memberv1.RegisterMemberServiceServer(rpc, member.NewService(m.node, nil))
	conns[name], err = grpc.NewClient(m.rpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() { _ = rpc.Serve(listeners[1]) })
	b.Cleanup(func() {
		rpc.Stop()
		group.Wait()
		_ = conns[name].Close()
		if err := m.node.Close(); err != nil {
			b.Errorf("close %s: %v", name, err)
		}
	})
	return m
}

// serve publishes the state of a member, which has all hosts, and answers from it.
func (m *benchMember) serve(b *testing.B) {
	eventually(b, "every member has all hosts", func() bool { return m.store.Read().MachineCount() == changedHosts })
	log := slog.New(slog.DiscardHandler)
	var err error
	if m.names, err = dnsserver.New(dnsserver.Config{Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Logger: log}); err != nil {
		b.Fatal(err)
	}
	publisher, err := dnszone.NewPublisher(dnszone.PublisherConfig{State: m.store, Answers: m.names, Logger: log})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var group sync.WaitGroup
	group.Go(func() { _ = m.names.Run(ctx) })
	group.Go(func() { _ = publisher.Run(ctx) })
	b.Cleanup(func() {
		cancel()
		group.Wait()
	})
	<-m.names.Ready()
	eventually(b, "the zones are published", func() bool { return m.names.Current() != nil })
}

// eventually waits for a condition that other goroutines bring about.
func eventually(b *testing.B, what string, holds func() bool) {
	b.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			b.Fatalf("not in time: %s", what)
		}
	}
}
