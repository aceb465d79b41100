package cloudinit_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/provisionr/provisionr/cloudinit"
)

// bootServer answers like the boot endpoints and remembers the stages.
type bootServer struct {
	*httptest.Server
	mu     sync.Mutex
	stages []string
	bodies []string
	gets   int
	// answer writes the agent for the nth download, from 1.
	answer func(w http.ResponseWriter, n int)
}

func newBootServer(t *testing.T, answer func(http.ResponseWriter, int)) *bootServer {
	s := &bootServer{answer: answer}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /boot/v1/beacon", func(w http.ResponseWriter, r *http.Request) {
		var beacon struct{ Stage, Token string }
		if err := json.NewDecoder(r.Body).Decode(&beacon); err != nil {
			t.Errorf("a beacon is not JSON: %v", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stages = append(s.stages, beacon.Stage)
		s.bodies = append(s.bodies, beacon.Token)
	})
	mux.HandleFunc("GET /boot/v1/agent/{arch}", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.gets++
		n := s.gets
		s.mu.Unlock()
		s.answer(w, n)
	})
	s.Server = httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *bootServer) endpoint() string { return strings.TrimPrefix(s.URL, "https://") }

// machine is a directory that the rendered files were written to, as cloud-init would.
func machine(t *testing.T, agent string, endpoints ...string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(agent))
	hash := hex.EncodeToString(sum[:])
	s := seed()
	s.APIEndpoints = endpoints
	s.AgentSHA256 = map[string]string{"amd64": hash, "arm64": hash}
	userData, err := cloudinit.Render(s)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, f := range parse(t, userData).WriteFiles {
		path := filepath.Join(root, f.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.Content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// The bootstrap only talks to systemd by this command.
	fake := "#!/bin/sh\necho \"$@\" >>" + root + "/systemctl.log\n"
	if err := os.MkdirAll(root+"/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/bin/systemctl", []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

func boot(t *testing.T, root string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "/bin/sh", root+"/usr/local/lib/provisionr/bootstrap")
	command.Env = []string{"PROVISIONR_ROOT=" + root, "PATH=" + root + "/bin:" + os.Getenv("PATH")}
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("bootstrap failed: %v\n%s", err, out)
	}
}

func TestBootstrapInstallsTheAgent(t *testing.T) {
	const agent = "this is the agent"
	server := newBootServer(t, func(w http.ResponseWriter, n int) {
		switch n {
		case 1:
			http.Error(w, "busy", http.StatusServiceUnavailable)
		case 2:
			_, _ = w.Write([]byte("something else"))
		default:
			_, _ = w.Write([]byte(agent))
		}
	})
	// The same server three times: retries without the back-off between rounds. The first endpoint refuses connections.
	root := machine(t, agent, "127.0.0.1:1", server.endpoint(), server.endpoint(), server.endpoint())
	boot(t, root)
	installed := filepath.Join(root, cloudinit.AgentPath)
	if got, err := os.ReadFile(installed); err != nil || string(got) != agent {
		t.Fatalf("installed %q, %v", got, err)
	}
	if info, err := os.Stat(installed); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("installed with mode %v, %v", info.Mode(), err)
	}
	log, err := os.ReadFile(root + "/systemctl.log")
	if err != nil || !strings.Contains(string(log), "start --no-block provisionr-agent.service\n") {
		t.Errorf("systemctl was called with %q, %v", log, err)
	}
	stages := strings.Join(server.stages, ", ")
	for _, want := range []string{"started", "agent-download try 2", "agent-download wrong hash", "agent-installed", "agent-started"} {
		if !strings.Contains(stages, want) {
			t.Errorf("no beacon %q in %s", want, stages)
		}
	}
	for _, token := range server.bodies {
		if token != seed().BeaconToken {
			t.Errorf("a beacon carried another token than the beacon token")
		}
	}

	// A reboot starts the agent and downloads nothing, also after the agent replaced itself.
	downloads := server.gets
	if err := os.WriteFile(installed, []byte("a newer agent"), 0o755); err != nil {
		t.Fatal(err)
	}
	boot(t, root)
	if got, _ := os.ReadFile(installed); string(got) != "a newer agent" || server.gets != downloads {
		t.Errorf("a reboot replaced the agent by %q with %d downloads", got, server.gets-downloads)
	}
}

func TestBootstrapWithWget(t *testing.T) {
	const agent = "this is the agent"
	server := newBootServer(t, func(w http.ResponseWriter, _ int) { _, _ = w.Write([]byte(agent)) })
	root := machine(t, agent, server.endpoint())
	// A PATH with all that the script needs but curl.
	for _, tool := range []string{"uname", "wget", "sha256sum", "cat", "mkdir", "chmod", "mv", "sleep", "rm", "stat"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, root+"/bin/"+tool); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.CommandContext(t.Context(), "/bin/sh", root+"/usr/local/lib/provisionr/bootstrap")
	command.Env = []string{"PROVISIONR_ROOT=" + root, "PATH=" + root + "/bin"}
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("bootstrap failed: %v\n%s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(root, cloudinit.AgentPath)); err != nil || string(got) != agent {
		t.Fatalf("installed %q, %v", got, err)
	}
	if len(server.stages) == 0 {
		t.Error("no beacon came by wget")
	}
}
