package prove

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

// maxCanary bounds the connections that the listener serves at a time; further ones are closed at once.
const maxCanary = 16

// Canary listens on port 7447 of the machine's address and tells each caller the machine's id. Nobody but the machine
// itself should ever reach it: peers prove their deny by it. It returns nil when ctx ends. The address need not be up yet.
func Canary(ctx context.Context, address, machineID string) error {
	lc := net.ListenConfig{Control: freeBind}
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(CanaryPort)))
	if err != nil {
		return fmt.Errorf("cannot listen for the deny proof: %w", err)
	}
	return serveCanary(ctx, l, machineID)
}

// freeBind lets the listener be made before the network has given the machine its address (IP_FREEBIND in ip(7)).
func freeBind(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_FREEBIND, 1)
	})
	return errors.Join(err, failed)
}

func serveCanary(ctx context.Context, l net.Listener, machineID string) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer func() { _ = l.Close() }()
	free := make(chan struct{}, maxCanary)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) {
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot accept for the deny proof: %w", err)
		}
		select {
		case free <- struct{}{}:
			wg.Go(func() {
				defer func() { <-free }()
				tell(conn, machineID)
			})
		default:
			_ = conn.Close()
		}
	}
}

// tell writes the id. A caller that does not take it loses only its own answer.
func tell(conn net.Conn, machineID string) {
	defer func() { _ = conn.Close() }()
	if conn.SetDeadline(time.Now().Add(probeTimeout)) == nil {
		_, _ = io.WriteString(conn, machineID+"\n")
	}
}
