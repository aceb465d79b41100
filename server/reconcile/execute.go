package reconcile

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
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
	market       *market
	capabilities provider.Capabilities
}

func (c caller) execute(ctx context.Context, a Action) result {
	switch a.Op {
	case Begin:
		return c.begin(ctx, a)
	case Launch:
		return c.launch(ctx, a)
	case Ensure:
		return c.ensure(ctx, a)
	case Reboot:
		return c.reboot(ctx, a)
	case Terminate, Reap:
		return result{err: c.terminate(ctx, a)}
	case Prune:
		return result{err: c.prune(ctx, a)}
	case EnsureFirewall:
		return c.ensureFirewall(ctx, a)
	case DeleteFirewall:
		return result{err: c.deleteFirewall(ctx, a)}
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
			Id: newMachineID(), Pool: a.Pool, Index: a.Index, PoolGeneration: a.Generation, Heir: a.AsHeir,
		}}}, nil
	case HandOver:
		return &raftlogv1.Command{Kind: &raftlogv1.Command_HandOver{HandOver: &raftlogv1.HandOver{
			Slot: fmt.Sprintf("%s-%d", a.Pool, a.Index), Holder: a.Machine, Heir: a.Heir, Reason: a.Reason,
		}}}, nil
	case Notice:
		return &raftlogv1.Command{Kind: &raftlogv1.Command_RecordNotice{RecordNotice: &raftlogv1.RecordNotice{Id: a.Machine, Notice: a.Notice}}}, nil
	case Move, Fail, Identify:
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

// prepare finds the provider and waits for a quorum to confirm the leadership.
func (c caller) prepare(ctx context.Context, a Action) (provider.Provider, error) {
	p, err := c.Providers.Provider(a.Provider)
	if err != nil {
		return nil, err
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
	if m.GetStatus().GetPhase() != launching || m.GetStatus().GetAttempt() != a.Attempt || deadline == nil || !time.Now().Before(deadline.AsTime()) {
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
	if c.capabilities.Adopted {
		set.Reason, set.Deadline = state.Waiting+"provisionr machine adopt "+m.GetSpec().GetSlot(), nil
	}
	assigned := c.Store.Read().Network(m.GetSpec().GetNetwork()).GetSpec().GetManaged()
	switch address := instance.Address.Unmap(); {
	case !address.IsValid():
	case assigned && address.String() != m.GetStatus().GetAddress():
		set = setPhase(m, failed, fmt.Sprintf("the provider gave it the address %s instead of %s", address, m.GetStatus().GetAddress()), time.Time{})
		set.Evidence = &provisionrv1.BootEvidence{Taken: timestamppb.New(time.Now())}
	case !assigned:
		set.Address = address.String()
		set.Address6 = address6(c.Store.Read(), instance)
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
	r := result{err: err, event: c.delayed(m, err)}
	switch provider.KindOf(err) {
	case provider.Invalid:
		set := setPhase(m, failed, "the provider refuses it: "+err.Error(), time.Time{})
		set.Evidence = &provisionrv1.BootEvidence{Taken: timestamppb.New(time.Now())}
		// The choice may name what is no more, as a group that somebody deleted.
		return result{err: c.propose(context.WithoutCancel(ctx), phaseCommand(set)), stale: m.GetSpec().GetPool()}
	case provider.NoCapacity, provider.QuotaExceeded:
		// Nothing was made, so the next choice may be taken: a person hears of it when there is none.
		c.market.cool(m.GetSpec().GetProvider(), m.GetStatus().GetLaunch().GetChoice(), err)
		return result{err: err, refused: true}
	case provider.Unauthorized:
		c.wait(context.WithoutCancel(ctx), m, err)
	}
	return r
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

// prune deletes the duplicates of a machine that has been launched.
func (c caller) prune(ctx context.Context, a Action) error {
	ctx, cancel := context.WithTimeout(ctx, terminateTimeout)
	defer cancel()
	p, err := c.prepare(ctx, a)
	if err != nil {
		return err
	}
	m := c.Store.Read().Machine(a.Machine)
	if phase := m.GetStatus().GetPhase(); m == nil || phase == launching || phase == terminating || phase == gone {
		return errs.New(errs.Canceled, "the machine's record has changed: %w", context.Canceled)
	}
	c.Hook("prune.before")
	err = p.Prune(ctx, a.Machine, a.ProviderID)
	c.Hook("prune.called")
	if err != nil {
		return err
	}
	return c.propose(ctx, &raftlogv1.Command{Kind: &raftlogv1.Command_RecordEvent{RecordEvent: &raftlogv1.RecordEvent{
		Event: &provisionrv1.Event{Reason: "DuplicatePruned", Machine: a.Machine, Pool: m.GetSpec().GetPool(), Slot: m.GetSpec().GetSlot(), Warning: true,
			Message: "the provider had made the machine more than once: only " + a.ProviderID + " is left"},
	}}})
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
