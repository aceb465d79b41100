package agent

import (
	"context"
	"sync"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// listener serves a port on the machine's address, which a new desired state may change.
type listener struct {
	name  string
	serve func(ctx context.Context, address, machineID string) error
	moved chan struct{}

	mu      sync.Mutex
	machine *agentv1.MachineComponent
	// ready is closed while it listens.
	ready chan struct{}
	open  bool
}

func newListener(name string, serve func(ctx context.Context, address, machineID string) error) *listener {
	return &listener{name: name, serve: serve, moved: make(chan struct{}, 1), ready: make(chan struct{})}
}

// move has it listen on the address of the machine.
func (l *listener) move(m *agentv1.MachineComponent) {
	l.mu.Lock()
	l.machine = m
	l.mu.Unlock()
	select {
	case l.moved <- struct{}{}:
	default:
	}
}

// began is called when it listens.
func (l *listener) began() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.open {
		l.open = true
		close(l.ready)
	}
}

// ended is called when it does not listen any more.
func (l *listener) ended() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open {
		l.open, l.ready = false, make(chan struct{})
	}
}

// wait waits until it listens or ctx ends.
func (l *listener) wait(ctx context.Context) {
	l.mu.Lock()
	ready := l.ready
	l.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-ready:
	}
}

// listen returns the loop of a listener.
func (a *Agent) listen(l *listener) func(context.Context) error {
	return func(ctx context.Context) error {
		if l.serve == nil {
			return nil
		}
		address, stop := "", func() {}
		defer func() { stop() }()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-l.moved:
			}
			l.mu.Lock()
			m := l.machine
			l.mu.Unlock()
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
				_ = a.supervise(serving, l.name, func(ctx context.Context) error {
					defer l.ended()
					return l.serve(ctx, m.Address, m.MachineId)
				})
			})
			stop = func() {
				cancel()
				done.Wait()
			}
		}
	}
}
