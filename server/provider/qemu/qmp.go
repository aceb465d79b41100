package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// socketName is QEMU's control socket in the machine's directory.
const socketName = "qmp.sock"

const (
	// qmpTimeout bounds a conversation; QEMU answers within milliseconds unless its host is overloaded.
	qmpTimeout = 5 * time.Second
	// statusTimeout bounds the question for the state, which a list puts to one machine after the other.
	statusTimeout = time.Second
	// lineLimit bounds one message of QEMU's.
	lineLimit = 1 << 20
)

// monitor speaks the QEMU Machine Protocol (QEMU, docs/interop/qmp-spec.txt) with one machine.
type monitor struct {
	conn  net.Conn
	lines *bufio.Scanner
}

// dial connects to the machine whose directory it is. A socket's path may have 107 bytes at most (unix(7)), which a
// directory may have already: it is reached through an open descriptor.
func dial(ctx context.Context, dir string) (*monitor, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }() // only a way
	ctx, cancel := context.WithTimeout(ctx, qmpTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName))
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	return greet(conn, deadline)
}

// greet reads QEMU's greeting and leaves the negotiation of capabilities. The deadline is the whole conversation's.
func greet(conn net.Conn, deadline time.Time) (*monitor, error) {
	m := &monitor{conn: conn, lines: bufio.NewScanner(conn)}
	m.lines.Buffer(nil, lineLimit)
	err := conn.SetDeadline(deadline)
	if err == nil {
		var greeting struct{ QMP json.RawMessage }
		if err = m.read(&greeting); err == nil && len(greeting.QMP) == 0 {
			err = errors.New("it does not speak QMP")
		}
	}
	if err == nil {
		err = m.execute("qmp_capabilities", nil)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot talk to QEMU: %w", err), conn.Close())
	}
	return m, nil
}

func (m *monitor) read(into any) error {
	if !m.lines.Scan() {
		return errors.Join(errors.New("the connection ended"), m.lines.Err())
	}
	return json.Unmarshal(m.lines.Bytes(), into)
}

// execute runs a command and decodes its result, unless into is nil. Events that come in between are dropped.
func (m *monitor) execute(command string, into any) error {
	request, err := json.Marshal(map[string]string{"execute": command})
	if err != nil {
		return err
	}
	if _, err := m.conn.Write(append(request, '\n')); err != nil {
		return err
	}
	for {
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Class, Desc string }
			Event  string
		}
		if err := m.read(&answer); err != nil {
			return err
		}
		switch {
		case answer.Event != "":
		case answer.Error != nil:
			return fmt.Errorf("%s: %s", command, answer.Error.Desc)
		case into == nil:
			return nil
		default:
			return json.Unmarshal(answer.Return, into)
		}
	}
}

// status is the machine's run state (QEMU QMP reference manual, RunState).
func (m *monitor) status() (string, error) {
	var s struct{ Status string }
	err := m.execute("query-status", &s)
	return s.Status, err
}

func (m *monitor) close() error { return m.conn.Close() }

// ask connects for one question.
func ask[T any](ctx context.Context, dir string, question func(*monitor) (T, error)) (T, error) {
	m, err := dial(ctx, dir)
	if err != nil {
		var none T
		return none, err
	}
	answer, err := question(m)
	return answer, errors.Join(err, m.close())
}
