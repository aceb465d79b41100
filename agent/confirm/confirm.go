package confirm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// Port is the agent's own, which tells that the machine can be reached at all.
	Port = 7446
	// Watchdog is the unit, without ending, that undoes a change; it does so after watchdogAfter. Making the change and having
	// it confirmed take at most applyTimeout and confirmTimeout, which is less.
	Watchdog       = "provisionr-undo"
	watchdogAfter  = 90 * time.Second
	applyTimeout   = 40 * time.Second
	confirmTimeout = 30 * time.Second
	// attemptTimeout bounds one question, pause is between two.
	attemptTimeout = 12 * time.Second
	pause          = time.Second
	// undoTimeout bounds an undo by the agent itself; the watchdog has its own.
	undoTimeout = 2 * time.Minute
	ssh         = 22
)

// Dialer asks a server, on a connection made for it, which ports of this machine are reached from outside.
type Dialer interface {
	Confirm(ctx context.Context, ports []uint32) ([]*agentv1.Reach, error)
}

// Timers run a command later, whatever becomes of this process.
type Timers interface {
	// Arm runs the command after a time. A timer of the same name is replaced.
	Arm(ctx context.Context, name string, after time.Duration, command []string) error
	// Disarm forgets it. One that is not there is no error.
	Disarm(ctx context.Context, name string) error
}

// Admitter is implemented by a guarded resource that knows who may reach a port once it is as desired: whom it keeps out on
// purpose need not confirm it.
type Admitter interface {
	Admits(port uint16, source netip.Addr) bool
}

// Config of a Confirmer. All fields but Listening and Within are required.
type Config struct {
	Host   *host.Host
	Dialer Dialer
	Timers Timers
	// Linked reports whether a session with a server is there.
	Linked func() bool
	// Listening waits until the agent's own port is served. Nil means it is.
	Listening func(context.Context)
	// MachineID greets on the agent's own port.
	MachineID string
	// Within is how long a change may take to be confirmed. Default: 30 s, which is the most.
	Within time.Duration
	// Undo is the command that calls the function of this name.
	Undo   []string
	Logger *slog.Logger
}

// Confirmer applies guarded resources. One change is under way at a time, which the runner sees to.
type Confirmer struct {
	Config
	records records
}

// New returns a Confirmer.
func New(c Config) (*Confirmer, error) {
	if c.Host == nil || c.Dialer == nil || c.Timers == nil || c.Linked == nil || len(c.Undo) == 0 || c.Logger == nil {
		return nil, errs.New(errs.Internal, "cannot make confirmer: a required field is missing")
	}
	if c.Listening == nil {
		c.Listening = func(context.Context) {}
	}
	if c.Within <= 0 || c.Within > confirmTimeout {
		c.Within = confirmTimeout
	}
	return &Confirmer{Config: c, records: records{c.Host}}, nil
}

// Apply implements converge.Confirmer.
func (c *Confirmer) Apply(ctx context.Context, r converge.Guarded) error {
	guard := r.Guard()
	left := c.finish(ctx)
	v, err := c.records.verdicts()
	if err != nil {
		return err
	}
	if v.Confirmed[r.Name()] == guard.Fingerprint && guard.Fingerprint != "" {
		return r.Apply(ctx)
	}
	if left != nil {
		// A record of how to get back must not be replaced by one of how to get to a machine that is half changed.
		return left
	}
	if no, ok := v.Rejected[r.Name()]; ok && no.Fingerprint == guard.Fingerprint && time.Now().Before(no.Until) && time.Until(no.Until) <= rejectedFor {
		return errs.New(errs.Conflict, "rolled back: %s", no.Why).WithHint("change the pool, or wait until %s", no.Until.UTC().Format(time.DateTime))
	}
	if !c.Linked() {
		return waits()
	}
	c.Listening(ctx)
	before, err := c.ask(ctx, guard.Inbound)
	if err != nil {
		return fmt.Errorf("%w: %w", waits(), err)
	}
	p, err := c.arm(ctx, r, guard)
	if err != nil {
		return err
	}
	changing, cancel := context.WithTimeoutCause(ctx, applyTimeout, fmt.Errorf("the change is not made within %s", applyTimeout))
	err = r.Apply(changing)
	if err != nil && changing.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(changing), err)
	}
	cancel()
	if err != nil {
		// What failed half way may cut the machine off as well. Trying again is the runner's.
		return errors.Join(err, c.abort(ctx, p, nil))
	}
	if missing := c.confirmed(ctx, c.required(r, before), guard.Inbound); missing != "" {
		no := &Rejected{Fingerprint: p.Fingerprint, Why: missing, Until: time.Now().Add(rejectedFor)}
		if ctx.Err() != nil {
			missing = interrupted
			no.Why, no.Until = missing, time.Now().Add(interruptedFor)
		}
		c.Logger.Error("change rolled back", "resource", p.Resource, "reason", missing)
		return errors.Join(errs.New(errs.Conflict, "rolled back: %s", missing), c.abort(ctx, p, no))
	}
	if err := c.keep(ctx, p); err != nil {
		return errors.Join(err, c.abort(ctx, p, nil))
	}
	return nil
}

// finish undoes what is still pending, as where the undo failed before.
func (c *Confirmer) finish(ctx context.Context) error {
	p, err := undo(ctx, c.Host, "the change could not be undone at once", rejectedFor)
	if p != nil && err == nil {
		c.Logger.Warn("undid a change that was not confirmed", "resource", p.Resource)
		return c.disarm(ctx)
	}
	return err
}

func waits() error {
	return errs.New(errs.Unavailable, "waits for a server: an unconfirmed change is only made while connected")
}

// arm writes down how to undo the change, and has the service manager do so later.
func (c *Confirmer) arm(ctx context.Context, r converge.Guarded, guard converge.Guard) (*Pending, error) {
	undo, err := r.Undo(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot find out how to undo the change: %w", err)
	}
	p := &Pending{Resource: r.Name(), Fingerprint: guard.Fingerprint, Began: time.Now(), Undo: undo}
	release, err := c.records.lock()
	if err != nil {
		return nil, err
	}
	defer release()
	if err := c.records.write(undoPath, p); err != nil {
		return nil, err
	}
	if err := c.Timers.Arm(ctx, Watchdog, watchdogAfter, c.Undo); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot arm the watchdog: %w", err), c.Host.Remove(undoPath))
	}
	return p, nil
}

// keep notes that the change is confirmed. The watchdog may have been quicker.
func (c *Confirmer) keep(ctx context.Context, p *Pending) error {
	release, err := c.records.lock()
	if err != nil {
		return err
	}
	defer release()
	if now, err := c.records.pending(); err != nil || now == nil || now.Fingerprint != p.Fingerprint {
		return errors.Join(errs.New(errs.Conflict, "rolled back: not confirmed within %s", watchdogAfter), err)
	}
	if err := c.records.judge(p, nil); err != nil {
		return err
	}
	c.Logger.Info("change confirmed", "resource", p.Resource)
	return c.disarm(ctx)
}

// abort undoes the change, also where the agent is being ended meanwhile. A nil verdict lets it be tried again.
func (c *Confirmer) abort(ctx context.Context, p *Pending, no *Rejected) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	release, err := c.records.lock()
	if err != nil {
		return err
	}
	defer release()
	now, err := c.records.pending()
	if err != nil {
		return err
	}
	// Where the watchdog was quicker it may have been so while the change was being made: what came after is undone here.
	if err := back(ctx, c.Host, p.Undo); err != nil {
		return fmt.Errorf("cannot undo, the watchdog will try: %w", err)
	}
	if now == nil {
		return nil
	}
	if no == nil {
		err = c.Host.Remove(undoPath)
	} else {
		err = c.records.judge(p, no)
	}
	return errors.Join(err, c.disarm(ctx))
}

// disarm stops the watchdog, which does nothing where it finds no change to undo.
func (c *Confirmer) disarm(ctx context.Context) error {
	if err := c.Timers.Disarm(ctx, Watchdog); err != nil {
		c.Logger.Warn("cannot stop the watchdog, which will find nothing to do", "error", err)
	}
	return nil
}

// ask returns who reaches which port now.
func (c *Confirmer) ask(ctx context.Context, inbound []uint16) (map[uint16][]*agentv1.Reach, error) {
	ports := []uint32{Port}
	for _, p := range inbound {
		ports = append(ports, uint32(p))
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	list, err := c.Dialer.Confirm(ctx, ports)
	if err != nil {
		return nil, err
	}
	reached := make(map[uint16][]*agentv1.Reach)
	for _, one := range list {
		if port := uint16(one.GetPort()); c.greets(one) {
			reached[port] = append(reached[port], one)
		}
	}
	return reached, nil
}

// greets reports whether it was this machine that answered.
func (c *Confirmer) greets(r *agentv1.Reach) bool {
	switch {
	case r.GetError() != "":
		return false
	case r.Port == Port:
		return strings.TrimSpace(r.Greeting) == c.MachineID
	case r.Port == ssh:
		return strings.HasPrefix(r.Greeting, "SSH-")
	}
	return true
}

// required are the ports that were reached before, each with who did, but for those whom the resource keeps out on purpose.
func (c *Confirmer) required(r converge.Guarded, before map[uint16][]*agentv1.Reach) map[uint16]*agentv1.Reach {
	required := make(map[uint16]*agentv1.Reach)
	admitter, chooses := r.(Admitter)
	for port, list := range before {
		for _, one := range list {
			if source, err := netip.ParseAddr(one.Address); chooses && port != Port && err == nil && !admitter.Admits(port, source.Unmap()) {
				continue
			}
			required[port] = one
		}
	}
	return required
}

// confirmed waits until everything required is reached, on a fresh connection each time, and returns "", or what is missing.
func (c *Confirmer) confirmed(ctx context.Context, required map[uint16]*agentv1.Reach, inbound []uint16) (missing string) {
	ctx, cancel := context.WithTimeout(ctx, c.Within)
	defer cancel()
	for {
		missing = ""
		now, err := c.ask(ctx, inbound)
		if err != nil {
			missing = "no server could be reached: " + err.Error()
		}
		for _, port := range slices.Sorted(maps.Keys(required)) {
			if by := required[port]; err == nil && missing == "" && len(now[port]) == 0 {
				missing = fmt.Sprintf("port %d could not be reached, which %s at %s did before", port, by.Observer, by.Address)
			}
		}
		if missing == "" {
			return ""
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return missing
		case <-timer.C:
		}
	}
}

// Status is what people are told.
type Status struct {
	// Pending is the resource whose change waits to be confirmed.
	Pending   string              `json:"pending,omitempty"`
	Confirmed []string            `json:"confirmed,omitempty"`
	Rejected  map[string]Rejected `json:"rejected,omitempty"`
}

// ReadStatus returns what the records of a host say.
func ReadStatus(h *host.Host) (s Status) {
	r := records{h}
	if p, err := r.pending(); err == nil && p != nil {
		s.Pending = p.Resource
	}
	if v, err := r.verdicts(); err == nil {
		for name := range v.Confirmed {
			s.Confirmed = append(s.Confirmed, name)
		}
		s.Rejected = v.Rejected
	}
	return s
}
