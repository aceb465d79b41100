package qemu

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/machines"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/qemu/image"
)

func TestConfig(t *testing.T) {
	if err := (&Config{}).complete(); !errs.Is(err, errs.Invalid) {
		t.Errorf("no site: %v", err)
	}
	c := Config{Site: host.Site{ClusterID: "c-1", DataDir: "data"}}
	if err := c.complete(); err != nil || c.Name != "qemu" || c.Spec == nil {
		t.Errorf("completed %+v, %v", c, err)
	}
}

func TestArguments(t *testing.T) {
	own := machine{
		id: "m-1", name: "web-1", dir: "/data, with a comma", accelerator: tcg, cpus: 2, memoryMiB: 512, disks: 1, link: "pvtx",
		image: image.Image{Kernel: "/k", Append: "root=/dev/nvme0n1"},
	}
	args := own.arguments()
	after := func(flag string) (all []string) {
		for i, a := range args {
			if a == flag {
				all = append(all, args[i+1])
			}
		}
		return all
	}
	for flag, want := range map[string]string{
		"-accel": "tcg,thread=multi,tb-size=256", "-cpu": "qemu64", "-smp": "2", "-m": "512M", "-kernel": "/k",
		"-runas": fmt.Sprintf("%[1]d:%[1]d", host.IDBase("m-1")), "-netdev": "tap,id=net,script=no,downscript=no,ifname=pvtx",
	} {
		if diff := cmp.Diff([]string{want}, after(flag)); diff != "" {
			t.Errorf("%s: %s", flag, diff)
		}
	}
	for _, flag := range []string{"-S", "-daemonize", "-nodefaults", "-no-user-config"} {
		if !slices.Contains(args, flag) {
			t.Errorf("no %s", flag)
		}
	}
	var files []string
	for _, node := range after("-blockdev") {
		var n struct {
			Driver   string
			ReadOnly bool `json:"read-only"`
			File     struct{ Filename string }
		}
		if err := json.Unmarshal([]byte(node), &n); err != nil {
			t.Fatal(err)
		}
		files = append(files, fmt.Sprint(n.Driver, " ", n.ReadOnly, " ", n.File.Filename))
	}
	dir := own.dir + "/"
	if diff := cmp.Diff([]string{"qcow2 false " + dir + "disk.qcow2", "qcow2 false " + dir + "disk-0.qcow2", "raw true " + dir + "seed.iso"}, files); diff != "" {
		t.Error(diff)
	}
	own.image = image.Image{}
	args = own.arguments()
	if got := after("-cpu"); got[0] != "max" || len(after("-kernel")) != 0 || !slices.Contains(after("-device"), "virtio-blk-pci,drive=root,bootindex=0") {
		t.Errorf("a user's image has %v", args)
	}
	own.accelerator = kvm
	if args = own.arguments(); after("-accel")[0] != "kvm" || after("-cpu")[0] != "host" {
		t.Errorf("kvm has %v", args)
	}
}

func TestUUID(t *testing.T) {
	if a := uuid("m-1"); len(a) != 36 || a[14] != '8' || !strings.ContainsRune("89ab", rune(a[19])) || a != uuid("m-1") || a == uuid("m-2") {
		t.Errorf("uuid %q", a)
	}
}

// fakeQEMU answers on a connection: lines are sent for each command, in order.
func fakeQEMU(t *testing.T, greeting string, answers map[string][]string) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := fmt.Fprintln(far, greeting); err != nil {
			return
		}
		for in := bufio.NewScanner(far); in.Scan(); {
			var c struct{ Execute string }
			if err := json.Unmarshal(in.Bytes(), &c); err != nil {
				t.Errorf("sent %s", in.Bytes())
			}
			for _, line := range answers[c.Execute] {
				if _, err := fmt.Fprintln(far, line); err != nil {
					return
				}
			}
		}
	}()
	t.Cleanup(func() { _ = far.Close(); _ = near.Close(); <-done })
	return near
}

func TestQMP(t *testing.T) {
	const hello = `{"QMP": {"version": {}, "capabilities": []}}`
	ok := []string{`{"return": {}}`}
	m, err := greet(fakeQEMU(t, hello, map[string][]string{
		"qmp_capabilities": ok,
		"query-status":     {`{"timestamp": {}, "event": "RESUME"}`, `{"return": {"status": "running", "running": true}}`},
		"cont":             {`{"error": {"class": "GenericError", "desc": "no disk"}}`},
	}), time.Now().Add(qmpTimeout))
	if err != nil {
		t.Fatal(err)
	}
	if status, err := m.status(); err != nil || status != "running" {
		t.Errorf("status %q, %v", status, err)
	}
	if err := m.execute("cont", nil); err == nil || !strings.Contains(err.Error(), "no disk") {
		t.Errorf("a refused command: %v", err)
	}
	for name, greeting := range map[string]string{"another protocol": "{}", "no protocol": "SSH-2.0", "too much": strings.Repeat("x", lineLimit+1)} {
		if _, err := greet(fakeQEMU(t, greeting, nil), time.Now().Add(qmpTimeout)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// A machine that is stopped by its host takes connections and says nothing: a list must not wait long for it.
func TestCrashedDoesNotWait(t *testing.T) {
	p := &Provider{}
	var err error
	if p.machines, err = machines.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	dir := p.machines.Path("m-1")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	began := time.Now()
	if p.crashed(t.Context(), "m-1") {
		t.Error("silence is taken for a crash")
	}
	if took := time.Since(began); took < statusTimeout || took > qmpTimeout {
		t.Errorf("it waited %v", took)
	}
}

func TestDialLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 100), strings.Repeat("e", 100))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t.Context(), dir); err == nil {
		t.Error("there is no socket")
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, err = fmt.Fprint(conn, `{"QMP": {}}`+"\n"+`{"return": {}}`+"\n")
			buffer := make([]byte, 100)
			if n, readErr := conn.Read(buffer); readErr != nil || !strings.Contains(string(buffer[:n]), "qmp_capabilities") {
				err = fmt.Errorf("read %q, %w", buffer[:n], readErr)
			}
		}
		done <- err
	}()
	m, err := dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, c := range []interface{ Close() error }{m.conn, listener, d} {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestTrim(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	if err := trim(path); err != nil {
		t.Errorf("no log: %v", err)
	}
	for _, size := range []int{0, logLimit, logLimit + 1, 3 * logLimit} {
		content := strings.Repeat("x", size) + "end"
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := trim(path); err != nil {
			t.Fatal(err)
		}
		want := content
		if len(content) > logLimit {
			want = content[len(content)-consoleLimit:]
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("of %d bytes %d were kept, %v", len(content), len(got), err)
		}
	}
}

func TestAccelerator(t *testing.T) {
	flags := "processor\t: 0\nflags\t\t: fpu vmx sse\nbugs\t\t: svm\n"
	if !hasFlag(flags, "vmx") || hasFlag(flags, "svm") || hasFlag(flags, "ss") || hasFlag("", "vmx") {
		t.Error("flags are misread")
	}
	for why, root := range map[string]fstest.MapFS{
		"":             {"proc/cpuinfo": {Data: []byte(flags)}, "dev/kvm": {}},
		"no /dev/kvm":  {"proc/cpuinfo": {Data: []byte(flags)}},
		"neither vmx":  {"proc/cpuinfo": {Data: []byte("flags\t: fpu\n")}, "dev/kvm": {}},
		"proc/cpuinfo": {},
	} {
		if possible, got := kvmPossible(root); possible != (why == "") || !strings.Contains(got, why) {
			t.Errorf("%q: %v, %q", why, possible, got)
		}
	}
	if mib, err := parseAvailable("MemTotal: 1 kB\nMemAvailable:    2097152 kB\n"); mib != 2048 || err != nil {
		t.Errorf("available %d, %v", mib, err)
	}
	for _, bad := range []string{"", "MemAvailable: x kB\n"} {
		if _, err := parseAvailable(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestWanted(t *testing.T) {
	sum := strings.Repeat("a", 64)
	debian := &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}
	for name, test := range map[string]struct {
		h  *provisionrv1.Hardware
		i  *provisionrv1.Image
		os *provisionrv1.OperatingSystem
		ok bool
	}{
		"nothing":       {ok: true},
		"debian":        {os: debian, ok: true},
		"other release": {os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "13"}},
		"own image":     {i: &provisionrv1.Image{Url: "/x", Sha256: sum}, os: &provisionrv1.OperatingSystem{Distribution: "rocky"}, ok: true},
		"without hash":  {i: &provisionrv1.Image{Url: "/x"}},
		"cloud's image": {i: &provisionrv1.Image{Id: "ami-1"}, os: debian},
		"arm64":         {h: &provisionrv1.Hardware{Architecture: "arm64"}},
		"a type":        {h: &provisionrv1.Hardware{Types: []string{"m7i.large"}}},
		"disks":         {h: &provisionrv1.Hardware{Disks: []*provisionrv1.Disk{{SizeGib: 1}}}, ok: true},
		"no size":       {h: &provisionrv1.Hardware{Disks: []*provisionrv1.Disk{{}}}},
		"encrypted":     {h: &provisionrv1.Hardware{RootDisk: &provisionrv1.Disk{Encrypted: true}}},
		"kept":          {h: &provisionrv1.Hardware{Disks: []*provisionrv1.Disk{{SizeGib: 1, Keep: true}}}},
	} {
		if err := wanted(test.h, test.i, test.os); (err == nil) != test.ok || err != nil && provider.KindOf(err) != provider.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRedact(t *testing.T) {
	for url, want := range map[string]string{
		"https://user:secret@host:1/a/b.qcow2?token=secret": "https://host:1/a/b.qcow2", "/a/b.img": "/a/b.img", "http://host": "http://host/",
	} {
		if got := redact(url); got != want {
			t.Errorf("%s became %s", url, got)
		}
	}
}
