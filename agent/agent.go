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
	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/identity"
	"github.com/provisionr/provisionr/agent/link"
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

// Config of an Agent. All fields are required.
type Config struct {
	Host    *host.Host
	Parts   Parts
	Version string
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

	state   atomic.Pointer[desired.State]
	lastRun atomic.Pointer[converge.Run]
	// moved is signalled when the machine's address may have changed.
	moved chan struct{}
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
	a := &Agent{config: c, moved: make(chan struct{}, 1)}
	if err := c.Host.MkdirAll(RunDir, 0o755); err != nil {
		return nil, errs.New(errs.Internal, "cannot make %s: %w", RunDir, err)
	}
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
	outbox := link.NewOutbox()
	a.reporter = newReporter(c.Version, outbox, a.identity.Skew)
	a.status = &statusFile{host: *c.Host, path: StatusPath, status: Status{Version: c.Version, Machine: a.identity.MachineID()},
		fail: func(err error) { c.Logger.Warn("cannot write the status file", "error", err) }}
	a.proofs = &proofs{prover: prover, state: &a.state, wake: make(chan struct{}, 1), done: a.proven}
	if a.runner, err = converge.New(converge.Config{Done: a.ran, Now: a.reporter.now, Logger: c.Logger}); err != nil {
		return nil, err
	}
	if a.cache, err = cache.Open(filepath.Join(c.Host.Root, CacheDir)); err != nil {
		return nil, err
	}
	a.link, err = link.New(link.Config{
		Identity: a.identity, Store: a.cache, Outbox: outbox, Runner: c.Parts.Commands, Desired: a.take, Verify: a.verify,
		Connected: a.connected, AgentVersion: c.Version, BootID: boot, Logger: c.Logger,
	})
	if err != nil {
		return nil, errors.Join(err, a.cache.Close())
	}
	return a, nil
}

// noCommands runs nothing for anybody.
type noCommands struct{}

func (noCommands) Stream(context.Context, host.Command, io.Writer, io.Writer) (int, error) {
	return 0, errs.New(errs.Unsupported, "cannot run commands on this machine: it runs none for operators")
}

// bootID changes with each boot of the machine. A container has its host's in the kernel, so it gets one of its own, kept
// where a boot clears it.
func bootID(h host.Host) (string, error) {
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
	if s := a.cache.Load(); s != nil && s.Machine.MachineId == a.identity.MachineID() {
		a.config.Logger.Info("converging from the cache", "generation", s.PoolGeneration)
		a.take(s)
	}
	loop, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var loops sync.WaitGroup
	for _, run := range []func(context.Context) error{a.link.Run, a.runner.Run, a.proofs.run, a.serveNames, a.serveCanary} {
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
	select {
	case a.moved <- struct{}{}:
	default:
	}
	if err := a.runner.Set(a.config.Parts.Resources(s, a.config.Host), s); err != nil {
		a.config.Logger.Error("cannot run the desired state", "error", err)
		a.reporter.failed(err)
	}
}

// connected follows the begin of each session, and its end, where there is no server.
func (a *Agent) connected(server string) {
	a.status.connected(server)
	if server != "" {
		a.reporter.connected()
	}
}

// ran follows each run.
func (a *Agent) ran(r converge.Report) {
	before := a.lastRun.Swap(r.Run)
	a.reporter.done(r)
	a.status.ran(r)
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

// serveCanary listens on the machine's address, which a new desired state may change.
func (a *Agent) serveCanary(ctx context.Context) error {
	if a.config.Parts.Canary == nil {
		return nil
	}
	address, stop := "", func() {}
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.moved:
		}
		m := a.state.Load().Machine
		if m.Address == address {
			continue
		}
		stop()
		address, stop = m.Address, func() {}
		if address == "" {
			continue
		}
		serving, cancel := context.WithCancel(ctx)
		var done sync.WaitGroup
		done.Go(func() {
			// Its only end is that of its context.
			_ = a.supervise(serving, "canary", func(ctx context.Context) error {
				return a.config.Parts.Canary(ctx, m.Address, m.MachineId)
			})
		})
		stop = func() {
			cancel()
			done.Wait()
		}
	}
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
