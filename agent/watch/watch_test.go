package watch

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/agent/converge"
)

const patience = 10 * time.Second

// ear collects what a source tells.
type ear struct {
	names chan string
	lost  chan struct{}
}

// hear runs a source until the test ends, and returns once it runs.
func hear(t *testing.T, s source) *ear {
	t.Helper()
	e := &ear{make(chan string, 1024), make(chan struct{}, 1024)}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		err := s.run(ctx, teller{lost: func() { e.lost <- struct{}{} }, touch: func(names ...string) {
			for _, name := range names {
				e.names <- name
			}
		}})
		if ctx.Err() == nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	select {
	case <-e.lost:
	case <-time.After(patience):
		t.Fatal("the source does not start")
	}
	return e
}

// wait waits for an event about a name.
func (e *ear) wait(t *testing.T, name string) {
	t.Helper()
	for {
		select {
		case got := <-e.names:
			if got == name {
				return
			}
		case <-time.After(patience):
			t.Fatalf("no event about %s", name)
		}
	}
}

// not checks that nothing was told about a name before something was about another, which the test causes after.
func (e *ear) not(t *testing.T, name, other string) {
	t.Helper()
	for {
		select {
		case got := <-e.names:
			if got == name {
				t.Fatalf("an event about %s", name)
			}
			if got == other {
				return
			}
		case <-time.After(patience):
			t.Fatalf("no event about %s", other)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFiles(t *testing.T) {
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	must(t, os.MkdirAll(at("etc/conf.d"), 0o755))
	write(t, at("etc/motd"), "one")
	write(t, at("etc/target"), "one")
	must(t, os.Symlink("target", at("etc/link")))
	f := newFiles(root)
	f.set([]string{"/etc/motd", "/etc/conf.d", "/etc/link", "/srv/a/b/file", "/etc/new"})
	e := hear(t, f)

	steps := []struct {
		name string
		act  func()
		want string
	}{
		{"written", func() { write(t, at("etc/motd"), "two") }, "/etc/motd"},
		{"mode", func() { must(t, os.Chmod(at("etc/motd"), 0o600)) }, "/etc/motd"},
		{"replaced", func() { write(t, at("etc/x"), ""); must(t, os.Rename(at("etc/x"), at("etc/motd"))) }, "/etc/motd"},
		{"removed", func() { must(t, os.Remove(at("etc/motd"))) }, "/etc/motd"},
		{"made", func() { write(t, at("etc/motd"), "three") }, "/etc/motd"},
		{"made first", func() { write(t, at("etc/new"), "") }, "/etc/new"},
		{"in a directory", func() { write(t, at("etc/conf.d/x"), "") }, "/etc/conf.d"},
		{"what a link leads to", func() { write(t, at("etc/target"), "two") }, "/etc/link"},
		{"a directory above is made", func() { must(t, os.MkdirAll(at("srv/a/b"), 0o755)) }, "/srv/a/b/file"},
		{"in the new directory", func() { write(t, at("srv/a/b/file"), "") }, "/srv/a/b/file"},
		{"directory removed", func() { must(t, os.RemoveAll(at("srv/a"))) }, "/srv/a/b/file"},
		{"directory made anew", func() { must(t, os.MkdirAll(at("srv/a/b"), 0o755)); write(t, at("srv/a/b/file"), "") }, "/srv/a/b/file"},
		{"directory replaced", func() {
			must(t, os.Rename(at("etc/conf.d"), at("etc/conf.old")))
			must(t, os.Mkdir(at("etc/conf.d"), 0o755))
		}, "/etc/conf.d"},
		{"in the replaced directory", func() { write(t, at("etc/conf.d/y"), "") }, "/etc/conf.d"},
	}
	for _, s := range steps {
		// What came of the step before is over when this is heard.
		for len(e.names) > 0 {
			<-e.names
		}
		s.act()
		t.Log(s.name)
		e.wait(t, s.want)
	}
	write(t, at("etc/other"), "")
	write(t, at("etc/conf.old/z"), "")
	f.set([]string{"/etc/motd"})
	write(t, at("etc/conf.d/z"), "")
	write(t, at("etc/new"), "2")
	for len(e.names) > 0 {
		<-e.names
	}
	write(t, at("etc/motd"), "four")
	e.not(t, "/etc/new", "/etc/motd")
}

// TestFilesAreFoundHoweverQuicklyTheyCome makes the directories of a path while they are looked for.
func TestFilesAreFoundHoweverQuicklyTheyCome(t *testing.T) {
	root := t.TempDir()
	f := newFiles(root)
	f.set([]string{"/a/b/c/d/file"})
	e := hear(t, f)
	for range 50 {
		must(t, os.MkdirAll(filepath.Join(root, "a/b/c/d"), 0o755))
		write(t, filepath.Join(root, "a/b/c/d/file"), "x")
		e.wait(t, "/a/b/c/d/file")
		must(t, os.RemoveAll(filepath.Join(root, "a")))
		e.wait(t, "/a/b/c/d/file")
	}
}

func TestFilesSayWhenTheyLost(t *testing.T) {
	f := newFiles(t.TempDir())
	overflow := make([]byte, unix.SizeofInotifyEvent)
	f.notify = os.Stdin // not written to: nothing is wanted
	overflow[4], overflow[5] = 0, byte(unix.IN_Q_OVERFLOW>>8)
	if _, lost := f.handle(overflow); !lost {
		t.Error("an overflow is not told")
	}
	if _, lost := f.handle(append(make([]byte, 12), 255, 0, 0, 0)); !lost {
		t.Error("an event that is cut off is not told")
	}
}

// inNetwork runs the test in a network namespace of its own, which ends with its thread.
func inNetwork(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("cannot make a network namespace, which takes root: %v", err)
	}
}

func command(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
}

// here runs a source whose socket is made in this thread's namespace: the source's goroutine gets a thread that is
// in it too.
type here struct {
	source
	ns int
}

func (h here) run(ctx context.Context, t teller) error {
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	if err := unix.Setns(h.ns, unix.CLONE_NEWNET); err != nil {
		return err
	}
	return h.source.run(ctx, t)
}

func namespace(t *testing.T) int {
	t.Helper()
	inNetwork(t)
	f, err := os.Open("/proc/thread-self/ns/net")
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return int(f.Fd())
}

func TestNetwork(t *testing.T) {
	ns := namespace(t)
	n := &network{}
	n.set([]string{""})
	e := hear(t, here{n, ns})
	for _, argv := range []string{"ip link set lo up", "ip address add 10.9.8.7/24 dev lo", "ip route add 10.1.0.0/16 dev lo", "ip link set lo mtu 1400",
		"ip address del 10.9.8.7/24 dev lo"} {
		for len(e.names) > 0 {
			<-e.names
		}
		command(t, strings.Fields(argv)...)
		t.Log(argv)
		e.wait(t, "")
	}
}

func TestTables(t *testing.T) {
	ns := namespace(t)
	w := newTables()
	w.set([]string{"inet/ours", "inet/last"})
	command(t, "nft", "add table inet ours; add chain inet ours c; add set inet ours s { type ipv4_addr; }")
	e := hear(t, here{w, ns})
	for _, change := range []string{"add rule inet ours c tcp dport 22 accept", "add element inet ours s { 10.0.0.1 }", "flush chain inet ours c",
		"delete element inet ours s { 10.0.0.1 }", "flush ruleset"} {
		for len(e.names) > 0 {
			<-e.names
		}
		command(t, "nft", change)
		t.Log(change)
		e.wait(t, "inet/ours")
	}
	for len(e.names) > 0 {
		<-e.names
	}
	command(t, "nft", "add table inet other; add table ip ours")
	command(t, "nft", "add table inet last")
	e.not(t, "inet/ours", "inet/last")
}

// TestNetlinkOverflow has the kernel drop messages.
func TestNetlinkOverflow(t *testing.T) {
	ns := namespace(t)
	n := &network{}
	n.set([]string{""})
	blocked, free := make(chan struct{}), make(chan struct{})
	lost := make(chan struct{}, 16)
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		once := sync.OnceFunc(func() { close(blocked); <-free })
		_ = here{n, ns}.run(ctx, teller{touch: func(...string) { once() }, lost: func() { lost <- struct{}{} }})
	})
	release := sync.OnceFunc(func() { close(free) })
	t.Cleanup(func() { release(); cancel(); done.Wait() })
	<-lost
	command(t, "ip", "link", "set", "lo", "up")
	<-blocked
	var batch strings.Builder
	for i := range 4000 {
		batch.WriteString("route add 10." + strconv.Itoa(i/250) + "." + strconv.Itoa(i%250) + ".0/24 dev lo\n")
	}
	path := filepath.Join(t.TempDir(), "batch")
	write(t, path, batch.String())
	command(t, "ip", "-batch", path)
	release()
	select {
	case <-lost:
	case <-time.After(patience):
		t.Fatal("the overflow is not told")
	}
}

func TestWatcher(t *testing.T) {
	root := t.TempDir()
	touched := make(chan converge.Trigger, 64)
	lost := make(chan struct{}, 64)
	w, err := New(Config{Root: root, Logger: slog.New(slog.DiscardHandler), Lost: func() { lost <- struct{}{} },
		Touch: func(all ...converge.Trigger) {
			for _, one := range all {
				touched <- one
			}
		}})
	must(t, err)
	w.sources[converge.OnUnit] = newUnits(func(context.Context) (bus, error) { return nil, errors.New("no bus here") })
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { must(t, w.Run(ctx)) })
	t.Cleanup(func() { cancel(); done.Wait() })
	file := converge.Trigger{Kind: converge.OnFile, Name: "/f"}
	w.Set([]converge.Trigger{file, {Kind: converge.OnUnit, Name: "x.service"}})
	select {
	case <-lost:
	case <-time.After(patience):
		t.Fatal("the files are not watched")
	}
	write(t, filepath.Join(root, "f"), "")
	select {
	case got := <-touched:
		if got != file {
			t.Errorf("touched %v", got)
		}
	case <-time.After(patience):
		t.Fatal("no event")
	}
	deadline := time.Now().Add(patience)
	for {
		s := w.Status()
		if s[0].Watched == 1 && s[0].Events > 0 && strings.Contains(s[1].Error, "no bus here") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", s)
		}
		runtime.Gosched()
	}
}

func FuzzTable(f *testing.F) {
	f.Add(uint16(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWRULE), []byte{1, 0, 0, 0, 9, 0, 1, 0, 'o', 'u', 'r', 's', 0, 0, 0, 0})
	f.Add(uint16(unix.NFNL_SUBSYS_NFTABLES<<8), []byte{1, 0, 0, 0, 3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, kind uint16, body []byte) {
		if name := tableOf(kind, body); name != "" && !strings.Contains(name, "/") {
			t.Errorf("%q", name)
		}
	})
}
