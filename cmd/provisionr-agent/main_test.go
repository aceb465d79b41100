package main

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/internal/version"
)

func TestCommands(t *testing.T) {
	root := t.TempDir()
	tests := []struct {
		name           string
		args           []string
		exit           int
		stdout, stderr string
	}{
		{"version", []string{"--version"}, exitOK, version.Version + "\n", ""},
		{"no status yet", []string{"--root", root, "status"}, exitFailed, "", "hint: see systemctl status provisionr-agent"},
		{"nothing to check", []string{"--root", root, "check"}, exitFailed, "", "cannot open cache"},
		{"nothing to undo", []string{"--root", root, "undo"}, exitOK, "", ""},
		{"undo what", []string{"--root", root, "undo", "all"}, exitFailed, "", "it is change, upgrade or boot"},
		{"not bootstrapped", []string{"--root", root}, exitFailed, "", "hint: cloud-init writes"},
		{"unknown command", []string{"--root", root, "converge"}, exitFailed, "", "usage:"},
		{"unknown flag", []string{"--verbose"}, exitFailed, "", "usage:"},
		{"no such root", []string{"--root", root + "/none", "status"}, exitFailed, "", "no such file or directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			exit := run(t.Context(), tt.args, &stdout, &stderr)
			if exit != tt.exit || stdout.String() != tt.stdout || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("exit %d, stdout %q, stderr %q", exit, &stdout, &stderr)
			}
		})
	}
}

// TestBinary builds the agent as it is shipped, and checks what is promised of it.
func TestBinary(t *testing.T) {
	const most = 15_000_000
	dir := t.TempDir()
	if out, err := exec.Command("make", "-C", "../..", "agent", "BIN="+dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	path := filepath.Join(dir, "provisionr-agent-"+runtime.GOARCH)
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() > most {
		t.Errorf("the binary has %d bytes, more than %d", st.Size(), most)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary is linked dynamically")
		}
	}
	deps, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.Lines(string(deps)) {
		for _, forbidden := range []string{
			"github.com/provisionr/provisionr/server", "github.com/provisionr/provisionr/proto/provisionr", "github.com/provisionr/provisionr/proto/raftlog",
			"buf.build/", "cel.dev/", "github.com/google/cel-go", "github.com/grpc-ecosystem/", "github.com/spf13/", "github.com/hashicorp/", "testing",
		} {
			if strings.HasPrefix(dep, forbidden) {
				t.Errorf("the agent links %s", strings.TrimSpace(dep))
			}
		}
	}
}
