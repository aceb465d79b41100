package fsm

import (
	"bytes"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// world is an FSM and the log that it applied.
type world struct {
	t     interface{ Fatalf(string, ...any) }
	store *state.Store
	fsm   *FSM
	index uint64
	log   [][]byte
	fatal error
}

func newWorld(t interface{ Fatalf(string, ...any) }) *world {
	w := &world{t: t, store: state.New()}
	w.fsm = New(w.store, Level, slog.New(slog.DiscardHandler))
	w.fsm.OnFatal(func(err error) { w.fatal = err })
	return w
}

// start is the time of log index 0; each index is a second later.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// apply applies commands in one entry, each with an id of its own.
func (w *world) apply(commands ...*raftlogv1.Command) []Result {
	entry := &raftlogv1.Entry{}
	for i, c := range commands {
		entry.Requests = append(entry.Requests, &raftlogv1.Request{
			Id: fmt.Sprintf("r-%d-%d", w.index+1, i), Caller: &provisionrv1.Caller{Name: "tester", Kind: "user"}, Command: c,
			FeatureLevel: 1, Time: timestamppb.New(start.Add(time.Duration(w.index+1) * time.Second)),
		})
	}
	return w.applyEntry(entry)
}

func (w *world) applyEntry(entry *raftlogv1.Entry) []Result {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(entry)
	if err != nil {
		w.t.Fatalf("marshal: %v", err)
	}
	w.index++
	w.log = append(w.log, data)
	return w.fsm.Apply(w.index, data)
}

// must applies one command that has to succeed.
func (w *world) must(c *raftlogv1.Command) {
	if r := w.apply(c); len(r) != 1 || r[0].Err != nil {
		w.t.Fatalf("%v: %v", c, r)
	}
}

// refuse applies one command that has to be refused with the kind.
func (w *world) refuse(kind errs.Kind, c *raftlogv1.Command) *errs.Error {
	r := w.apply(c)
	if len(r) != 1 || r[0].Err == nil || r[0].Err.Kind != kind {
		w.t.Fatalf("%v: %v, want %s", c, r, kind)
	}
	return r[0].Err
}

func (w *world) snapshot() []byte {
	s, err := w.fsm.Snapshot()
	if err != nil {
		w.t.Fatalf("snapshot: %v", err)
	}
	var b bytes.Buffer
	if err := s.Save(&b); err != nil {
		w.t.Fatalf("save: %v", err)
	}
	return b.Bytes()
}

// initialised has a zone, a provider, a managed network of six usable addresses and a user.
func initialised(t interface{ Fatalf(string, ...any) }) *world {
	w := newWorld(t)
	w.must(initCommand())
	return w
}

func initCommand() *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_InitCluster{InitCluster: &raftlogv1.InitCluster{
		Cluster: &provisionrv1.Cluster{Id: "c-1", Name: "test", FeatureLevel: Level},
		Objects: []*provisionrv1.Object{
			network("local", "10.88.0.0/29"), zone("default", "provisionr.internal"),
			{Kind: &provisionrv1.Object_Provider{Provider: &provisionrv1.Provider{
				Metadata: &provisionrv1.Metadata{Name: "local"},
				Spec:     &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Local{Local: &provisionrv1.LocalProvider{Owner: "s1"}}}}}},
			user("admin", provisionrv1.Role_ROLE_ADMIN),
		},
	}}}
}

func user(name string, role provisionrv1.Role) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_User{User: &provisionrv1.User{
		Metadata: &provisionrv1.Metadata{Name: name}, Spec: &provisionrv1.UserSpec{Role: role}}}}
}

func network(name, cidr string) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Network{Network: &provisionrv1.Network{
		Metadata: &provisionrv1.Metadata{Name: name}, Spec: &provisionrv1.NetworkSpec{Cidr: cidr, Managed: true, Provider: "local"}}}}
}

func zone(name, domain string, records ...string) *provisionrv1.Object {
	spec := &provisionrv1.ZoneSpec{Domain: domain}
	for _, r := range records {
		spec.Records = append(spec.Records, &provisionrv1.StaticRecord{Name: r, Addresses: []string{"192.0.2.1"}})
	}
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{Metadata: &provisionrv1.Metadata{Name: name}, Spec: spec}}}
}

func pool(name string, size uint32, aliases ...string) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Pool{Pool: &provisionrv1.Pool{
		Metadata: &provisionrv1.Metadata{Name: name}, Spec: &provisionrv1.PoolSpec{Size: size, Aliases: aliases}}}}
}

func put(objects ...*provisionrv1.Object) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{ApplyObjects: &raftlogv1.ApplyObjects{Objects: objects}}}
}

func remove(kind, name string) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_DeleteObject{DeleteObject: &raftlogv1.DeleteObject{Kind: kind, Name: name}}}
}

func scale(name string, size uint32) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_ScalePool{ScalePool: &raftlogv1.ScalePool{Name: name, Size: size}}}
}

func create(id, pool string, index uint32, generation uint64) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_CreateMachine{CreateMachine: &raftlogv1.CreateMachine{
		Id: id, Pool: pool, Index: index, PoolGeneration: generation}}}
}

func launch(id string, attempt uint32) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_BeginLaunch{BeginLaunch: &raftlogv1.BeginLaunch{
		Launch: &provisionrv1.LaunchRequest{MachineId: id, Attempt: attempt}}}}
}

func move(id string, to provisionrv1.Phase, from ...provisionrv1.Phase) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_SetPhase{SetPhase: &raftlogv1.SetPhase{Id: id, From: from, To: to}}}
}

func bind(id string, attempt uint32, key string) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_BindKey{BindKey: &raftlogv1.BindKey{Id: id, Attempt: attempt, KeyFingerprint: key}}}
}

func createHeir(id, pool string, index uint32, generation uint64) *raftlogv1.Command {
	c := create(id, pool, index, generation)
	c.GetCreateMachine().Heir = true
	return c
}

func handOver(slot, holder, heir string) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_HandOver{HandOver: &raftlogv1.HandOver{Slot: slot, Holder: holder, Heir: heir, Reason: "asked"}}}
}

func notice(id string, n *provisionrv1.Notice) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_RecordNotice{RecordNotice: &raftlogv1.RecordNotice{Id: id, Notice: n}}}
}

func adopt(id, address string) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_AdoptMachine{AdoptMachine: &raftlogv1.AdoptMachine{Id: id, Address: address}}}
}

// loose is a network whose addresses its provider gives.
func loose(name, cidr string) *provisionrv1.Object {
	o := network(name, cidr)
	o.GetNetwork().Spec.Managed = false
	return o
}

const (
	pending     = provisionrv1.Phase_PHASE_PENDING
	launching   = provisionrv1.Phase_PHASE_LAUNCHING
	booting     = provisionrv1.Phase_PHASE_BOOTING
	joining     = provisionrv1.Phase_PHASE_JOINING
	converging  = provisionrv1.Phase_PHASE_CONVERGING
	ready       = provisionrv1.Phase_PHASE_READY
	degraded    = provisionrv1.Phase_PHASE_DEGRADED
	unreachable = provisionrv1.Phase_PHASE_UNREACHABLE
	draining    = provisionrv1.Phase_PHASE_DRAINING
	terminating = provisionrv1.Phase_PHASE_TERMINATING
	gone        = provisionrv1.Phase_PHASE_GONE
	failed      = provisionrv1.Phase_PHASE_FAILED
)

// serving brings a machine to ready.
func (w *world) serving(id, pool string, index uint32) {
	w.must(create(id, pool, index, w.store.Read().Pool(pool).GetMetadata().GetGeneration()))
	w.must(launch(id, 1))
	w.must(move(id, ready, launching))
}

func (w *world) die(id string, from provisionrv1.Phase) {
	w.must(move(id, terminating, from))
	w.must(move(id, gone, terminating))
}
