//go:build machine

package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const (
	// startWithin and stopWithin bound how long a daemon takes to answer, and to end.
	startWithin = 30 * time.Second
	stopWithin  = 10 * time.Second
	// often is how often what takes its time is looked at.
	often = 20 * time.Millisecond
)

// loopback is where everything listens.
var loopback = netip.MustParseAddr("127.0.0.1")

// program returns a copy of a program: those that Debian confines to directories of its own are told by their path.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"/usr/sbin", "/usr/bin"} {
		from, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = from.Close() }()
		path := filepath.Join(t.TempDir(), name)
		to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o700)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(to, from)
		if err := errors.Join(err, to.Close()); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Fatalf("%s is not installed: make test-prerequisites installs it", name)
	return ""
}

// freePort returns a port of the loopback address that is free for UDP and TCP.
func freePort(t *testing.T) uint16 {
	t.Helper()
	for range 100 {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
		if err != nil {
			t.Fatal(err)
		}
		at := l.Addr().(*net.TCPAddr).AddrPort()
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		_ = l.Close()
		if err == nil {
			_ = c.Close()
			return at.Port()
		}
	}
	t.Fatal("no port is free for UDP and TCP")
	return 0
}

// write writes a file of a test and returns its path.
func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// daemon is a server of somebody else's.
type daemon struct {
	name  string
	addr  netip.AddrPort
	log   *os.File
	ended chan error
}

// start runs a daemon until the test ends, and waits until it answers for the zones.
func start(t *testing.T, name string, addr netip.AddrPort, zones []string, argv ...string) *daemon {
	t.Helper()
	d := launch(t, name, addr, argv...)
	for _, origin := range zones {
		d.wait(t, func() error {
			_, err := serialOf(t.Context(), addr, origin)
			return err
		})
	}
	return d
}

// launch runs a daemon in the foreground until the test ends.
func launch(t *testing.T, name string, addr netip.AddrPort, argv ...string) *daemon {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{name: name, addr: addr, log: log, ended: make(chan error, 1)}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.TempDir(), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.ended <- cmd.Wait()
		close(d.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-d.ended:
		case <-time.After(stopWithin):
			t.Errorf("%s did not end in %s", name, stopWithin)
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // What it may have left of its group.
		if t.Failed() {
			t.Logf("%s said:\n%s", name, d.said())
		}
		_ = log.Close()
	})
	return d
}

// wait waits until a daemon does something.
func (d *daemon) wait(t *testing.T, does func() error) {
	t.Helper()
	until(t, startWithin, func() error {
		select {
		case err := <-d.ended:
			t.Fatalf("%s ended: %v\n%s", d.name, err, d.said())
		default:
		}
		return does()
	})
}

// said returns the end of what a daemon wrote.
func (d *daemon) said() string {
	text, err := os.ReadFile(d.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(text, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-60):], []byte("\n")))
}

// until looks often until there is no error, and fails the test when that takes too long.
func until(t *testing.T, within time.Duration, look func() error) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	again := time.NewTicker(often)
	defer again.Stop()
	for {
		err := look()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("after %s: %v", within, err)
		case <-t.Context().Done():
			t.Fatal(err)
		case <-again.C:
		}
	}
}

// serialOf asks a server for the serial of a zone that it answers for.
func serialOf(ctx context.Context, addr netip.AddrPort, origin string) (uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	m := new(dns.Msg)
	m.SetQuestion(origin, dns.TypeSOA)
	m.RecursionDesired = false
	answer, err := dns.ExchangeContext(ctx, m, addr.String())
	switch {
	case err != nil:
		return 0, err
	case answer.Rcode != dns.RcodeSuccess || !answer.Authoritative || len(answer.Answer) == 0:
		return 0, fmt.Errorf("%s at %s: %s, %d records", origin, addr, dns.RcodeToString[answer.Rcode], len(answer.Answer))
	}
	soa, ok := answer.Answer[0].(*dns.SOA)
	if !ok {
		return 0, fmt.Errorf("%s at %s: %s", origin, addr, answer.Answer[0])
	}
	return soa.Serial, nil
}

// output runs a tool to its end and returns what it wrote.
func output(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed: make test-prerequisites installs it", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startWithin)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}
