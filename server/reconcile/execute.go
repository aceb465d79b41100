package reconcile

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"strings"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// Bounds of single calls.
const (
	proposeTimeout   = 15 * time.Second
	terminateTimeout = 2 * time.Minute
	ensureTimeout    = 2 * time.Minute
	consoleTimeout   = 10 * time.Second
	// maxConsole is how much of a console is kept as evidence, in bytes.
	maxConsole = 16 << 10
)

// caller executes one action in a goroutine of its own.
type caller struct {
	*Loop
	limiter      *rate.Limiter
	capabilities provider.Capabilities
}

func (c caller) execute(ctx context.Context, a Action) result {
	switch a.Op {
	case Launch:
		return c.launch(ctx, a)
	case Ensure:
		return c.ensure(ctx, a)
	case Terminate, Reap:
		return result{err: c.terminate(ctx, a)}
	case Fail:
		a.Phase.Evidence = &provisionrv1.BootEvidence{Console: c.console(ctx, a), Taken: timestamppb.New(time.Now())}
	}
	command, err := c.command(a)
	if err != nil {
		return result{err: err}
	}
	c.Hook(string(a.Op) + ".before")
	err = c.propose(ctx, command)
	if err == nil {
		c.Hook(string(a.Op) + ".committed")
	}
	return result{err: err}
}

// command is what an action without a call proposes.
func (c caller) command(a Action) (*raftlogv1.Command, error) {
	switch a.Op {
	case Create:
		return &raftlogv1.Command{Kind: &raftlogv1.Command_CreateMachine{CreateMachine: &raftlogv1.CreateMachine{
			Id: newMachineID(), Pool: a.Pool, Index: a.Index, PoolGeneration: a.Generation,
		}}}, nil
	case Begin:
		s := c.Store.Read()
		m := s.Machine(a.Machine)
		if m == nil {
			return nil, errs.New(errs.Conflict, "cannot launch %s: its record is gone", a.Machine)
		}
		seed, err := c.Seed(s, s.Network(m.GetSpec().GetNetwork()))
		if err != nil {
			return nil, err
		}
		request, err := launchRequest(s, m, seed)
		if err != nil {
			return nil, err
		}
		return &raftlogv1.Command{Kind: &raftlogv1.Command_BeginLaunch{BeginLaunch: &raftlogv1.BeginLaunch{
			Launch: request, Deadline: timestamppb.New(a.Deadline),
		}}}, nil
	case Move, Fail:
		return &raftlogv1.Command{Kind: &raftlogv1.Command_SetPhase{SetPhase: a.Phase}}, nil
	case Forget:
		return &raftlogv1.Command{Kind: &raftlogv1.Command_ForgetMachine{ForgetMachine: &raftlogv1.ForgetMachine{Id: a.Machine}}}, nil
	case Say:
		return &raftlogv1.Command{Kind: &raftlogv1.Command_RecordEvent{RecordEvent: &raftlogv1.RecordEvent{Event: a.Event}}}, nil
	}
	return nil, errs.New(errs.Internal, "cannot execute action %q", a.Op)
}

// propose commits a command under an id of its own.
func (c caller) propose(ctx context.Context, command *raftlogv1.Command) error {
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	_, err := c.Leadership.Do(ctx, c.Loop.caller, rand.Text(), command)
	return err
}

// prepare waits for the provider's token bucket, then for a quorum to confirm the leadership.
func (c caller) prepare(ctx context.Context, a Action) (provider.Provider, error) {
	p, err := c.Providers.Provider(a.Provider)
	if err != nil {
		return nil, err
	}
	if c.limiter != nil {
		if err := c.limiter.Wait(ctx); err != nil {
			return nil, err
		}
	}
	return p, c.Leadership.VerifyLeader(ctx)
}

// launch calls the provider with the committed request and commits its answer. The deadline begins before leadership is
// verified: see View.LaunchEnded and planner.lastLaunch, which rely on it.
func (c caller) launch(ctx context.Context, a Action) result {
	ctx, cancel := context.WithTimeout(ctx, LaunchTimeout)
	defer cancel()
	p, err := c.prepare(ctx, a)
	if err != nil {
		return result{err: err}
	}
	// Read after the verification: nothing that an earlier leader decided is missing.
	m := c.Store.Read().Machine(a.Machine)
	deadline := m.GetStatus().GetDeadline()
	if m.GetStatus().GetPhase() != launching || deadline == nil || !time.Now().Before(deadline.AsTime()) {
		return result{}
	}
	ctx, cancel = context.WithDeadline(ctx, deadline.AsTime())
	defer cancel()
	var instance provider.Instance
	data, err := userData(m.GetStatus().GetLaunch(), c.Tokens, c.capabilities.UserDataLimit)
	if err == nil {
		c.Hook("launch.before")
		instance, err = p.Launch(ctx, provider.LaunchRequest{Request: clone(m.GetStatus().GetLaunch()), UserData: data})
		c.Hook("launch.called")
	}
	if err != nil {
		return c.launchFailed(ctx, m, err)
	}
	set := setPhase(m, booting, "the provider has it", deadline.AsTime())
	assigned := c.Store.Read().Network(m.GetSpec().GetNetwork()).GetSpec().GetManaged()
	switch address := instance.Address.Unmap(); {
	case !address.IsValid():
	case assigned && address.String() != m.GetStatus().GetAddress():
		set = setPhase(m, failed, fmt.Sprintf("the provider gave it the address %s instead of %s", address, m.GetStatus().GetAddress()), time.Time{})
		set.Evidence = &provisionrv1.BootEvidence{Taken: timestamppb.New(time.Now())}
	case !assigned:
		set.Address = address.String()
	}
	// An answer is remembered by the provider's id, so there is always one.
	set.ProviderId = cmp.Or(instance.ProviderID, a.Machine)
	if err := c.propose(context.WithoutCancel(ctx), phaseCommand(set)); err != nil {
		return result{err: err}
	}
	c.Hook("launch.committed")
	return result{}
}

// launchFailed decides by the error's kind. What can never succeed fails the machine; all else is tried again until the
// deadline.
func (c caller) launchFailed(ctx context.Context, m *provisionrv1.Machine, err error) result {
	kind := provider.KindOf(err)
	if kind == provider.Invalid {
		set := setPhase(m, failed, "the provider refuses it: "+err.Error(), time.Time{})
		set.Evidence = &provisionrv1.BootEvidence{Taken: timestamppb.New(time.Now())}
		return result{err: c.propose(context.WithoutCancel(ctx), phaseCommand(set))}
	}
	return result{err: err, event: &provisionrv1.Event{
		Reason: "LaunchDelayed", Warning: true, Pool: m.GetSpec().GetPool(), Machine: m.GetMetadata().GetName(),
		Slot: m.GetSpec().GetSlot(), Message: fmt.Sprintf("%s: %s", strings.ReplaceAll(string(kind), "_", " "), err),
	}}
}

func phaseCommand(set *raftlogv1.SetPhase) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_SetPhase{SetPhase: set}}
}

// terminate deletes at the provider. For a reaped instance it looks once more whether a record explains it by now.
func (c caller) terminate(ctx context.Context, a Action) error {
	ctx, cancel := context.WithTimeout(ctx, terminateTimeout)
	defer cancel()
	p, err := c.prepare(ctx, a)
	if err != nil {
		return err
	}
	m := c.Store.Read().Machine(a.Machine)
	if a.Op == Terminate && m.GetStatus().GetPhase() != terminating || a.Op == Reap && explained(m) {
		return errs.New(errs.Canceled, "the machine's record has changed: %w", context.Canceled)
	}
	c.Hook(string(a.Op) + ".before")
	err = p.Terminate(ctx, a.Machine, a.ProviderID)
	c.Hook(string(a.Op) + ".called")
	if provider.KindOf(err) == provider.NotFound {
		return nil
	}
	if err == nil && a.Op == Reap {
		return c.propose(ctx, &raftlogv1.Command{Kind: &raftlogv1.Command_RecordEvent{RecordEvent: &raftlogv1.RecordEvent{
			Event: &provisionrv1.Event{Reason: "OrphanReaped", Machine: a.Machine, Warning: true,
				Message: "terminated at provider " + a.Provider + " a machine that no record explained"},
		}}})
	}
	return err
}

// ensure makes a network usable and commits what the provider adds to it.
func (c caller) ensure(ctx context.Context, a Action) result {
	ctx, cancel := context.WithTimeout(ctx, ensureTimeout)
	defer cancel()
	p, err := c.prepare(ctx, a)
	if err != nil {
		return result{err: err}
	}
	network := c.Store.Read().Network(a.Network)
	if network == nil || network.GetMetadata().GetGeneration() != a.Generation {
		return result{err: errs.New(errs.Canceled, "the network has changed: %w", context.Canceled)}
	}
	c.Hook("ensure.before")
	spec, err := p.EnsureNetwork(ctx, clone(network))
	c.Hook("ensure.called")
	if err != nil {
		return result{err: err}
	}
	if spec == nil || proto.Equal(spec, network.GetSpec()) {
		return result{generation: a.Generation}
	}
	completed := clone(network)
	completed.Spec = spec
	err = c.propose(ctx, &raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{ApplyObjects: &raftlogv1.ApplyObjects{
		Objects: []*provisionrv1.Object{{Kind: &provisionrv1.Object_Network{Network: completed}}}, Uids: []string{rand.Text()},
	}}})
	if err != nil {
		return result{err: err}
	}
	c.Hook("ensure.committed")
	return result{generation: c.Store.Read().Network(a.Network).GetMetadata().GetGeneration()}
}

// console returns the end of the machine's console; an error becomes part of the evidence.
func (c caller) console(ctx context.Context, a Action) string {
	ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
	defer cancel()
	p, err := c.Providers.Provider(a.Provider)
	if err != nil {
		return "no console: " + err.Error()
	}
	text, err := p.Console(ctx, a.Machine, a.ProviderID)
	if err != nil {
		return "no console: " + err.Error()
	}
	text = strings.ToValidUTF8(text, "?")
	if len(text) > maxConsole {
		text = strings.ToValidUTF8(text[len(text)-maxConsole:], "")
	}
	return text
}

// newMachineID returns m- and 80 random bits in lower-case base32.
func newMachineID() string {
	var b [10]byte
	rand.Read(b[:])
	return "m-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}
