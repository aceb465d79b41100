package firewall

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// TestGateway has a member of a VPN reach a host behind a gateway that knows nothing of the VPN, and nothing else behind it.
func TestGateway(t *testing.T) {
	if !hosttest.InNamespace(t) {
		return
	}
	client, behind := namespace(t), namespace(t)
	for _, script := range []string{
		fmt.Sprintf("ip link set lo up; ip link add pvn0 type veth peer name eth0 netns %d; ip link add lan0 type veth peer name eth0 netns %d", client, behind),
		"ip address add 10.99.0.1/24 dev pvn0; ip link set pvn0 up; ip address add 10.4.0.1/16 dev lan0; ip address add 10.5.0.1/16 dev lan0; ip link set lan0 up",
		"echo 1 > /proc/sys/net/ipv4/ip_forward",
	} {
		shell(t, script)
	}
	inside(t, client, func() error {
		return sh("ip address add 10.99.0.9/24 dev eth0; ip link set eth0 up; ip route add default via 10.99.0.1")
	})
	inside(t, behind, func() error {
		if err := sh("ip address add 10.4.0.9/16 dev eth0; ip address add 10.5.0.9/16 dev eth0; ip link set eth0 up"); err != nil {
			return err
		}
		l, err := net.Listen("tcp", "0.0.0.0:80")
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, c.RemoteAddr())
				c.Close()
			}
		}()
		t.Cleanup(func() { l.Close() })
		return nil
	})
	s := state(nil)
	s.Machine.Vpn = &agentv1.VpnMember{Cidr: "10.99.0.0/24", Gateway: true, Routes: []string{"10.4.0.0/16"}}
	h := host.Host{Root: t.TempDir(), Commands: nft{}, Units: &hosttest.Units{}}
	h.Units.(*hosttest.Units).Set(unit, host.Unit{Load: "loaded", File: "disabled"})
	settle(t, New(s, &h)[0].(*firewall), "missing in the kernel")
	inside(t, client, func() error {
		c, err := net.DialTimeout("tcp", "10.4.0.9:80", 10*time.Second)
		if err != nil {
			return fmt.Errorf("what is behind the gateway: %w", err)
		}
		defer c.Close()
		var from string
		if _, err := fmt.Fscan(c, &from); err != nil || !strings.HasPrefix(from, "10.4.0.1:") {
			return fmt.Errorf("the host behind the gateway saw %q, %w", from, err)
		}
		if c, err := net.DialTimeout("tcp", "10.5.0.9:80", 300*time.Millisecond); err == nil {
			c.Close()
			return fmt.Errorf("a range that is not the VPN's was reached")
		}
		return nil
	})
}

// namespace makes a network namespace and returns a process in it.
func namespace(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("unshare", "-n", "sh", "-c", "echo up; exec cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if _, err := out.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// inside calls f on a thread in the network namespace of a process. The thread ends with it.
func inside(t *testing.T, pid int, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			return f()
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func sh(script string) error {
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return nil
}

func shell(t *testing.T, script string) {
	t.Helper()
	if err := sh(script); err != nil {
		t.Fatal(err)
	}
}
