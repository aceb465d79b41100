package cloudinit_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/cloudinit"
	"github.com/provisionr/provisionr/internal/errs"
)

func TestAdoptGolden(t *testing.T) {
	script, err := cloudinit.Adopt(seed())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "adopt.golden", script)
	bad := seed()
	bad.FQDN = "web-1'; reboot; '"
	if _, err := cloudinit.Adopt(bad); !errs.Is(err, errs.Invalid) || strings.Contains(err.Error(), bad.JoinToken) {
		t.Errorf("a name that is a command: %v", err)
	}
}

// adoptable is a machine that systemd runs on; its systemctl starts the bootstrap as systemd would.
func adoptable(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"/run/systemd/system", "/bin"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	systemctl := "#!/bin/sh\necho \"$@\" >>" + root + "/systemctl.log\n" +
		"case \"$*\" in *restart*provisionr-bootstrap*) /bin/sh " + root + "/usr/local/lib/provisionr/bootstrap ;; esac\n"
	if err := os.WriteFile(root+"/bin/systemctl", []byte(systemctl), 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

func adopt(t *testing.T, root string, script []byte) (string, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "/bin/sh")
	command.Stdin = strings.NewReader(string(script))
	command.Env = []string{"PROVISIONR_ROOT=" + root, "PATH=" + root + "/bin:" + os.Getenv("PATH")}
	out, err := command.CombinedOutput()
	return string(out), err
}

func TestAdoptInstallsTheAgent(t *testing.T) {
	const agent = "this is the agent"
	server := newBootServer(t, func(w http.ResponseWriter, _ int) { _, _ = w.Write([]byte(agent)) })
	sum := sha256.Sum256([]byte(agent))
	s := seed()
	s.APIEndpoints = []string{server.endpoint()}
	s.AgentSHA256 = map[string]string{"amd64": hex.EncodeToString(sum[:]), "arm64": hex.EncodeToString(sum[:])}
	script, err := cloudinit.Adopt(s)
	if err != nil {
		t.Fatal(err)
	}
	root := adoptable(t)

	// A script that was cut off anywhere changes nothing.
	for _, cut := range []int{len(script) / 3, len(script) / 2, len(script) - len("adopt\n")} {
		if out, _ := adopt(t, root, script[:cut]); strings.Contains(out, "fetching") {
			t.Errorf("cut off at %d of %d bytes it began: %s", cut, len(script), out)
		}
		if _, err := os.Stat(root + "/etc/provisionr"); err == nil {
			t.Errorf("cut off at %d of %d bytes it wrote files", cut, len(script))
		}
	}
	// Twice: a person who is not sure runs it again.
	for range 2 {
		if out, err := adopt(t, root, script); err != nil || !strings.Contains(out, "this machine joins as web-1.provisionr.internal") {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if got, err := os.ReadFile(filepath.Join(root, cloudinit.AgentPath)); err != nil || string(got) != agent {
		t.Errorf("installed %q, %v", got, err)
	}
	if info, err := os.Stat(filepath.Join(root, cloudinit.BootstrapPath)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("bootstrap.json: %v, %v", info, err)
	}
	log, err := os.ReadFile(root + "/systemctl.log")
	if err != nil || !strings.Contains(string(log), "daemon-reload\nenable provisionr-bootstrap.service provisionr-agent.service\nrestart --no-block") {
		t.Errorf("systemctl was called with %q, %v", log, err)
	}

	s.MachineID = "m-another-machine"
	other, err := cloudinit.Adopt(s)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := adopt(t, root, other); err == nil || !strings.Contains(out, "was adopted as another") {
		t.Errorf("adopted twice: %v\n%s", err, out)
	}
	bare := t.TempDir()
	if out, err := adopt(t, bare, script); err == nil || !strings.Contains(out, "systemd does not run") {
		t.Errorf("adopted without systemd: %v\n%s", err, out)
	}
}
