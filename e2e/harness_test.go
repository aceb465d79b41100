//go:build machine

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// repo is the root of the checkout; the binaries are in its bin/.
var repo = func() string {
	dir, err := filepath.Abs("..")
	if err != nil {
		panic(err)
	}
	return dir
}()

func binary(name string) string { return filepath.Join(repo, "bin", name) }

// dev is a development cluster of one test: one `provisionr dev` process tree and its data.
type dev struct {
	t      *testing.T
	dir    string // of the log, the context file and manifests
	disk   string // of the data directory
	port   int
	args   []string
	cmd    *exec.Cmd
	exited chan error
}

// startDev starts a cluster with its own data, context file, ports and network, and removes it all when the test ends.
// The port is of the API; the next ones serve the rest.
func startDev(t *testing.T, cidr string, port int, args ...string) *dev {
	t.Helper()
	return startDevOn(t, "", cidr, port, args...)
}

// startDevOn is startDev with the data below a directory of the test's choice; "" is one of its own.
func startDevOn(t *testing.T, disk, cidr string, port int, args ...string) *dev {
	t.Helper()
	d := &dev{t: t, dir: t.TempDir(), disk: disk, port: port}
	if d.disk == "" {
		d.disk = d.dir
	}
	d.args = append([]string{
		"dev", "--name", "e2e-" + fmt.Sprint(port), "--data", d.data(), "--cidr", cidr, "--port", fmt.Sprint(port),
	}, args...)
	t.Cleanup(d.down)
	d.start()
	return d
}

func (d *dev) data() string { return filepath.Join(d.disk, "data") }

func (d *dev) start() {
	d.t.Helper()
	_ = os.Remove(filepath.Join(d.data(), "ready"))
	log, err := os.OpenFile(filepath.Join(d.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(binary("provisionr"), d.args...)
	d.cmd.Env = d.env()
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan<- error) { exited <- cmd.Wait() }(d.cmd, d.exited)
	// Building the root file system takes minutes where it is not cached.
	d.eventually("the server is ready", 15*time.Minute, func() error {
		select {
		case err := <-d.exited:
			d.exited <- err
			d.t.Fatalf("the server ended: %v\n%s", err, d.log())
		default:
		}
		_, err := os.Stat(filepath.Join(d.data(), "ready"))
		return err
	})
}

// kill ends the server at once, as a crash would. Its machines go on.
func (d *dev) kill() {
	d.t.Helper()
	if err := syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		d.t.Fatalf("cannot kill the server: %v", err)
	}
	<-d.exited
	d.exited <- errors.New("killed")
}

// down stops the server and has `dev down` remove everything. Leftovers are errors.
func (d *dev) down() {
	if d.t.Failed() {
		d.t.Logf("the end of the server's log:\n%s", d.log())
	}
	if d.cmd != nil {
		_ = syscall.Kill(d.cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-d.exited:
		case <-time.After(30 * time.Second):
			_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
			<-d.exited
			d.t.Error("the server did not stop within 30 s of SIGTERM")
		}
	}
	if out, err := exec.Command(binary("provisionr"), "dev", "down", "--data", d.data()).CombinedOutput(); err != nil {
		d.t.Errorf("dev down: %v\n%s", err, out)
	}
}

func (d *dev) log() string {
	data, _ := os.ReadFile(filepath.Join(d.dir, "server.log"))
	if len(data) > 8192 {
		data = data[len(data)-8192:]
	}
	return string(data)
}

func (d *dev) env() []string {
	return append(os.Environ(), "PROVISIONR_CONFIG="+filepath.Join(d.dir, "config.yaml"), "NO_COLOR=1")
}

// pv runs the CLI and returns what it prints; a failure ends the test.
func (d *dev) pv(args ...string) string {
	d.t.Helper()
	out, err := d.try(args...)
	if err != nil {
		d.t.Fatalf("provisionr %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// try runs the CLI and returns standard output, and standard error within the error.
func (d *dev) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary("provisionr"), args...)
	cmd.Env = d.env()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%w: %s", err, stderr.String())
	}
	return stdout.String(), nil
}

// manifest writes a manifest file and returns its path.
func (d *dev) manifest(text string) string {
	d.t.Helper()
	path := filepath.Join(d.dir, "manifest.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// machine is what the tests read of a machine's JSON.
type machine struct {
	Metadata struct{ Name string }
	Spec     struct{ Pool, Slot, Fqdn string }
	Status   struct{ Phase, Reason, Address string }
}

func (d *dev) machines(pool string) []machine {
	d.t.Helper()
	var all []machine
	decode := json.NewDecoder(strings.NewReader(d.pv("get", "machines", "-o", "json")))
	for {
		var list struct{ Machines, Items []machine }
		var raw json.RawMessage
		if err := decode.Decode(&raw); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			d.t.Fatal(err)
		}
		if json.Unmarshal(raw, &all) == nil {
			break
		}
		if err := json.Unmarshal(raw, &list); err != nil {
			d.t.Fatal(err)
		}
		all = append(append(all, list.Machines...), list.Items...)
	}
	var of []machine
	for _, m := range all {
		if m.Spec.Pool == pool {
			of = append(of, m)
		}
	}
	return of
}

func (d *dev) bySlot(pool string) map[string]machine {
	d.t.Helper()
	slots := map[string]machine{}
	for _, m := range d.machines(pool) {
		slots[m.Spec.Slot] = m
	}
	return slots
}

// waitReady waits until the pool has exactly n machines, all ready.
func (d *dev) waitReady(pool string, n int) {
	d.t.Helper()
	d.eventually(fmt.Sprintf("pool %s has %d ready machines", pool, n), 6*time.Minute, func() error {
		ms := d.machines(pool)
		for _, m := range ms {
			if !strings.EqualFold(strings.TrimPrefix(m.Status.Phase, "PHASE_"), "ready") {
				return fmt.Errorf("%s is %s: %s", m.Spec.Slot, m.Status.Phase, m.Status.Reason)
			}
		}
		if len(ms) != n {
			return fmt.Errorf("it has %d", len(ms))
		}
		return nil
	})
}

// eventually polls until f returns nil; the last error is reported at the deadline.
func (d *dev) eventually(what string, within time.Duration, f func() error) {
	d.t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("not so within %s: %s: %v", within, what, err)
		}
		select {
		case <-tick.C:
		case <-d.t.Context().Done():
			d.t.Fatal(d.t.Context().Err())
		}
	}
}

// output runs a command of the host.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// settings reads the KEY=VALUE lines of the cluster's dev.env.
func (d *dev) settings() map[string]string {
	d.t.Helper()
	f, err := os.Open(filepath.Join(d.data(), "dev.env"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	values := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), "="); ok {
			values[k] = strings.Trim(v, `'"`)
		}
	}
	return values
}
