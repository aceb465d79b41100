//go:build machine

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/cgroup"
	"github.com/provisionr/provisionr/server/provider"
)

// crash is what a server that gets killed is told, as its second argument.
type crash struct {
	ClusterID, DataDir, Prefix string
	N                          int
}

const crashCommand = "crash-child"

// TestMain lets the test binary be the server that TestCrash kills.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == crashCommand {
		if err := crashMain(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// crashMain launches a machine and terminates it.
func crashMain(argument string) error {
	var c crash
	if err := json.Unmarshal([]byte(argument), &c); err != nil {
		return err
	}
	p, err := New(Config{Site: host.Site{ClusterID: c.ClusterID, DataDir: c.DataDir}})
	if err != nil {
		return err
	}
	prefix := netip.MustParsePrefix(c.Prefix)
	spec := &provisionrv1.NetworkSpec{Cidr: c.Prefix, Gateway: prefix.Addr().Next().String(), DnsServers: []string{"192.0.2.53"}}
	launch := (&stand{config: p.config, p: p, prefix: prefix, network: spec}).request(c.N)
	if _, err := p.Launch(context.Background(), launch); err != nil {
		return err
	}
	return p.Terminate(context.Background(), launch.Request.GetMachineId(), "")
}

// TestCrash kills a server with SIGKILL at many moments of a launch and the termination that follows at once. What is
// left must always be something that a new server can launch, once, and terminate, wholly.
func TestCrash(t *testing.T) {
	s := newStand(t)
	if _, err := s.p.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	outcomes := map[string]int{}
	for n := range 25 {
		delay := time.Duration(n) * 24 * time.Millisecond
		argument, err := json.Marshal(crash{ClusterID: s.config.ClusterID, DataDir: s.config.DataDir, Prefix: s.prefix.String(), N: n})
		if err != nil {
			t.Fatal(err)
		}
		child := exec.CommandContext(t.Context(), "/proc/self/exe", crashCommand, string(argument))
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(delay) // the fault is to come at a moment
		if err := child.Process.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		_ = child.Wait() // it was killed, or had finished
		restarted := s.open()
		state, ok := s.states()[machineID(n)]
		outcomes[string(state)]++
		if ok && state != provider.Starting && state != provider.Running && state != provider.Stopped {
			t.Errorf("killed after %v: machine is %q", delay, state)
		}
		instance, err := restarted.Launch(t.Context(), s.request(n))
		if buried := restarted.machines.CheckBuried(machineID(n)); buried != nil {
			outcomes["terminating"]++
			if provider.KindOf(err) != provider.Unknown {
				t.Errorf("killed after %v: a machine that was being terminated came back as %+v, %v", delay, instance, err)
			}
		} else if err != nil {
			t.Fatalf("killed after %v, was %q: %v", delay, state, err)
		}
		if err == nil && instance.State != provider.Running && state != provider.Stopped {
			t.Errorf("killed after %v, was %q: launched again it is %s", delay, state, instance.State)
		}
		if err := restarted.Terminate(t.Context(), machineID(n), ""); err != nil {
			t.Fatalf("killed after %v: %v", delay, err)
		}
		group, err := restarted.group(machineID(n))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{group.Dir, restarted.machines.Path(machineID(n)), "/sys/class/net/" + restarted.linkName(machineID(n))} {
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("killed after %v: %s is left: %v", delay, path, err)
			}
		}
	}
	t.Logf("states after the kill: %v", outcomes)
	if outcomes[string(provider.Starting)] == 0 || outcomes["terminating"] == 0 || outcomes[""] == 0 {
		t.Errorf("the kills met too few moments: %v", outcomes)
	}
}

// TestCleanup: the end of newStand finds a running machine, a stopped one, halves of three more, and removes them all.
func TestCleanup(t *testing.T) {
	s := newStand(t)
	for n := 1; n <= 2; n++ {
		s.launch(s.p, s.request(n))
	}
	if err := unix.Kill(s.record(1).Process.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	group, err := s.p.group(machineID(3))
	if err != nil {
		t.Fatal(err)
	}
	n, ok := s.p.networks.Find("vms")
	if !ok {
		t.Fatal("the network is unknown")
	}
	if err := errors.Join(
		group.Create(cgroup.Limits{}), s.p.networks.AddTap(s.p.linkName(machineID(3)), n),
		os.MkdirAll(s.p.machines.Path(machineID(4)), 0o700), os.MkdirAll(s.p.machines.Path(machineID(5))+".tmp", 0o700),
	); err != nil {
		t.Fatal(err)
	}
	if state := s.states()[machineID(4)]; state != provider.Stopped {
		t.Errorf("a directory without a request is %q", state)
	}
}
