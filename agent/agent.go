package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/provisionr/provisionr/agent/cache"
	"github.com/provisionr/provisionr/agent/confirm"
	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/identity"
	"github.com/provisionr/provisionr/agent/link"
	"github.com/provisionr/provisionr/agent/programs"
	"github.com/provisionr/provisionr/agent/secrets"
	"github.com/provisionr/provisionr/agent/upgrade"
	"github.com/provisionr/provisionr/agent/watch"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// Where the agent keeps what, below the host's root.
const (
	IdentityDir   = "/var/lib/provisionr-agent/identity"
	CacheDir      = "/var/lib/provisionr-agent/cache"
	RunDir        = "/run/provisionr-agent"
	StatusPath    = RunDir + "/status.json"
	bootIDPath    = RunDir + "/boot_id"
	kernelBootID  = "/proc/sys/kernel/random/boot_id"
	containerMark = "/run/systemd/container"
)

// Parts are what an agent is made of beside its connection. Tests exchange them.
type Parts struct {
	// Resources that a desired state asks for. Required.
	Resources func(*desired.State, *host.Host) []converge.Resource
	// Prover made with a function that returns the last finished run. Required.
	Prover func(last func(context.Context) (*converge.Run, error)) (Prover, error)
	// Stub is the machine's name service. Nil means none.
	Stub Stub
	// Canary listens for the firewall's deny proof until ctx ends. Nil means none.
	Canary func(ctx context.Context, address, machineID string) error
	// Confirm listens on the agent's own port until ctx ends, and calls listening once it does. Nil means none.
	Confirm func(ctx context.Context, address, machineID string, listening func()) error
	// Timers outlive the agent. Nil means that changes are not confirmed, and the agent not upgraded.
	Timers confirm.Timers
	// ConfirmWithin is how long a change may take to be confirmed. Default: 30 s, which is the most.
	ConfirmWithin time.Duration
	// Watcher made with what it is to call. Nil means that only full checks find drift.
	Watcher func(touch func(...converge.Trigger), lost func()) (Watcher, error)
	// Facts about the machine. Nil tells none.
	Facts func(*host.Host) *agentv1.Facts
	// Commands runs what operators ask for. Nil refuses all.
	Commands link.Runner
	// Settled is called after each run that changed something, which has read much that the next ones will not. Nil does
	// nothing.
	Settled func()
}

// Stub is the machine's name service: package stub.
type Stub interface {
	// Set replaces what is answered.
	Set(*desired.State) error
	// Run serves until ctx ends, and returns nil then.
	Run(context.Context) error
}

// Watcher tells when something of the desired state changes: package watch.
type Watcher interface {
	// Set replaces what is watched.
	Set([]converge.Trigger)
	// Run watches until ctx ends, and returns nil then.
	Run(context.Context) error
	// Status of each source.
	Status() []watch.Status
}

// Config of an Agent. All fields but Program are required.
type Config struct {
	Host    *host.Host
	Parts   Parts
	Version string
	// Program is the SHA-256 of the program that runs; empty where the agent has none of its own.
	Program []byte
	Logger  *slog.Logger
}

// Agent keeps one machine. Make it with New, run it with Run once.
type Agent struct {
	config   Config
	identity *identity.Identity
	cache    *cache.Cache
	link     *link.Link
	runner   *converge.Runner
	reporter *reporter
	proofs   *proofs
	status   *statusFile
	secrets  *secrets.Store
	programs *programs.Store
	upgrader *upgrade.Upgrader // nil without timers
	watcher  Watcher           // may be nil
	outbox   *link.Outbox

	state   atomic.Pointer[desired.State]
	lastRun atomic.Pointer[converge.Run]
	// linked is signalled when a session began.
	linked chan struct{}
	// ending is closed when the agent is to end.
	ending chan struct{}
	// canary and confirming are the listeners on the machine's address.
	canary, confirming *listener
	// taking is held while a desired state is taken.
	taking sync.Mutex
}

// New opens what is on disk and wires the parts.
func New(c Config) (*Agent, error) {
	if c.Host == nil || c.Parts.Resources == nil || c.Parts.Prover == nil || c.Logger == nil {
		return nil, errs.New(errs.Internal, "cannot make agent: a required field is missing")
	}
	if c.Parts.Commands == nil {
		c.Parts.Commands = noCommands{}
	}
	a := &Agent{config: c, ending: make(chan struct{}), linked: make(chan struct{}, 1), outbox: link.NewOutbox()}
	boot, err := bootID(*c.Host)
	if err != nil {
		return nil, err
	}
	if a.identity, err = identity.Open(identity.Config{Host: *c.Host, Dir: IdentityDir, Logger: c.Logger}); err != nil {
		return nil, err
	}
	prover, err := c.Parts.Prover(func(context.Context) (*converge.Run, error) { return a.lastRun.Load(), nil })
	if err != nil {
		return nil, err
	}
	a.reporter = newReporter(c.Version, a.outbox, a.identity.Skew)
	a.status = newStatusFile(c.Host, Status{Version: c.Version, Machine: a.identity.MachineID()}, func(err error) {
		c.Logger.Warn("cannot write the status file", "error", err)
	})
	a.proofs = &proofs{prover: prover, state: &a.state, wake: make(chan struct{}, 1), done: a.proven}
	if a.cache, err = cache.Open(filepath.Join(c.Host.Root, CacheDir)); err != nil {
		return nil, err
	}
	if err := a.wire(boot); err != nil {
		return nil, errors.Join(err, a.cache.Close())
	}
	return a, nil
}

// wire makes the parts that need each other.
func (a *Agent) wire(boot string) (err error) {
	c := a.config
	a.link, err = link.New(link.Config{
		Identity: a.identity, Store: a.cache, Outbox: a.outbox, Runner: c.Parts.Commands, Desired: a.take, Verify: a.verify, Ask: a.ask,
		Connected: a.connected, AgentVersion: c.Version, Program: c.Program, BootID: boot, Logger: c.Logger,
	})
	if err != nil {
		return err
	}
	a.secrets, a.programs = secrets.New(c.Host, a.link.Secrets), programs.New(c.Host, a.link)
	a.canary, a.confirming = newListener("canary", c.Parts.Canary), newListener("confirmations", nil)
	if c.Parts.Confirm != nil {
		a.confirming.serve = func(ctx context.Context, address, machineID string) error {
			return c.Parts.Confirm(ctx, address, machineID, func() { a.confirming.began(address) })
		}
	}
	runner := converge.Config{Done: a.ran, Now: a.reporter.now, Ahead: c.Host.Units.Ahead, Logger: c.Logger}
	if c.Parts.Timers != nil {
		if runner.Confirm, err = a.confirmer(boot); err != nil {
			return err
		}
		a.upgrader, err = upgrade.New(upgrade.Config{Host: c.Host, Programs: a.programs, Timers: c.Parts.Timers, Running: running(), BootID: boot, Logger: c.Logger})
		if err != nil {
			return err
		}
	}
	if a.runner, err = converge.New(runner); err != nil {
		return err
	}
	if c.Parts.Watcher != nil {
		a.watcher, err = c.Parts.Watcher(a.runner.Touch, a.runner.Missed)
		a.status.sources = a.watcher.Status
	}
	return err
}

// noCommands runs nothing for anybody.
type noCommands struct{}

func (noCommands) Stream(context.Context, host.Command, io.Writer, io.Writer) (int, error) {
	return 0, errs.New(errs.Unsupported, "cannot run commands on this machine: it runs none for operators")
}

// bootID changes with each boot of the machine. A container has its host's in the kernel, so it gets one of its own, kept
// where a boot clears it.
func bootID(h host.Host) (string, error) {
	if err := h.MkdirAll(RunDir, 0o755); err != nil {
		return "", errs.New(errs.Internal, "cannot make %s: %w", RunDir, err)
	}
	if _, err := h.ReadFile(containerMark); errors.Is(err, fs.ErrNotExist) {
		if id, err := h.ReadFile(kernelBootID); err == nil {
			return strings.TrimSpace(string(id)), nil
		}
	}
	if id, err := h.ReadFile(bootIDPath); err == nil && len(id) > 0 {
		return strings.TrimSpace(string(id)), nil
	}
	id := rand.Text()
	if err := h.WriteFile(bootIDPath, []byte(id+"\n"), host.Attributes{}); err != nil {
		return "", errs.New(errs.Internal, "cannot write boot id: %w", err)
	}
	return id, nil
}

// Run keeps the machine until ctx ends; it returns nil then. It may be called once.
func (a *Agent) Run(ctx context.Context) error {
	defer func() {
		if err := a.cache.Close(); err != nil {
			a.config.Logger.Warn("cannot close the cache", "error", err)
		}
	}()
	a.recover(ctx)
	if s := a.cache.Load(); s != nil && s.Machine.MachineId == a.identity.MachineID() {
		a.config.Logger.Info("converging from the cache", "generation", s.PoolGeneration)
		a.take(s)
	}
	loop, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	context.AfterFunc(loop, func() { close(a.ending) })
	var loops sync.WaitGroup
	for _, run := range []func(context.Context) error{a.link.Run, a.runner.Run, a.proofs.run, a.watch, a.follow, a.serveNames, a.listen(a.canary), a.listen(a.confirming)} {
		loops.Go(func() {
			if err := run(loop); err != nil {
				cancel(err)
			}
		})
	}
	loops.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(loop)
}

// take makes a desired state the machine's. The same one again, as after each reconnect, changes nothing; one with the
// same hash, in which other members are ready, changes what names are answered.
func (a *Agent) take(s *desired.State) {
	a.taking.Lock()
	defer a.taking.Unlock()
	if s.Machine.MachineId != a.identity.MachineID() {
		a.reporter.failed(errs.New(errs.Invalid, "cannot use desired state: it is for machine %s", s.Machine.MachineId))
		return
	}
	old := a.state.Load()
	same := old != nil && bytes.Equal(old.Hash, s.Hash)
	if same && bytes.Equal(old.Revision, s.Revision) {
		return
	}
	s.Secrets, s.Programs, s.HostCertifier = a.secrets.For(s), a.programs.For(s), a.link
	a.state.Store(s)
	if a.config.Parts.Stub != nil {
		if err := a.config.Parts.Stub.Set(s); err != nil {
			a.config.Logger.Error("cannot answer names of the desired state", "error", err)
		}
	}
	if same {
		return
	}
	a.config.Logger.Info("new desired state", "generation", s.PoolGeneration)
	a.canary.move(s.Machine)
	a.confirming.move(s.Machine)
	if err := a.plan(s); err != nil {
		a.config.Logger.Error("cannot run the desired state", "error", err)
		a.reporter.failed(err)
	}
}

// plan has the runner keep what the desired state asks for. A panic becomes an error: it would end the agent at each start, for
// the state is in the cache, before a server could send a better one.
func (a *Agent) plan(s *desired.State) (err error) {
	defer contain(&err)
	resources := a.config.Parts.Resources(s, a.config.Host)
	if a.watcher != nil {
		// Before the first check, so that nothing happens between.
		a.watcher.Set(converge.Triggers(resources))
	}
	return a.runner.Set(converge.Plan{Resources: resources, Epoch: s, Audit: s.Pool.GetAudit()})
}

// contain makes an error of a panic.
func contain(err *error) {
	if p := recover(); p != nil {
		*err = errs.New(errs.Internal, "defect: %v", p)
	}
}

// connected follows the begin of each session, and its end, where there is no server.
func (a *Agent) connected(server string) {
	a.status.connected(server)
	if server == "" {
		return
	}
	a.reporter.connected()
	a.learn(true)
	select {
	case a.linked <- struct{}{}:
	default:
	}
}

// learn reports the facts where they are new, or anyway.
func (a *Agent) learn(anyway bool) {
	if a.config.Parts.Facts != nil {
		a.reporter.learned(a.config.Parts.Facts(a.config.Host), anyway)
	}
}

// ran follows each run.
func (a *Agent) ran(r converge.Report) {
	before := a.lastRun.Swap(r.Run)
	a.status.ran(r)
	a.reporter.done(r)
	if len(r.Changes) > 0 || r.Run.Checked == len(r.Run.Outcomes) {
		a.learn(false)
	}
	if s, ok := r.Epoch.(*desired.State); ok && r.First && r.Run.Err() == nil {
		if err := a.secrets.Prune(s); err != nil {
			a.config.Logger.Warn("cannot remove old secrets", "error", err)
		}
	}
	// What got right by itself is no change.
	recovered := before != nil && before.Err() != nil && r.Run.Err() == nil
	if r.First || recovered || len(r.Changes) > 0 {
		a.proofs.again()
		if a.config.Parts.Settled != nil {
			a.config.Parts.Settled()
		}
	}
}

func (a *Agent) proven(set []*agentv1.Proof, all bool) {
	a.reporter.proven(set, all)
	a.status.proven(set)
}

// verify checks everything and proves it anew, for someone who asked.
func (a *Agent) verify(ctx context.Context) {
	if a.state.Load() == nil {
		return
	}
	if _, err := a.runner.Now(ctx); err != nil {
		return
	}
	a.proofs.prove(ctx, true)
}

// serveNames runs the stub. Where it cannot serve it is tried again: the machine is kept right without it.
func (a *Agent) serveNames(ctx context.Context) error {
	if a.config.Parts.Stub == nil {
		return nil
	}
	return a.supervise(ctx, "name service", a.config.Parts.Stub.Run)
}

// supervise runs a service until ctx ends, again with back-off from 1 s to 60 s when it fails.
func (a *Agent) supervise(ctx context.Context, name string, serve func(context.Context) error) error {
	retry := time.Second
	for {
		began := time.Now()
		err := serve(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > time.Minute {
			retry = time.Second
		}
		a.config.Logger.Error("a service of the agent ended", "service", name, "error", err, "retry", retry)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry):
		}
		retry = min(2*retry, time.Minute)
	}
}
