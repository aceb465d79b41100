package host

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/provisionr/provisionr/cmd/provisionr/internal/cli"
	"github.com/provisionr/provisionr/internal/errs"
)

// TestMain lets the test's own binary stand for provisionr where a test runs it as a server.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("PLAY_SERVER") == "":
		os.Exit(m.Run())
	case slices.Contains(os.Args, "join-token"):
		fmt.Println("token: pvj_one_time")
	default:
		os.Exit(playServer(os.Args[1:]))
	}
}

// playServer is ready when as many servers have started as a majority needs, like a real one.
func playServer(args []string) int {
	value := func(flag string) string {
		if i := slices.Index(args, flag); i >= 0 {
			return args[i+1]
		}
		return ""
	}
	data := value("--data")
	member := filepath.Join(data, "identity", "member.json")
	majority := 2
	if !exists(member) {
		majority = 1
		if value("--name") != "s1" && (os.Getenv("PROVISIONR_JOIN_TOKEN") != "pvj_one_time" || value("--join-address") == "") {
			return 3
		}
		if os.MkdirAll(filepath.Dir(member), 0o700) != nil || os.WriteFile(member, nil, 0o600) != nil {
			return 4
		}
	}
	if os.Getenv("PLAY_SERVER") == "fail" || os.WriteFile(filepath.Join(data, "started"), nil, 0o600) != nil {
		return 5
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	for tick := time.Tick(time.Millisecond); ; {
		if started, _ := filepath.Glob(filepath.Join(filepath.Dir(data), "s*", "started")); len(started) >= majority {
			break
		}
		select {
		case <-tick:
		case <-stop:
			return 0
		}
	}
	if os.WriteFile(filepath.Join(data, "ready"), nil, 0o600) != nil {
		return 6
	}
	<-stop
	return 0
}

// dev runs a cluster of three players until it is ready, or returns its error.
func dev(t *testing.T, data, play string) error {
	t.Helper()
	t.Setenv("PLAY_SERVER", play)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := &devFlags{name: "test", data: data, servers: 3, noLocal: true, port: 7443}
	for n := 1; n <= 3; n++ {
		if err := os.MkdirAll(f.member(n).data, 0o700); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(filepath.Join(f.member(n).data, "started"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- f.runChildren(ctx, cli.Streams{Out: io.Discard, Err: io.Discard}, self) }()
	err = await(ctx, ended, func() bool { return exists(f.file("ready")) })
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		t.Error("the cluster was not ready in time")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("stopped: %v", err)
	}
	return os.Remove(f.file("ready"))
}

// TestChildren: new servers join one by one; a cluster that is there already starts again, although none of its servers
// serves without another.
func TestChildren(t *testing.T) {
	data := t.TempDir()
	for _, start := range []string{"first", "second"} {
		if err := dev(t, data, "well"); err != nil {
			t.Fatalf("%s start: %v", start, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(data, "s1")); err != nil {
		t.Fatal(err)
	}
	if err := dev(t, data, "well"); !errs.Is(err, errs.Conflict) {
		t.Errorf("without the first server: %v", err)
	}
}

func TestChildThatEnds(t *testing.T) {
	err := dev(t, t.TempDir(), "fail")
	if err == nil || !strings.Contains(err.Error(), "the server s1 ended before it served: exit status 5") {
		t.Errorf("error %v", err)
	}
}

// TestClaim: a second dev on a directory changes nothing there.
func TestClaim(t *testing.T) {
	f := &devFlags{data: t.TempDir()}
	if err := os.WriteFile(f.file("ready"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	release, err := f.claim()
	if err != nil {
		t.Fatal(err)
	}
	if exists(f.file("ready")) {
		t.Error("what a crash left says that the cluster serves")
	}
	if err := os.WriteFile(f.file("ready"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(f.file(pidFile))
	if err != nil || len(before) == 0 {
		t.Fatalf("pid %q, %v", before, err)
	}
	if _, err := (&devFlags{data: f.data}).claim(); !errs.Is(err, errs.Conflict) {
		t.Errorf("second: %v", err)
	}
	if after, _ := os.ReadFile(f.file(pidFile)); !bytes.Equal(before, after) || !exists(f.file("ready")) {
		t.Error("the second dev took the first one's marks")
	}
	release()
	if exists(f.file("ready")) {
		t.Error("ready after the end")
	}
	again, err := f.claim()
	if err != nil {
		t.Fatal(err)
	}
	again()
}
