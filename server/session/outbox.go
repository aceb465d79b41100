package session

import (
	"bytes"
	"sync"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// Bounds of what waits for one agent to read. Desired state and trust are not queued: only the newest matters.
const (
	maxQueued = 256
	maxWanted = 8192
	// maxMessage is the largest message from an agent, in octets.
	maxMessage = 4 << 20
)

// outbox is what is to be sent to one agent. It never blocks who adds; what exceeds its bounds fails the session.
type outbox struct {
	mu sync.Mutex
	// wake has room for one: the sender looks at everything when it wakes.
	wake    chan struct{}
	queue   []*agentv1.ServerMessage
	desired *agentv1.Desired
	trust   *agentv1.Trust
	wanted  [][]byte
	// offered is the newest desired state, which components are taken from; sentTrust is what the agent has been told.
	offered   *Compiled
	sentTrust *agentv1.Trust
	err       error
}

func newOutbox() outbox { return outbox{wake: make(chan struct{}, 1)} }

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// fail ends the sender with the first error that it is called with.
func (o *outbox) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
	o.signal()
}

// add queues a message.
func (o *outbox) add(m *agentv1.ServerMessage) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w := m.GetWelcome(); w != nil {
		o.sentTrust = w.GetTrust()
	}
	if len(o.queue) >= maxQueued {
		o.err = slow()
	} else {
		o.queue = append(o.queue, m)
	}
	o.signal()
}

func slow() error {
	return errs.New(errs.Exhausted, "the agent does not read what it is sent").WithHint("it may reconnect")
}

// offer gives the newest desired state, which is sent if a component is another than in the one before.
func (o *outbox) offer(c *Compiled) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.offered != nil && o.offered.revision == c.revision {
		return
	}
	o.offered, o.desired = c, c.Desired
	o.signal()
}

// offerTrust gives the newest trust, which is sent if it says something new.
func (o *outbox) offerTrust(t *agentv1.Trust) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if sameTrust(o.sentTrust, t) {
		return
	}
	o.sentTrust, o.trust = t, t
	o.signal()
}

func sameTrust(a, b *agentv1.Trust) bool {
	if a == nil || b == nil || !bytes.Equal(a.Roots, b.Roots) || len(a.Endpoints) != len(b.Endpoints) {
		return false
	}
	for i := range a.Endpoints {
		if a.Endpoints[i] != b.Endpoints[i] {
			return false
		}
	}
	return true
}

// started reports whether a desired state was offered.
func (o *outbox) started() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.offered != nil
}

// want queues components, by hash.
func (o *outbox) want(hashes [][]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.wanted)+len(hashes) > maxWanted {
		o.err = slow()
	} else {
		o.wanted = append(o.wanted, hashes...)
	}
	o.signal()
}

// next returns the next message, or none. A component that the newest desired state does not have is passed over: the
// agent is about to hear of the state that replaced the one it asks about.
func (o *outbox) next() (*agentv1.ServerMessage, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.err != nil:
		return nil, o.err
	case len(o.queue) > 0:
		m := o.queue[0]
		o.queue[0], o.queue = nil, o.queue[1:]
		return m, nil
	case o.trust != nil:
		m := &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Trust{Trust: o.trust}}
		o.trust = nil
		return m, nil
	case o.desired != nil:
		m := &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Desired{Desired: o.desired}}
		o.desired = nil
		return m, nil
	}
	for len(o.wanted) > 0 {
		hash := o.wanted[0]
		o.wanted = o.wanted[1:]
		if o.offered == nil {
			continue
		}
		if body, ok := o.offered.Body(hash); ok {
			return &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Component{Component: &agentv1.Component{Hash: hash, Body: body}}}, nil
		}
	}
	o.queue, o.wanted = nil, nil
	return nil, nil
}

// sink is the sending half of a stream.
type sink interface {
	Send(*agentv1.ServerMessage) error
}

// send sends what the outbox gets, until it fails. A message that is not taken within the timeout ends the session.
func (s *session) send(stream sink, timeout time.Duration) error {
	stalled := time.AfterFunc(time.Hour, func() { s.end(slow()) })
	defer stalled.Stop()
	stalled.Stop()
	for {
		m, err := s.out.next()
		if err != nil {
			return err
		}
		if m == nil {
			<-s.out.wake
			continue
		}
		stalled.Reset(timeout)
		if err := stream.Send(m); err != nil {
			return err
		}
		stalled.Stop()
	}
}
