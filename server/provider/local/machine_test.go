//go:build machine

package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/local/container"
)

// bootBudget is far above the two seconds that a boot takes: it is for a loaded machine.
const bootBudget = 60 * time.Second

func TestMachines(t *testing.T) {
	s := newStage(t)
	start := time.Now()
	if _, err := s.p.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("root file system after %v", time.Since(start).Round(time.Millisecond))
	s.run()

	t.Run("one boots", func(t *testing.T) {
		s := s.in(t)
		start := time.Now()
		s.launch(9, "date +%s.%N > /root/first")
		t.Logf("system running after %v, first command of user-data after %v", time.Since(start).Round(time.Millisecond), s.first(9).Sub(start).Round(time.Millisecond))
		if err := s.p.Terminate(t.Context(), machineID(9), ""); err != nil {
			t.Error(err)
		}
		if states := s.states(); len(states) != 0 {
			t.Errorf("after termination: %v", states)
		}
	})

	t.Run("three boot at once", func(t *testing.T) {
		s := s.in(t)
		start := time.Now()
		var launches sync.WaitGroup
		for n := 1; n <= 3; n++ {
			launches.Go(func() {
				if _, err := s.p.Launch(t.Context(), s.request(n, "date +%s.%N > /root/first")); err != nil {
					t.Error(err)
				}
			})
		}
		launches.Wait()
		for n := 1; n <= 3; n++ {
			s.boot(n)
		}
		t.Logf("systems running after %v", time.Since(start).Round(time.Millisecond))
		for n := 1; n <= 3; n++ {
			took := s.first(n).Sub(start)
			t.Logf("machine %d: first command of user-data after %v", n, took.Round(time.Millisecond))
			if took > bootBudget {
				t.Errorf("machine %d booted in %v", n, took)
			}
			if state := s.states()[machineID(n)]; state != provider.Running {
				t.Errorf("machine %d is %s", n, state)
			}
		}
	})
	if t.Failed() {
		return
	}

	t.Run("inside", func(t *testing.T) {
		s := s.in(t)
		for script, want := range map[string]string{
			"hostname":                        "web-1",
			"cat /proc/1/comm":                "systemd",
			"cat /etc/machine-id":             strings.TrimSpace(string(container.MachineIDFile(machineID(1)))),
			"cat /sys/class/net/eth0/address": host.HardwareAddress(machineID(1)).String(),
			"systemd-run --quiet --wait -p StandardOutput=journal+console echo said; echo ok":      "ok",
			"hostnamectl set-hostname other && hostname && hostnamectl set-hostname web-1":         "other",
			"nft add table inet x && nft list tables && nft delete table inet x":                   "table inet x",
			"ip tuntap add dev t0 mode tun && ip -br link show t0 | cut -c-2 && ip link delete t0": "t0",
			"stat -c '%U %a' /root /etc/shadow /var/lib/cloud/seed/nocloud/user-data":              "root 700\nroot 640\nroot 600",
			"su -s /bin/sh nobody -c id | cut -d' ' -f1":                                           "uid=65534(nobody)",
		} {
			if got := s.sh(1, script); got != want {
				t.Errorf("%s: got %q, want %q", script, got, want)
			}
		}
		console, err := s.p.Console(t.Context(), machineID(1), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"--- cloud-init ---", "finished at", "--- journal ---", "Startup finished"} {
			if !strings.Contains(console, part) {
				t.Errorf("console has no %q:\n%s", part, console)
			}
		}
		if len(console) > consoleLimit {
			t.Errorf("console has %d bytes", len(console))
		}
	})

	t.Run("network", func(t *testing.T) {
		s := s.in(t)
		s.sh(1, fmt.Sprintf("ping -c1 -W2 %s && ping -c1 -W2 %s && ping -c1 -W2 %s", s.address(2), s.address(3), s.network.GetGateway()))
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(s.address(1).String(), "22"), 5*time.Second)
		if err != nil {
			t.Fatalf("sshd does not answer: %v", err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		outside := s.outside()
		s.sh(1, "ping -c1 -W2 "+outside.address) // comes back only when masqueraded
		if out, err := outside.run("ping", "-c1", "-W1", s.address(1).String()); err == nil {
			t.Errorf("the world reaches a machine without being asked:\n%s", out)
		}
	})

	t.Run("services", func(t *testing.T) {
		s := s.in(t)
		gateway := s.network.GetGateway()
		if out := s.sh(1, "chronyd -Q -t 10 'server "+gateway+" iburst maxsamples 1' 2>&1"); !strings.Contains(out, "System clock wrong by 0.0") && !strings.Contains(out, "System clock wrong by -0.0") {
			t.Errorf("chronyd says: %s", out)
		}
		proxied := "-o Acquire::http::Proxy=" + s.network.GetHttpProxy()
		s.sh(1, "apt-get -q "+proxied+" update")
		for n := 1; n <= 2; n++ {
			s.sh(n, "apt-get -q "+proxied+" update && apt-get -qy "+proxied+" install hello && hello")
		}
		stored, err := filepath.Glob(filepath.Join(s.p.config.Archive.CacheDir, "apt", "*-hello_*.deb"))
		if err != nil || len(stored) == 0 {
			t.Errorf("the package is not in the cache: %v %v", stored, err)
		}
		if out := s.sh(1, "curl -sS -o /dev/null -w '%{http_code}' -x "+s.network.GetHttpProxy()+" http://127.0.0.1:1/"); out != "403" {
			t.Errorf("the proxy answers %s for a foreign host", out)
		}
		if out := s.sh(1, "curl -sS -x "+s.network.GetHttpProxy()+" https://deb.debian.org/ 2>&1 || true"); !strings.Contains(out, "403") {
			t.Errorf("the proxy answers a CONNECT: %s", out)
		}
	})

	t.Run("isolation", func(t *testing.T) { testIsolation(t, s.in(t)) })
	t.Run("idempotence", func(t *testing.T) { testIdempotence(t, s.in(t)) })
	t.Run("stop", func(t *testing.T) { testStop(t, s.in(t)) })
}

// first is when machine n ran the first command of its user-data.
func (s *stage) first(n int) time.Time {
	s.t.Helper()
	seconds, err := strconv.ParseFloat(s.sh(n, "cat /root/first"), 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return time.UnixMicro(int64(seconds * 1e6))
}

// testIdempotence: another Provider on the directory knows the machines; repeated calls change nothing.
func testIdempotence(t *testing.T, s *stage) {
	before, err := container.Record(s.p.machineDir(machineID(1)))
	if err != nil {
		t.Fatal(err)
	}
	restarted := s.open()
	found := 0
	for instance, err := range restarted.List(t.Context()) {
		if err != nil || instance.State != provider.Running {
			t.Errorf("adopted %+v, %v", instance, err)
		}
		found++
	}
	if found != 3 {
		t.Errorf("adopted %d machines of 3", found)
	}
	var launches sync.WaitGroup
	for _, p := range []*Provider{s.p, restarted, restarted} {
		launches.Go(func() {
			if instance, err := p.Launch(t.Context(), s.request(1)); err != nil || instance.State != provider.Running {
				t.Errorf("second launch: %+v, %v", instance, err)
			}
		})
	}
	launches.Wait()
	if after, err := container.Record(s.p.machineDir(machineID(1))); err != nil || after != before {
		t.Errorf("a second launch replaced %+v by %+v, %v", before, after, err)
	}
	if _, err := restarted.EnsureNetwork(t.Context(), s.networkObject()); err != nil {
		t.Error(err)
	}
	s.sh(1, "ping -c1 -W2 "+s.address(2).String())
	if _, err := restarted.Enter(t.Context(), machineID(1), "true"); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := restarted.Terminate(t.Context(), machineID(1), ""); err != nil {
			t.Error(err)
		}
	}
	if _, there := s.states()[machineID(1)]; there {
		t.Error("a terminated machine is listed")
	}
	if _, err := s.p.Console(t.Context(), machineID(1), ""); provider.KindOf(err) != provider.NotFound {
		t.Errorf("console of a terminated machine: %v", err)
	}
	if _, err := os.Stat("/sys/class/net/" + s.p.linkName(machineID(1))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link of a terminated machine is left: %v", err)
	}
}

// testStop: machines whose init ends, from outside or from inside, are stopped, and stay so until they are terminated.
func testStop(t *testing.T, s *stage) {
	init, err := container.Record(s.p.machineDir(machineID(2)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(init.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.waitFor(2, provider.Stopped)
	instance, err := s.p.Launch(t.Context(), s.request(2))
	if err != nil || instance.State != provider.Stopped {
		t.Errorf("launch of a stopped machine: %+v, %v", instance, err)
	}
	if console, err := s.p.Console(t.Context(), machineID(2), ""); err != nil || !strings.Contains(console, "Startup finished") {
		t.Errorf("console of a stopped machine: %v\n%s", err, console)
	}
	_, _ = s.p.Enter(t.Context(), machineID(3), "systemctl", "reboot") // it may be killed on the way
	s.waitFor(3, provider.Stopped)
	for n := 2; n <= 3; n++ {
		if err := s.p.Terminate(t.Context(), machineID(n), ""); err != nil {
			t.Error(err)
		}
	}
}

func (s *stage) waitFor(n int, want provider.State) {
	s.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); s.states()[machineID(n)] != want; {
		if time.Now().After(deadline) {
			s.t.Fatalf("machine %d is %s, not %s", n, s.states()[machineID(n)], want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// outside is a network namespace that knows the way to the machines, beyond the host.
type outside struct{ name, address string }

func (s *stage) outside() outside {
	s.t.Helper()
	o := outside{name: "pvr-" + s.config.ClusterID, address: "198.51.100.2"}
	host := "pvo" + host.Digest(s.config.ClusterID)
	s.t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", o.name).Run() })
	for _, command := range []string{
		"ip netns add " + o.name,
		"ip link add " + host + " type veth peer name eth0 netns " + o.name,
		"ip address add 198.51.100.1/30 dev " + host,
		"ip link set " + host + " up",
		"ip -n " + o.name + " address add 198.51.100.2/30 dev eth0",
		"ip -n " + o.name + " link set eth0 up",
		// For the direction inwards alone: an answer to an unmasqueraded address must not get back.
		"ip -n " + o.name + " route add " + s.address(1).String() + "/32 via 198.51.100.1 table 7",
		"ip -n " + o.name + " rule add to " + s.address(1).String() + " iif lo lookup 7",
	} {
		fields := strings.Fields(command)
		if out, err := exec.CommandContext(s.t.Context(), fields[0], fields[1:]...).CombinedOutput(); err != nil {
			s.t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	return o
}

func (o outside) run(command ...string) ([]byte, error) {
	return exec.CommandContext(context.Background(), "ip", append([]string{"netns", "exec", o.name}, command...)...).CombinedOutput()
}
