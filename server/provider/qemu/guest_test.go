//go:build machine

package qemu

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/host/rootfs"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/qemu/image"
)

// guestLimit is far above the two or three minutes that a virtual machine and a container in it take to boot where both are
// emulated: it is for a loaded host.
const guestLimit = 12 * time.Minute

// nested is run by the machine as a service of its systemd, which starts before the boot is over. TREE is the name of the containers' root
// file system.
const nested = `
exec > >(tee /dev/console /run/out) 2>&1
at() { echo "$(cut -d' ' -f1 /proc/uptime) s after the kernel's start: $*"; }
at "$(stat -fc %T /sys/fs/cgroup), $(grep -c ' cgroup ' /proc/mounts) other hierarchies"
mkdir -p /var/cache/provisionr/rootfs/TREE &&
curl -sSf FILES/rootfs -o /dev/nvme1n1 && mount /dev/nvme1n1 /var/cache/provisionr/rootfs/TREE &&
curl -sSf FILES/local.test -o /root/local.test && chmod +x /root/local.test && at fetched && cd /root &&
./local.test -test.run '^TestMachines$/^one_boots$' -test.v
at "status $?"
systemctl is-system-running --wait
hostname; ip -4 -br addr show eth0; df -BG --output=size / | tail -n 1; lsblk -dbno NAME,SIZE /dev/nvme1n1
head -c 8 /dev/hwrng | wc -c; cat /sys/class/dmi/id/product_uuid /root/run
at done
curl -sS --data-binary @/run/out BEACON
`

// TestBoot boots a machine with real user-data, as it is seen from inside, and in it one of the local provider: the machine
// is a host with nothing but cgroup2, a kernel of the distribution, and an init that has cgroups of its own.
func TestBoot(t *testing.T) {
	s := newStand(t)
	s.run()
	beacon, got := s.beacons()
	script := filepath.Join(t.TempDir(), "nested")
	files := s.serve(map[string]string{"/nested": script, "/local.test": localTest(t), "/rootfs": s.containerDisk()})
	text := strings.NewReplacer("FILES", files, "BEACON", beacon, "TREE", filepath.Base(s.containerTree())).Replace(nested)
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	request := s.request(1)
	request.UserData = fmt.Appendf(nil, `#cloud-config
bootcmd:
- curl -sSf %s/nested -o /run/nested && systemd-run --no-block --unit=nested bash /run/nested
runcmd:
- echo user-data was run > /root/run
`, files)
	request.Request.Hardware = &provisionrv1.Hardware{Cpus: 2, MemoryMib: 768, DiskGib: 12, Disks: []*provisionrv1.Disk{{SizeGib: 1}}}
	start := time.Now()
	if i := s.launch(s.p, request); i.State != provider.Running || i.Address != s.address(1) {
		t.Fatalf("launched %+v", i)
	}
	t.Logf("launched after %v", time.Since(start).Round(time.Millisecond))
	said := s.await(got, 1, guestLimit)
	t.Logf("done after %v, %s:\n%s", time.Since(start).Round(time.Second), s.p.accelerator, said)
	for _, want := range []string{
		"cgroup2fs, 0 other hierarchies", "--- PASS: TestMachines/one_boots", "status 0\nrunning\n",
		"web-1\n", s.address(1).String() + "/24", " 12G\n", "nvme1n1 1073741824\n", "\n8\n", uuid(machineID(1)), "user-data was run",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("inside there is no %q", want)
		}
	}
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(s.address(1).String(), "22"), 30*time.Second)
	if err != nil {
		t.Fatalf("sshd does not answer: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	console, err := s.p.Console(t.Context(), machineID(1), "")
	if err != nil || !strings.Contains(console, "cloud-init") {
		t.Errorf("console: %v\n%s", err, console)
	}
}

// localTest compiles the local provider's tests.
func localTest(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "local.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "machine", "-o", file, "../local")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot compile the local provider's tests: %v\n%s", err, out)
	}
	return file
}

// containerTree is the root file system of the local provider's machines.
func (s *stand) containerTree() string {
	s.t.Helper()
	tree, err := s.p.archive.Build(s.t.Context(), filepath.Join(s.p.config.Archive.CacheDir, "rootfs"), rootfs.Container())
	if err != nil {
		s.t.Fatal(err)
	}
	return tree
}

// containerDisk is a file system with the tree.
func (s *stand) containerDisk() string {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "rootfs.ext4")
	if _, err := image.Run(s.t.Context(), "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", s.containerTree(), file, "448M"); err != nil {
		s.t.Fatal(err)
	}
	return file
}

// serve serves files on the gateway.
func (s *stand) serve(files map[string]string) (url string) {
	s.t.Helper()
	listener, err := net.Listen("tcp4", s.network.GetGateway()+":0")
	if err != nil {
		s.t.Fatal(err)
	}
	mux := http.NewServeMux()
	for path, file := range files {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: mux}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // it ends by Close
	s.t.Cleanup(func() { _ = server.Close(); serving.Wait() })
	return "http://" + listener.Addr().String()
}
