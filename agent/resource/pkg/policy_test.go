package pkg

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPolicy runs the script itself, with a systemctl for which only running.service is active.
func TestPolicy(t *testing.T) {
	dir := t.TempDir()
	script := strings.ReplaceAll(policy, ranDir, filepath.Join(dir, "ran"))
	for name, content := range map[string]string{"policy": script, "systemctl": "#!/bin/sh\n[ \"$3\" = running.service ]\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		unit, action string
		want         int
	}{
		{"new.service", "start", 101},
		{"new.service", "restart", 101},
		{"new.service", "stop", 0},
		{"new.service", "start", 101},
		{"running.service", "restart", 0},
		{"running.service", "stop", 0},
	} {
		cmd := exec.Command("/bin/sh", filepath.Join(dir, "policy"), c.unit, c.action)
		cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
		_ = cmd.Run() // the exit code is what is looked at
		if got := cmd.ProcessState.ExitCode(); got != c.want {
			t.Errorf("%s %s: exit %d, want %d", c.action, c.unit, got, c.want)
		}
	}
	// It was stopped by its own upgrade: it may start again.
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte("#!/bin/sh\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", filepath.Join(dir, "policy"), "running.service", "start")
	cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("start after stop: %v %s", err, out)
	}
}
