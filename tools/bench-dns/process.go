package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a server that was started, with all that it forks.
type process struct {
	cmd   *exec.Cmd
	log   string
	ended chan error
}

// start runs a command, on one processor where cpu is one. What it says goes to the file log. It dies with the thread that
// starts it: that must be locked.
func start(log string, cpu int, env []string, args ...string) (*process, error) {
	if cpu >= 0 {
		args = append([]string{"taskset", "-c", strconv.Itoa(cpu)}, args...)
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Env = out, out, append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", args[0], err)
	}
	p := &process{cmd: cmd, log: log, ended: make(chan error, 1)}
	go func() { p.ended <- cmd.Wait() }()
	return p, nil
}

// stop ends the process and waits until it has.
func (p *process) stop() {
	all := p.tree()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		for _, pid := range all {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		<-p.ended
	}
}

// await calls done until it is true.
func (p *process) await(what string, done func() bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.After(2 * time.Minute)
	for !done() {
		select {
		case err := <-p.ended:
			p.ended <- err
			said, _ := os.ReadFile(p.log)
			return fmt.Errorf("%s has ended before %s: %v\n%s", p.cmd.Args, what, err, said)
		case <-late:
			return fmt.Errorf("%s: not in time: %s", p.cmd.Args, what)
		case <-tick.C:
		}
	}
	return nil
}

// tree returns the process and its descendants.
func (p *process) tree() []int {
	all := []int{p.cmd.Process.Pid}
	for i := 0; i < len(all); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, task := range tasks {
			children, _ := os.ReadFile(task)
			for _, child := range strings.Fields(string(children)) {
				if pid, err := strconv.Atoi(child); err == nil {
					all = append(all, pid)
				}
			}
		}
	}
	return all
}

// tick of the kernel's CPU times (USER_HZ).
const tick = 10 * time.Millisecond

// cpu returns the CPU time of all threads of the process and its descendants so far (proc_pid_stat(5): utime, stime).
func (p *process) cpu() time.Duration {
	var sum time.Duration
	for _, pid := range p.tree() {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(rest); len(fields) > 12 {
			for _, f := range fields[11:13] {
				n, _ := strconv.Atoi(f)
				sum += time.Duration(n) * tick
			}
		}
	}
	return sum
}

// memory returns the resident memory in bytes; what processes share is counted once (Pss).
func (p *process) memory() (int, error) {
	sum := 0
	for _, pid := range p.tree() {
		f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if kb, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
				n, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(kb, "kB")))
				sum += n << 10
			}
		}
		_ = f.Close()
	}
	return sum, nil
}

// freePort returns a port that is free for UDP and TCP.
func freePort() (int, error) {
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		conn, err := net.ListenPacket("udp", l.Addr().String())
		_ = l.Close()
		if err == nil {
			_ = conn.Close()
			return port, nil
		}
	}
}
