//go:build machine

package pkg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// ten are small packages that a Debian standard system lacks.
var ten = []string{"tree", "jq", "ncdu", "rsync", "unzip", "strace", "socat", "pv", "htop", "bc"}

// basePath is a Debian standard system with the archive's lists and the ten packages in apt's cache. It is kept.
const basePath = "/var/cache/provisionr/standard-2"

// chrooted runs programs within a root directory.
type chrooted struct{ root string }

func (c chrooted) Run(ctx context.Context, cmd host.Command) (host.Result, error) {
	cmd.Args = append([]string{c.root, cmd.Path}, cmd.Args...)
	cmd.Path = "chroot"
	return host.Processes{}.Run(ctx, cmd)
}

func base(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat(basePath); err == nil {
		return basePath
	}
	temp := basePath + ".making"
	run(t, "rm", "-rf", temp)
	run(t, "mkdir", "-p", filepath.Dir(temp))
	run(t, "mmdebstrap", "--variant=standard", "--include=ca-certificates,systemd,openssh-server,nftables,sudo",
		"--skip=cleanup/apt/lists,cleanup/apt/cache",
		"--customize-hook=chroot \"$1\" apt-get -qq update", "--customize-hook=chroot \"$1\" apt-get clean",
		"--customize-hook=chroot \"$1\" apt-get -y --download-only install "+strings.Join(ten, " "), "bookworm", temp)
	run(t, "mv", temp, basePath)
	return basePath
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// fresh mounts a new copy of the base, whose changes go to a file system of their own: a sync must not wait for what others
// on the build machine write.
func fresh(t *testing.T) *host.Host {
	t.Helper()
	dir := t.TempDir()
	var mounted []string
	mount := func(source, at, kind, options string) {
		if err := errors.Join(os.MkdirAll(at, 0o755), unix.Mount(source, at, kind, 0, options)); err != nil {
			t.Fatal(err)
		}
		mounted = append(mounted, at)
	}
	t.Cleanup(func() {
		for _, at := range slices.Backward(mounted) {
			if err := unix.Unmount(at, 0); err != nil {
				t.Error(err)
			}
		}
	})
	run(t, "truncate", "-s", "1G", dir+"/disk")
	run(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", dir+"/disk")
	dir = filepath.Join(dir, "mounted")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-o", "loop", filepath.Dir(dir)+"/disk", dir)
	mounted = append(mounted, dir)
	for _, sub := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(dir, "root")
	mount("overlay", root, "overlay", fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", base(t), dir, dir))
	mount("proc", root+"/proc", "proc", "")
	mount("tmpfs", root+"/dev", "tmpfs", "mode=755")
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "random": 8, "urandom": 9} {
		if err := unix.Mknod(root+"/dev/"+name, unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			t.Fatal(err)
		}
	}
	mount("devpts", root+"/dev/pts", "devpts", "newinstance,ptmxmode=666")
	if err := os.Symlink("pts/ptmx", root+"/dev/ptmx"); err != nil {
		t.Fatal(err)
	}
	run(t, "sync", "-f", dir)
	return &host.Host{Root: root, Commands: chrooted{root}}
}

func tenPackages() *desired.State {
	s := &desired.State{Machine: &agentv1.MachineComponent{}, Pool: &agentv1.PoolComponent{
		Packages: []*agentv1.Package{{Name: "chrony", Absent: true}},
	}}
	for _, name := range ten {
		s.Pool.Packages = append(s.Pool.Packages, &agentv1.Package{Name: name})
	}
	return s
}

func apply(t *testing.T, h *host.Host, s *desired.State) time.Duration {
	t.Helper()
	began := time.Now()
	r := New(s, h)[0]
	if d, err := r.Check(t.Context()); err != nil || d.Empty() {
		t.Fatalf("before: %q, %v", d.Text, err)
	}
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
		t.Fatalf("after: %q, %v", d.Text, err)
	}
	return time.Since(began)
}

// TestFirstConverge measures the first converge of ten packages in apt's cache beside a bare apt-get install, in turn, and
// shows that both leave the same packages, marks and files.
func TestFirstConverge(t *testing.T) {
	var ours, theirs, ratios []float64
	for range 5 {
		bare := fresh(t)
		began := time.Now()
		run(t, "chroot", append([]string{bare.Root, "apt-get", "-y", "install"}, ten...)...)
		a := time.Since(began).Seconds()
		own := fresh(t)
		b := apply(t, own, tenPackages()).Seconds()
		ours, theirs, ratios = append(ours, b), append(theirs, a), append(ratios, b/a)
		for _, command := range [][]string{{"dpkg-query", "-W", "-f", "${Package} ${Version} ${Status}\n"}, {"apt-mark", "showauto"}, {"dpkg", "-V"}, {"apt-get", "check"}} {
			want := run(t, "chroot", append([]string{bare.Root}, command...)...)
			got := run(t, "chroot", append([]string{own.Root}, command...)...)
			if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("%v (-apt-get +ours):\n%s", command, diff)
			}
		}
	}
	for _, list := range [][]float64{ours, theirs, ratios} {
		slices.Sort(list)
	}
	verdict := "ok"
	if ratios[2] > 0.45 {
		verdict = "short"
	}
	fmt.Printf("RESULT first_converge_apt %.2f s goal none ok\nRESULT first_converge_ours %.2f s goal none ok\n", theirs[2], ours[2])
	fmt.Printf("RESULT first_converge_ratio %.3f x goal 0.45 %s\n", ratios[2], verdict)
}

// TestPowerCut shows that what a power cut took from unpacked files is brought back: files emptied, filled with zeros, a
// configuration file lost, and packages that dpkg had only unpacked.
func TestPowerCut(t *testing.T) {
	h := fresh(t)
	s := tenPackages()
	apply(t, h, s)
	run(t, "chroot", h.Root, "dpkg", "--unpack", "/var/cache/apt/archives/"+firstDeb(t, h, "tree"))
	size := len(read(t, h, "/usr/bin/jq"))
	for name, content := range map[string]string{
		"/usr/bin/tree": "", "/usr/bin/jq": strings.Repeat("\x00", size), "/etc/init.d/rsync": "",
		journalPath: `{"boot":"another","began":"` + time.Now().Add(-time.Minute).Format(time.RFC3339) + `","packages":["jq"]}`,
	} {
		if err := os.WriteFile(h.Root+name, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, h, s)
	if out := run(t, "chroot", h.Root, "dpkg", "-V"); out != "" {
		t.Errorf("files still differ: %s", out)
	}
	if len(read(t, h, "/etc/init.d/rsync")) == 0 {
		t.Error("the configuration file stayed empty")
	}
	if out := run(t, "chroot", h.Root, "dpkg", "--audit"); out != "" {
		t.Error(out)
	}
}

// TestHoldAndRemove goes through holds, versions, a virtual package and a removal with the real dpkg and apt-get.
func TestHoldAndRemove(t *testing.T) {
	h := fresh(t)
	s := tenPackages()
	s.Pool.Packages[1].Hold = true
	apply(t, h, s)
	if held := run(t, "chroot", h.Root, "apt-mark", "showhold"); held != "tree\n" {
		t.Errorf("held: %q", held)
	}
	s.Pool.Packages[1].Absent, s.Pool.Packages[1].Hold = true, false
	s.Pool.Packages[2].Hold = true
	apply(t, h, s)
	if held := run(t, "chroot", h.Root, "apt-mark", "showhold"); held != "jq\n" {
		t.Errorf("held: %q", held)
	}
	if _, err := os.Stat(h.Root + "/usr/bin/tree"); err == nil {
		t.Error("tree was not removed")
	}
	s.Pool.Packages[2].Hold = false
	apply(t, h, s)
	if held := run(t, "chroot", h.Root, "apt-mark", "showhold"); held != "" {
		t.Errorf("held: %q", held)
	}
}

func firstDeb(t *testing.T, h *host.Host, name string) string {
	t.Helper()
	found, err := filepath.Glob(h.Root + archivesDir + "/" + name + "_*.deb")
	if err != nil || len(found) == 0 {
		t.Fatal(name, err)
	}
	return filepath.Base(found[0])
}

func read(t *testing.T, h *host.Host, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(h.Root + name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
