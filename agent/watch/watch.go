package watch

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	firstRetry = time.Second
	lastRetry  = time.Minute
	// readSize is the buffer of a source: the largest message of netlink(7) that the kernel sends to groups is half of it.
	readSize = 32 << 10
)

// Config of a Watcher.
type Config struct {
	// Root is the directory that all paths are below. Default: "/".
	Root string
	// Touch is called with the triggers that something happened to. It must return soon. Required.
	Touch func(...converge.Trigger)
	// Lost is called when events may have been missed: all is to be checked. Required.
	Lost func()
	// Logger of sources that end. Required.
	Logger *slog.Logger
}

// Status is what is known of one source.
type Status struct {
	Source string `json:"source"`
	// Watched is how many names it watches.
	Watched int `json:"watched"`
	// Events that it told, since the agent began.
	Events uint64 `json:"events"`
	// Error says why it does not run.
	Error string `json:"error,omitempty"`
}

// source is one origin of events.
type source interface {
	// set replaces the names to tell of.
	set(names []string)
	// run tells of them until ctx ends.
	run(ctx context.Context, t teller) error
}

// teller is what a source tells to.
type teller struct {
	// touch tells of names, as they were set.
	touch func(names ...string)
	// lost tells that events may have been missed.
	lost func()
}

// Watcher watches what it was set to. Its methods are safe for several goroutines.
type Watcher struct {
	config  Config
	sources map[converge.TriggerKind]source

	mu     sync.Mutex
	states map[converge.TriggerKind]*state
}

// state of one source. Needed is signalled when it is first wanted.
type state struct {
	Status
	needed chan struct{}
}

// New returns a Watcher of nothing.
func New(c Config) (*Watcher, error) {
	if c.Touch == nil || c.Lost == nil || c.Logger == nil {
		return nil, errs.New(errs.Internal, "cannot make watcher: a required field is missing")
	}
	if c.Root == "" {
		c.Root = "/"
	}
	w := &Watcher{config: c, states: make(map[converge.TriggerKind]*state), sources: map[converge.TriggerKind]source{
		converge.OnFile: newFiles(c.Root), converge.OnUnit: newUnits(connectBus), converge.OnFirewall: newTables(), converge.OnNetwork: &network{},
	}}
	for kind := range w.sources {
		w.states[kind] = &state{Status: Status{Source: string(kind)}, needed: make(chan struct{}, 1)}
	}
	return w, nil
}

// Set replaces what is watched.
func (w *Watcher) Set(triggers []converge.Trigger) {
	names := make(map[converge.TriggerKind][]string)
	for _, t := range triggers {
		names[t.Kind] = append(names[t.Kind], t.Name)
	}
	for kind, source := range w.sources {
		source.set(names[kind])
		w.mu.Lock()
		s := w.states[kind]
		s.Watched = len(names[kind])
		w.mu.Unlock()
		if len(names[kind]) > 0 {
			select {
			case s.needed <- struct{}{}:
			default:
			}
		}
	}
}

// Status returns that of each source.
func (w *Watcher) Status() []Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []Status
	for _, kind := range []converge.TriggerKind{converge.OnFile, converge.OnUnit, converge.OnFirewall, converge.OnNetwork} {
		all = append(all, w.states[kind].Status)
	}
	return all
}

// Run watches until ctx ends, and returns nil then. A source starts when something of it is first watched.
func (w *Watcher) Run(ctx context.Context) error {
	var sources sync.WaitGroup
	for kind, source := range w.sources {
		sources.Go(func() { w.keep(ctx, kind, source) })
	}
	sources.Wait()
	return nil
}

// keep runs a source, again with back-off when it ends.
func (w *Watcher) keep(ctx context.Context, kind converge.TriggerKind, source source) {
	s := w.states[kind]
	select {
	case <-ctx.Done():
		return
	case <-s.needed:
	}
	t := teller{lost: w.config.Lost, touch: func(names ...string) {
		triggers := make([]converge.Trigger, len(names))
		for i, name := range names {
			triggers[i] = converge.Trigger{Kind: kind, Name: name}
		}
		w.mu.Lock()
		s.Events += uint64(len(names))
		w.mu.Unlock()
		w.config.Touch(triggers...)
	}}
	retry, reported := firstRetry, ""
	for {
		began := time.Now()
		w.note(s, nil)
		err := source.run(ctx, t)
		if ctx.Err() != nil {
			return
		}
		w.note(s, err)
		if time.Since(began) > lastRetry {
			retry = firstRetry
		}
		if text := err.Error(); text != reported {
			reported = text
			w.config.Logger.Warn("a source of events ended: what it would tell is found by the full check", "source", kind, "error", err)
		}
		timer := time.NewTimer(retry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		retry = min(2*retry, lastRetry)
	}
}

func (w *Watcher) note(s *state, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.Error = ""; err != nil {
		s.Error = err.Error()
	}
}
