package cli_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	"github.com/provisionr/provisionr/internal/spec"
)

// fake is a server of the API with just enough behaviour to show the command line at work: pools that are applied get
// machines which go through their phases, one step per look.
type fake struct {
	provisionrv1.UnimplementedManifestServiceServer
	provisionrv1.UnimplementedPoolServiceServer
	provisionrv1.UnimplementedMachineServiceServer
	provisionrv1.UnimplementedInfraServiceServer
	provisionrv1.UnimplementedEventServiceServer
	provisionrv1.UnimplementedWatchServiceServer
	provisionrv1.UnimplementedClusterServiceServer
	provisionrv1.UnimplementedAccessServiceServer

	vault
	authority *pki.Authority
	address   string

	mu       sync.Mutex
	index    uint64
	pools    map[string]*provisionrv1.Pool
	machines map[string]*provisionrv1.Machine
	snapshot []byte
	zoneKeys []*provisionrv1.ZoneKeyInfo
}

const clusterID = "c-test"

func newFake(t *testing.T) *fake {
	t.Helper()
	now := time.Now()
	authority, err := pki.NewAuthority(clusterID, now)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{vault: newVault(), zoneKeys: []*provisionrv1.ZoneKeyInfo{zoneKey(1111, "active", "signs")}, authority: authority, index: 1, pools: map[string]*provisionrv1.Pool{}, machines: map[string]*provisionrv1.Machine{}, snapshot: []byte("state")}
	key, chain := f.leaf(t, pki.Server, "s1")
	certificate, err := pki.TLSCertificate(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	config, err := pki.ServerTLS(pki.ServerConfig{
		Certificate: func() (*tls.Certificate, error) { return certificate, nil },
		Roots:       func() []*x509.Certificate { return []*x509.Certificate{authority.Cert} },
		Cluster:     clusterID, Clients: []pki.Kind{pki.User}, Optional: true, Protocols: []string{"h2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = listener.Addr().String()
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	provisionrv1.RegisterManifestServiceServer(server, f)
	provisionrv1.RegisterPoolServiceServer(server, f)
	provisionrv1.RegisterMachineServiceServer(server, f)
	provisionrv1.RegisterInfraServiceServer(server, f)
	provisionrv1.RegisterEventServiceServer(server, f)
	provisionrv1.RegisterWatchServiceServer(server, f)
	provisionrv1.RegisterClusterServiceServer(server, f)
	provisionrv1.RegisterAccessServiceServer(server, f)
	provisionrv1.RegisterVpnServiceServer(server, f)
	provisionrv1.RegisterSecretServiceServer(server, f)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fake) leaf(t *testing.T, kind pki.Kind, name string) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := f.authority.Issue(pki.Leaf{ID: pki.ID{Cluster: clusterID, Kind: kind, Name: name}, Key: &key.PublicKey, TTL: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return key, pki.EncodeCerts(cert)
}

func (f *fake) version() *provisionrv1.Version {
	return &provisionrv1.Version{Incarnation: 1, Index: f.index}
}

func (f *fake) changes(objects []*provisionrv1.Object) []*provisionrv1.Change {
	var out []*provisionrv1.Change
	for _, o := range objects {
		c := &provisionrv1.Change{Action: "create", Kind: spec.KindOf(o), Name: spec.Name(o)}
		after := proto.CloneOf(o)
		spec.Default(after)
		var before *provisionrv1.Object
		if p := f.pools[spec.Name(o)]; p != nil {
			c.Action, before = "update", &provisionrv1.Object{Kind: &provisionrv1.Object_Pool{Pool: p}}
		}
		if o.GetPool() != nil {
			c.Provider = []string{"image: debian-12 (img-1)", "firewall: + allow tcp 22 from any"}
			if o.GetPool().GetSpec().GetSpot().GetMaxPrice() == "0.001" {
				c.Errors = []string{"provider amazon: 32 cpus allowed, 30 used, 6 needed"}
			}
		}
		c.Fields = spec.Diff(before, after)
		switch {
		case before != nil && len(c.Fields) == 0:
			c.Action = "none"
		case before == nil:
			for i := range o.GetPool().GetSpec().GetSize() {
				c.Machines = append(c.Machines, fmt.Sprintf("create %s-%d", c.Name, i+1))
			}
		}
		out = append(out, c)
	}
	return out
}

func (f *fake) Plan(_ context.Context, r *provisionrv1.PlanRequest) (*provisionrv1.PlanResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &provisionrv1.PlanResponse{Changes: f.changes(r.Objects), Version: f.version()}, nil
}

func (f *fake) Apply(_ context.Context, r *provisionrv1.ApplyRequest) (*provisionrv1.ApplyResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changes := f.changes(r.Objects)
	for _, o := range r.Objects {
		if p := o.GetPool(); p != nil {
			spec.Default(o)
			p.Metadata.Generation++
			f.pools[p.Metadata.Name] = p
			f.resize(p)
		}
		if p := o.GetVpnPeer(); p != nil {
			f.join(p)
		}
	}
	f.index++
	return &provisionrv1.ApplyResponse{Changes: changes, Version: f.version()}, nil
}

func (f *fake) resize(p *provisionrv1.Pool) {
	for i := uint32(1); i <= 10; i++ {
		slot := fmt.Sprintf("%s-%d", p.Metadata.Name, i)
		if i > p.Spec.Size {
			delete(f.machines, slot)
			continue
		}
		if f.machines[slot] == nil {
			f.machines[slot] = &provisionrv1.Machine{
				Metadata: &provisionrv1.Metadata{Name: "m-" + slot, Created: timestamppb.Now()},
				Spec:     &provisionrv1.MachineSpec{Pool: p.Metadata.Name, Slot: slot, Index: i, Fqdn: slot + ".provisionr.internal", Provider: "local"},
				Status:   &provisionrv1.MachineStatus{Phase: provisionrv1.Phase_PHASE_PENDING, Address: fmt.Sprintf("10.88.0.%d", i+10), Facts: f.facts()},
			}
		}
	}
}

// step moves every machine a phase on, but for those of the pool stuck.
func (f *fake) step() {
	for _, m := range f.machines {
		if m.Spec.Pool != "stuck" && m.Status.Phase < provisionrv1.Phase_PHASE_READY {
			m.Status.Phase++
			f.index++
		}
	}
}

func (f *fake) ListMachines(_ context.Context, r *provisionrv1.ListMachinesRequest) (*provisionrv1.ListMachinesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.step()
	out := &provisionrv1.ListMachinesResponse{Version: f.version()}
	for _, m := range f.machines {
		if r.Pool == "" || m.Spec.Pool == r.Pool {
			out.Machines = append(out.Machines, proto.CloneOf(m))
		}
	}
	return out, nil
}

func (f *fake) pool(p *provisionrv1.Pool) *provisionrv1.Pool {
	p = proto.CloneOf(p)
	p.Status = &provisionrv1.PoolStatus{State: "progressing"}
	for _, m := range f.machines {
		if m.Spec.Pool == p.Metadata.Name {
			p.Status.Machines++
			if m.Status.Phase == provisionrv1.Phase_PHASE_READY {
				p.Status.Ready++
			}
		}
	}
	if p.Status.Ready == p.Spec.Size {
		p.Status.State = "ready"
	}
	return p
}

func (f *fake) ListPools(context.Context, *provisionrv1.ListPoolsRequest) (*provisionrv1.ListPoolsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &provisionrv1.ListPoolsResponse{Version: f.version()}
	for _, p := range f.pools {
		out.Pools = append(out.Pools, f.pool(p))
	}
	slices.SortFunc(out.Pools, func(a, b *provisionrv1.Pool) int { return len(a.Metadata.Name) - len(b.Metadata.Name) })
	return out, nil
}

func (f *fake) GetPool(_ context.Context, r *provisionrv1.GetPoolRequest) (*provisionrv1.Pool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.pools[r.Name]; p != nil {
		return f.pool(p), nil
	}
	return nil, errs.New(errs.NotFound, "cannot find pool %q", r.Name)
}

func (f *fake) ScalePool(_ context.Context, r *provisionrv1.ScalePoolRequest) (*provisionrv1.WriteResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pools[r.Name]
	if p == nil {
		return nil, errs.New(errs.NotFound, "cannot scale pool %q: there is none", r.Name).WithHint("`provisionr get pools` lists them")
	}
	p.Spec.Size = r.Size
	f.resize(p)
	return &provisionrv1.WriteResponse{Version: f.version()}, nil
}

func (f *fake) DeletePool(_ context.Context, r *provisionrv1.DeletePoolRequest) (*provisionrv1.WriteResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.pools[r.Name]; p != nil {
		p.Spec.Size = 0
		f.resize(p)
		delete(f.pools, r.Name)
	}
	return &provisionrv1.WriteResponse{Version: f.version()}, nil
}

func (f *fake) GetMachine(_ context.Context, r *provisionrv1.GetMachineRequest) (*provisionrv1.Machine, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.machines {
		if r.Name == m.Metadata.Name || r.Name == m.Spec.Slot || r.Name == m.Spec.Fqdn {
			return proto.CloneOf(m), nil
		}
	}
	return nil, errs.New(errs.NotFound, "cannot find machine %q", r.Name)
}

func (f *fake) proofs(pool string, fail bool) *provisionrv1.ListProofsResponse {
	out := &provisionrv1.ListProofsResponse{Version: f.version()}
	for _, m := range f.machines {
		if m.Spec.Pool != pool {
			continue
		}
		out.Machines = append(out.Machines, proto.CloneOf(m))
		id := m.Metadata.Name
		out.Proofs = append(out.Proofs,
			&provisionrv1.Proof{Machine: id, Observer: id, Assumption: "os", State: provisionrv1.ProofState_PROOF_STATE_PROVEN},
			&provisionrv1.Proof{Machine: id, Observer: id, Assumption: "clock", State: provisionrv1.ProofState_PROOF_STATE_UNPROVABLE, Found: "may not set the clock"})
		firewall := &provisionrv1.Proof{Machine: id, Observer: "m-" + pool + "-1", Assumption: "peer.firewall", State: provisionrv1.ProofState_PROOF_STATE_PROVEN}
		if fail && m.Spec.Index == 2 {
			firewall.State = provisionrv1.ProofState_PROOF_STATE_FAILED
			firewall.Expected, firewall.Found, firewall.Remedy = "port 7447 closed", "port 7447 open", "look at nft list ruleset"
		}
		out.Proofs = append(out.Proofs, firewall)
	}
	return out
}

func (f *fake) ListProofs(_ context.Context, r *provisionrv1.ListProofsRequest) (*provisionrv1.ListProofsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.proofs(r.Pool, false), nil
}

// VerifyPool finds a fault that the cached proofs do not know.
func (f *fake) VerifyPool(_ context.Context, r *provisionrv1.VerifyPoolRequest) (*provisionrv1.ListProofsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.proofs(r.Pool, true), nil
}

func (f *fake) Exec(r *provisionrv1.ExecRequest, stream grpc.ServerStreamingServer[provisionrv1.ExecResponse]) error {
	if r.Selector == "nobody" {
		return errs.New(errs.NotFound, "cannot find a running machine in %q", r.Selector)
	}
	send := func(machine string, e *provisionrv1.ExecResponse) error {
		e.Machine = machine
		return stream.Send(e)
	}
	out := func(s string) *provisionrv1.ExecResponse {
		return &provisionrv1.ExecResponse{Event: &provisionrv1.ExecResponse_Stdout{Stdout: []byte(s)}}
	}
	if r.Selector == "zk-1" {
		return firstError(
			send("zk-1", out(string(r.Stdin))),
			send("zk-1", &provisionrv1.ExecResponse{Event: &provisionrv1.ExecResponse_Error{Error: "cut off after 1m"}}),
		)
	}
	return firstError(
		send("zk-1", out(fmt.Sprintf("ran %q with ", r.Command))),
		send("zk-2", out("two\nthree")),
		send("zk-1", out(string(r.Stdin)+"\n")),
		send("zk-1", &provisionrv1.ExecResponse{Event: &provisionrv1.ExecResponse_Exit{Exit: 0}}),
		send("zk-2", &provisionrv1.ExecResponse{Event: &provisionrv1.ExecResponse_Exit{Exit: 7}}),
	)
}

func firstError(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) GetConsole(context.Context, *provisionrv1.GetConsoleRequest) (*provisionrv1.GetConsoleResponse, error) {
	return &provisionrv1.GetConsoleResponse{Console: "booting\r\n\x1b[31mred\x1b[0m\nlogin: "}, nil
}

func (f *fake) ListRecords(context.Context, *provisionrv1.ListRecordsRequest) (*provisionrv1.ListRecordsResponse, error) {
	return &provisionrv1.ListRecordsResponse{Records: []*provisionrv1.Record{
		{Name: "zk-1.provisionr.internal.", Ttl: 30, Type: "A", Data: "10.88.0.11", Zone: "provisionr.internal"},
		{Name: "11.0.88.10.in-addr.arpa.", Ttl: 30, Type: "PTR", Data: "zk-1.provisionr.internal.", Zone: "0.88.10.in-addr.arpa"},
	}}, nil
}

func (f *fake) AdoptMachine(_ context.Context, r *provisionrv1.AdoptMachineRequest) (*provisionrv1.AdoptMachineResponse, error) {
	if r.Address == "" {
		return nil, errs.New(errs.Invalid, "cannot adopt %s: its address is not known", r.Name).WithHint("give the machine's address, as --address 192.0.2.7")
	}
	return &provisionrv1.AdoptMachineResponse{
		Command: "curl -fsS 'https://192.0.2.1:7443/boot/v1/adopt/m-1' | sudo sh",
		Machine: &provisionrv1.Machine{Spec: &provisionrv1.MachineSpec{Slot: r.Name}, Status: &provisionrv1.MachineStatus{Address: r.Address}},
	}, nil
}

func (f *fake) ListProviders(context.Context, *provisionrv1.ListInfraRequest) (*provisionrv1.ListProvidersResponse, error) {
	return &provisionrv1.ListProvidersResponse{Providers: []*provisionrv1.Provider{
		{Metadata: &provisionrv1.Metadata{Name: "amazon"}, Spec: &provisionrv1.ProviderSpec{
			Type: &provisionrv1.ProviderSpec_Aws{Aws: &provisionrv1.AwsProvider{Region: "eu-central-1"}}, CallsPerSecond: 2.5,
		}},
		{Metadata: &provisionrv1.Metadata{Name: "vms"}, Spec: &provisionrv1.ProviderSpec{
			Type: &provisionrv1.ProviderSpec_Qemu{Qemu: &provisionrv1.QemuProvider{Owner: "s1"}},
		}},
	}}, nil
}

func (f *fake) ListNetworks(context.Context, *provisionrv1.ListInfraRequest) (*provisionrv1.ListNetworksResponse, error) {
	return &provisionrv1.ListNetworksResponse{Networks: []*provisionrv1.Network{{
		Metadata: &provisionrv1.Metadata{Name: "vpc"}, Spec: &provisionrv1.NetworkSpec{Provider: "amazon", Id: "vpc-1", Subnets: []string{"subnet-1", "subnet-2"}},
	}}}, nil
}

func (f *fake) AuditProvider(_ context.Context, r *provisionrv1.AuditProviderRequest) (*provisionrv1.AuditProviderResponse, error) {
	switch r.Name {
	case "amazon":
		return &provisionrv1.AuditProviderResponse{Entries: []*provisionrv1.AuditEntry{
			{Machine: "m-1", Slot: "web-1", ProviderId: "i-1", State: "running", Address: "10.0.0.7", Phase: provisionrv1.Phase_PHASE_READY, Verdict: "matched"},
			{Machine: "m-9", ProviderId: "i-9", State: "running", Verdict: "orphan"},
		}}, nil
	case "vms":
		return &provisionrv1.AuditProviderResponse{}, nil
	}
	return nil, errs.New(errs.Unavailable, "cannot audit provider %s: it gave no complete list", r.Name)
}

func (f *fake) event() *provisionrv1.Event {
	return &provisionrv1.Event{
		Version: &provisionrv1.Version{Index: 9}, Time: timestamppb.Now(), Reason: "MachineReady", Message: "every assumption is proven",
		Slot: "zk-1", Pool: "zk", Caller: &provisionrv1.Caller{Name: "ann"},
	}
}

func (f *fake) ListEvents(context.Context, *provisionrv1.ListEventsRequest) (*provisionrv1.ListEventsResponse, error) {
	return &provisionrv1.ListEventsResponse{Events: []*provisionrv1.Event{f.event()}}, nil
}

func (f *fake) Watch(_ *provisionrv1.WatchRequest, stream grpc.ServerStreamingServer[provisionrv1.WatchResponse]) error {
	for _, i := range []uint32{2, 1} {
		slot := &provisionrv1.Slot{Metadata: &provisionrv1.Metadata{Name: fmt.Sprintf("zk-%d", i)}, Pool: "zk", Index: i, Fqdn: fmt.Sprintf("zk-%d.provisionr.internal", i)}
		put := &provisionrv1.WatchResponse_Put{Put: &provisionrv1.Object{Kind: &provisionrv1.Object_Slot{Slot: slot}}}
		if err := stream.Send(&provisionrv1.WatchResponse{Delta: put}); err != nil {
			return err
		}
	}
	return stream.Send(&provisionrv1.WatchResponse{Delta: &provisionrv1.WatchResponse_Bookmark{Bookmark: &provisionrv1.Version{Index: 1}}})
}

func (f *fake) GetCluster(context.Context, *provisionrv1.GetClusterRequest) (*provisionrv1.GetClusterResponse, error) {
	return &provisionrv1.GetClusterResponse{
		Cluster: &provisionrv1.Cluster{Id: clusterID, Name: "test"}, ServerVersion: "devel", Leader: "s1", Version: &provisionrv1.Version{Index: 4},
		Caller: &provisionrv1.Caller{Name: "ann", Kind: "user", Role: provisionrv1.Role_ROLE_ADMIN},
	}, nil
}

func (f *fake) ListMembers(context.Context, *provisionrv1.ListMembersRequest) (*provisionrv1.ListMembersResponse, error) {
	return &provisionrv1.ListMembersResponse{Members: []*provisionrv1.MemberStatus{{
		Member: &provisionrv1.Member{Metadata: &provisionrv1.Metadata{Name: "s1"}, ApiAddress: "127.0.0.1:7443"}, Leader: true, Voter: true, Health: "alive", AppliedIndex: 4,
	}}}, nil
}

func (f *fake) SaveSnapshot(_ *provisionrv1.SaveSnapshotRequest, stream grpc.ServerStreamingServer[provisionrv1.SnapshotChunk]) error {
	return firstError(stream.Send(&provisionrv1.SnapshotChunk{Data: f.snapshot[:2]}), stream.Send(&provisionrv1.SnapshotChunk{Data: f.snapshot[2:]}))
}

func (f *fake) RestoreSnapshot(stream grpc.ClientStreamingServer[provisionrv1.SnapshotChunk, provisionrv1.WriteResponse]) error {
	var got []byte
	for {
		chunk, err := stream.Recv()
		if err != nil {
			break
		}
		got = append(got, chunk.Data...)
	}
	if string(got) != "state" {
		return errs.New(errs.Invalid, "cannot restore: %d bytes are no snapshot", len(got))
	}
	return stream.SendAndClose(&provisionrv1.WriteResponse{})
}

func (f *fake) CreateToken(_ context.Context, r *provisionrv1.CreateTokenRequest) (*provisionrv1.CreateTokenResponse, error) {
	return &provisionrv1.CreateTokenResponse{Secret: "pvr_" + r.Name + "_" + base64.RawURLEncoding.EncodeToString([]byte(r.Role.String()))}, nil
}

func (f *fake) IssueCertificate(_ context.Context, r *provisionrv1.IssueCertificateRequest) (*provisionrv1.IssueCertificateResponse, error) {
	key, err := pki.ParseCSR(r.Csr)
	if err != nil {
		return nil, err
	}
	cert, err := f.authority.Issue(pki.Leaf{ID: pki.ID{Cluster: clusterID, Kind: pki.User, Name: r.User}, Key: key, TTL: r.Ttl.AsDuration()}, time.Now())
	if err != nil {
		return nil, err
	}
	return &provisionrv1.IssueCertificateResponse{Certificate: string(pki.EncodeCerts(cert))}, nil
}
