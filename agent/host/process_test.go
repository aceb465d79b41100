package host_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/provisionr/provisionr/agent/host"
)

func TestRun(t *testing.T) {
	tests := []struct {
		name           string
		c              host.Command
		exit           int
		stdout, stderr string
	}{
		{"output and exit", host.Command{Path: "sh", Args: []string{"-c", "echo out; echo err >&2; exit 3"}}, 3, "out\n", "err\n"},
		{"stdin", host.Command{Path: "/bin/cat", Stdin: strings.NewReader("in")}, 0, "in", ""},
		{"environment", host.Command{Path: "sh", Args: []string{"-c", `echo "$LANG $X"`}, Env: []string{"X=1"}}, 0, "C.UTF-8 1\n", ""},
		{"signal", host.Command{Path: "sh", Args: []string{"-c", "kill -TERM $$"}}, 128 + int(syscall.SIGTERM), "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := host.Processes{}.Run(t.Context(), tt.c)
			if err != nil || r.Exit != tt.exit || string(r.Stdout) != tt.stdout || string(r.Stderr) != tt.stderr {
				t.Errorf("got exit %d, %q, %q, %v", r.Exit, r.Stdout, r.Stderr, err)
			}
		})
	}
	if _, err := (host.Processes{}).Run(t.Context(), host.Command{Path: "no-such-program"}); err == nil {
		t.Error("a program that does not exist ran")
	}
}

func TestRunKeepsTheEndOfOutput(t *testing.T) {
	r, err := host.Processes{}.Run(t.Context(), host.Command{Path: "sh", Args: []string{"-c", "head -c 300000 /dev/zero; echo end"}})
	if err != nil || len(r.Stdout) != 64<<10 || !bytes.HasSuffix(r.Stdout, []byte("end\n")) {
		t.Errorf("%d bytes, %v", len(r.Stdout), err)
	}
}

// TestTimeoutKillsGroup starts a grandchild, and shows that it is gone when Run returns an error.
func TestTimeoutKillsGroup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	script := "sleep 1000 & echo $! > " + file + "; wait"
	start := time.Now()
	_, err := host.Processes{}.Run(t.Context(), host.Command{Path: "sh", Args: []string{"-c", script}, Timeout: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "killed") || time.Since(start) > 10*time.Second {
		t.Fatalf("after %s: %v", time.Since(start), err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	// A signal is sent before it has killed. Killed, it is a zombie until whoever adopted it reaps it.
	for tick, end := time.Tick(time.Millisecond), time.After(10*time.Second); ; {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		select {
		case <-tick:
		case <-end:
			t.Fatalf("the grandchild is alive: %s", stat)
		}
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	done := make(chan error, 1)
	go func() {
		_, err := host.Processes{}.Stream(ctx, host.Command{Path: "sh", Args: []string{"-c", "echo up; exec sleep 1000"}}, pw, nil)
		done <- err
	}()
	if _, err := pr.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("error %v", err)
	}
}
