package server

import (
	"errors"
	"net"
	"sync"
)

// merged accepts from several listeners.
type merged struct {
	all      []net.Listener
	accepted chan accepted
	closed   chan struct{}
	once     sync.Once
	err      error
}

type accepted struct {
	conn net.Conn
	err  error
}

// merge makes one listener of several; one stays as it is.
func merge(all []net.Listener) net.Listener {
	if len(all) == 1 {
		return all[0]
	}
	m := &merged{all: all, accepted: make(chan accepted), closed: make(chan struct{})}
	for _, l := range all {
		go m.accept(l)
	}
	return m
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
	m.once.Do(func() {
		close(m.closed)
		for _, l := range m.all {
			m.err = errors.Join(m.err, l.Close())
		}
	})
	return m.err
}

func (m *merged) Addr() net.Addr { return m.all[0].Addr() }
