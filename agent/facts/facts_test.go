package facts_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/provisionr/provisionr/agent/facts"
	"github.com/provisionr/provisionr/agent/host"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func TestCollect(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"etc/os-release":                   "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
		"proc/meminfo":                     "MemTotal:        2048000 kB\nMemFree: 1 kB\n",
		"etc/ssh/ssh_host_rsa_key.pub":     "ssh-rsa AAAA root@host\n",
		"etc/ssh/ssh_host_ed25519_key.pub": "ssh-ed25519 BBBB root@host\n",
		"etc/ssh/ssh_host_ecdsa_key.pub":   "damaged\n",
		"etc/ssh/ssh_host_ed25519_key":     "PRIVATE",
		"run/reboot-required":              "*** System restart required ***\n",
		"run/reboot-required.pkgs":         "linux-image\nlibc6\nlinux-image\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := facts.Collect(&host.Host{Root: root})
	want := &agentv1.Facts{
		OsRelease: "Debian GNU/Linux 12 (bookworm)", Architecture: runtime.GOARCH, MemoryMib: 2000, Cpus: uint32(runtime.NumCPU()), Kernel: got.Kernel,
		SshHostKeys: []string{"ssh-ed25519 BBBB", "ssh-rsa AAAA"}, RebootRequired: "updated: libc6, linux-image",
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if got.Kernel == "" || strings.ContainsRune(got.Kernel, 0) {
		t.Errorf("kernel %q", got.Kernel)
	}
}

func TestNothingToFind(t *testing.T) {
	if f := facts.Collect(&host.Host{Root: t.TempDir()}); f.OsRelease != "" || f.SshHostKeys != nil || f.RebootRequired != "" || f.VpnPublicKey != "" {
		t.Errorf("%v", f)
	}
}
