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
	// at is the address that it listens on now; empty for none. Changed is closed when that, or where it should, is another.
	at      string
	changed chan struct{}
}

func newListener(name string, serve func(ctx context.Context, address, machineID string) error) *listener {
	return &listener{name: name, serve: serve, moved: make(chan struct{}, 1), changed: make(chan struct{})}
}

// change tells those who wait.
func (l *listener) change(with func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	with()
	close(l.changed)
	l.changed = make(chan struct{})
}

// move has it listen on the address of the machine.
func (l *listener) move(m *agentv1.MachineComponent) {
	l.change(func() { l.machine = m })
	select {
	case l.moved <- struct{}{}:
	default:
	}
}

// began is called when it listens on an address, ended when it does not any more.
func (l *listener) began(address string) { l.change(func() { l.at = address }) }
func (l *listener) ended()               { l.change(func() { l.at = "" }) }

// wait waits until it listens on the machine's address or ctx ends.
func (l *listener) wait(ctx context.Context) {
	for {
		l.mu.Lock()
		there, changed := l.at != "" && l.at == l.machine.GetAddress(), l.changed
		l.mu.Unlock()
		if there {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
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
