package server

import (
	"errors"
	"net"
	"sync"
)

// merged accepts from several listeners.
type merged struct {
	accepted chan accepted
	closed   chan struct{}

	// mu guards what follows.
	mu  sync.Mutex
	all []net.Listener
	err error
}

type accepted struct {
	conn net.Conn
	err  error
}

// merge makes one listener of several. More can be added while it serves.
func merge(all []net.Listener) *merged {
	m := &merged{accepted: make(chan accepted), closed: make(chan struct{})}
	for _, l := range all {
		m.add(l)
	}
	return m
}

// add takes a further listener, which is closed with the others.
func (m *merged) add(l net.Listener) {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.closed:
		l.Close()
		return
	default:
	}
	m.all = append(m.all, l)
	go m.accept(l)
}

func (m *merged) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		select {
		case m.accepted <- accepted{conn, err}:
		case <-m.closed:
			if conn != nil {
				conn.Close()
			}
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

func (m *merged) Accept() (net.Conn, error) {
	select {
	case a := <-m.accepted:
		return a.conn, a.err
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *merged) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.closed:
		return m.err
	default:
	}
	close(m.closed)
	for _, l := range m.all {
		m.err = errors.Join(m.err, l.Close())
	}
	return m.err
}

// Addr is that of the first listener.
func (m *merged) Addr() net.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.all[0].Addr()
}
