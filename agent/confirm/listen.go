package confirm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// maxGreeted bounds the connections that are served at a time; further ones are closed at once.
	maxGreeted   = 16
	greetTimeout = 5 * time.Second
)

// Listen serves the agent's own port on the machine's address.
func Listen(ctx context.Context, address, machineID string, listening func()) error {
	return Greet(ctx, address, Port, machineID, listening)
}

// Greet serves a port of an address: each caller is told the machine's id. It returns nil when ctx ends, and calls listening
// once it does listen. The address need not be up yet.
func Greet(ctx context.Context, address string, port uint16, machineID string, listening func()) error {
	lc := net.ListenConfig{Control: freeBind}
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
	if err != nil {
		return fmt.Errorf("cannot listen for callers: %w", err)
	}
	listening()
	return serve(ctx, l, machineID)
}

// freeBind lets the listener be made before the network has given the machine its address (IP_FREEBIND in ip(7)).
func freeBind(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_FREEBIND, 1)
	})
	return errors.Join(err, failed)
}

func serve(ctx context.Context, l net.Listener, machineID string) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer func() { _ = l.Close() }()
	free := make(chan struct{}, maxGreeted)
	var callers sync.WaitGroup
	defer callers.Wait()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED):
			timer := time.NewTimer(pause / 10)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			timer.Stop()
			continue
		case err != nil:
			return fmt.Errorf("cannot accept callers: %w", err)
		}
		select {
		case free <- struct{}{}:
			callers.Go(func() {
				defer func() { <-free }()
				greet(conn, machineID)
			})
		default:
			_ = conn.Close()
		}
	}
}

// greet writes the id. A caller that does not take it loses only its own answer.
func greet(conn net.Conn, machineID string) {
	defer func() { _ = conn.Close() }()
	if conn.SetDeadline(time.Now().Add(greetTimeout)) == nil {
		_, _ = io.WriteString(conn, machineID+"\n")
	}
}
