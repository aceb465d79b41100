package boot_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/boot"
)

// cluster is what the handler needs of the others.
type cluster struct {
	mu      sync.Mutex
	machine *provisionrv1.Machine
	stages  []string
	err     error
}

func (c *cluster) CheckBeaconToken(id string, attempt uint32, token string) error {
	if token != fmt.Sprintf("%s|%d", id, attempt) {
		return errs.New(errs.Unauthenticated, "no")
	}
	return nil
}

func (c *cluster) CheckMachineToken(id string, attempt uint32, token string) error {
	switch {
	case token == "broken":
		return errs.New(errs.Unavailable, "no key yet")
	case token != fmt.Sprintf("join|%s|%d", id, attempt):
		return errs.New(errs.Unauthenticated, "no")
	}
	return nil
}

func (c *cluster) Do(_ context.Context, caller *provisionrv1.Caller, id string, command *raftlogv1.Command) (*provisionrv1.Version, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	if caller.GetName() != "s1" || id == "" {
		return nil, errors.New("no caller or request id")
	}
	c.stages = append(c.stages, command.GetBootStage().GetId()+" "+command.GetBootStage().GetStage())
	return nil, nil
}

func newHandler(t *testing.T, change func(*boot.Config)) (*boot.Handler, *cluster) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/provisionr-agent-amd64", []byte("the agent"), 0o755); err != nil {
		t.Fatal(err)
	}
	agents, err := boot.OpenAgents(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agents.Close() })
	c := &cluster{machine: &provisionrv1.Machine{
		Metadata: &provisionrv1.Metadata{Name: "m-1"},
		Status:   &provisionrv1.MachineStatus{Phase: provisionrv1.Phase_PHASE_BOOTING, Attempt: 1},
	}}
	config := boot.Config{
		Member: "s1", Agents: agents, Tokens: c, Proposer: c, Logger: slog.New(slog.DiscardHandler),
		Machine: func(id string) *provisionrv1.Machine {
			if id != "m-1" {
				return nil
			}
			return c.machine
		},
		Adopt: func(m *provisionrv1.Machine) ([]byte, error) {
			if m.GetSpec().GetProvider() != "metal" {
				return nil, errs.New(errs.Unsupported, "not to be adopted")
			}
			return []byte("#!/bin/sh\n"), nil
		},
	}
	if change != nil {
		change(&config)
	}
	h, err := boot.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return h, c
}

func call(h http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAgentDownload(t *testing.T) {
	h, _ := newHandler(t, nil)
	sum := sha256.Sum256([]byte("the agent"))
	etag := `"` + hex.EncodeToString(sum[:]) + `"`
	w := call(h, "GET", "/boot/v1/agent/amd64", "")
	if w.Code != 200 || w.Body.String() != "the agent" || w.Header().Get("ETag") != etag {
		t.Errorf("download: %d %q %v", w.Code, w.Body, w.Header())
	}
	if w := call(h, "GET", "/boot/v1/agent/amd64", "", "If-None-Match", etag); w.Code != http.StatusNotModified {
		t.Errorf("conditional download: %d", w.Code)
	}
	if w := call(h, "GET", "/boot/v1/agent/amd64", "", "Range", "bytes=4-"); w.Code != http.StatusPartialContent || w.Body.String() != "agent" {
		t.Errorf("resumed download: %d %q", w.Code, w.Body)
	}
	for path, want := range map[string]int{
		"/boot/v1/agent/arm64": 404, "/boot/v1/agent/..%2fetc": 404, "/boot/v1/": 404, "/boot/v1/beacon": 405,
	} {
		if w := call(h, "GET", path, ""); w.Code != want {
			t.Errorf("GET %s: %d, want %d", path, w.Code, want)
		}
	}
}

// slowWriter holds a download until it is released.
type slowWriter struct {
	*httptest.ResponseRecorder
	began, release chan struct{}
	once           sync.Once
}

func (w *slowWriter) Write(b []byte) (int, error) {
	w.once.Do(func() { close(w.began) })
	<-w.release
	return w.ResponseRecorder.Write(b)
}

func TestDownloadsAreBounded(t *testing.T) {
	h, _ := newHandler(t, func(c *boot.Config) { c.Downloads = 1 })
	slow := &slowWriter{ResponseRecorder: httptest.NewRecorder(), began: make(chan struct{}), release: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.ServeHTTP(slow, httptest.NewRequest("GET", "/boot/v1/agent/amd64", nil))
	}()
	<-slow.began
	if w := call(h, "GET", "/boot/v1/agent/amd64", ""); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("a second download: %d %v", w.Code, w.Header())
	}
	close(slow.release)
	<-done
	if w := call(h, "GET", "/boot/v1/agent/amd64", ""); w.Code != 200 {
		t.Errorf("a download after the first ended: %d", w.Code)
	}
}

func TestOpenAgents(t *testing.T) {
	if _, err := boot.OpenAgents(fstest.MapFS{}); !errs.Is(err, errs.NotFound) || errs.HintOf(err) == "" {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := boot.OpenAgents(fstest.MapFS{"provisionr-agent-amd64/x": {}}); err == nil {
		t.Error("a directory was taken for a binary")
	}
	// A file system whose files cannot be read at an offset.
	agents, err := boot.OpenAgents(onlyReader{fstest.MapFS{"provisionr-agent-arm64": {Data: []byte("x")}}})
	if err != nil || len(agents.SHA256()) != 1 || agents.SHA256()["arm64"] == "" {
		t.Errorf("%v, %v", agents, err)
	}
}

func beacon(id string, attempt int, token, stage string) string {
	return fmt.Sprintf(`{"machine_id":%q,"attempt":%d,"token":%q,"stage":%q}`, id, attempt, token, stage)
}

func TestBeacon(t *testing.T) {
	for name, test := range map[string]struct {
		body   string
		change func(*cluster)
		want   int
		stages int
	}{
		"good":              {body: beacon("m-1", 1, "m-1|1", "agent-download try 1"), want: 204, stages: 1},
		"wrong token":       {body: beacon("m-1", 1, "m-1|2", "started"), want: 403},
		"other attempt":     {body: beacon("m-1", 2, "m-1|2", "started"), want: 403},
		"unknown machine":   {body: beacon("m-2", 1, "m-2|1", "started"), want: 403},
		"not JSON":          {body: "stage=1", want: 400},
		"too large":         {body: beacon("m-1", 1, strings.Repeat("x", 5000), "started"), want: 400},
		"long stage":        {body: beacon("m-1", 1, "m-1|1", strings.Repeat("x", 65)), want: 400},
		"stage with escape": {body: beacon("m-1", 1, "m-1|1", "\x1b[31mred"), want: 400},
		"no stage":          {body: beacon("m-1", 1, "m-1|1", ""), want: 400},
		"repeated":          {body: beacon("m-1", 1, "m-1|1", "started"), want: 204, change: func(c *cluster) { c.machine.Status.BootStage = "started" }},
		"after the boot": {body: beacon("m-1", 1, "m-1|1", "started"), want: 204, change: func(c *cluster) {
			c.machine.Status.Phase = provisionrv1.Phase_PHASE_READY
		}},
		"no leader": {body: beacon("m-1", 1, "m-1|1", "started"), want: 503, change: func(c *cluster) { c.err = errs.New(errs.Unavailable, "no leader") }},
	} {
		t.Run(name, func(t *testing.T) {
			h, c := newHandler(t, nil)
			if test.change != nil {
				test.change(c)
			}
			if w := call(h, "POST", "/boot/v1/beacon", test.body); w.Code != test.want || len(c.stages) != test.stages {
				t.Errorf("%d %q with %d stages, want %d with %d", w.Code, w.Body, len(c.stages), test.want, test.stages)
			}
		})
	}
}

func TestBeaconsArePaced(t *testing.T) {
	h, c := newHandler(t, nil)
	refused := 0
	for i := range 100 {
		if w := call(h, "POST", "/boot/v1/beacon", beacon("m-1", 1, "m-1|1", fmt.Sprintf("stage %d", i))); w.Code == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused < 80 || len(c.stages)+refused != 100 {
		t.Errorf("%d of 100 beacons at once were committed, %d refused", len(c.stages), refused)
	}
	// Strangers do not use up what machines may send.
	h, c = newHandler(t, func(c *boot.Config) { c.BeaconsPerSecond = 1 })
	for range 100 {
		call(h, "POST", "/boot/v1/beacon", beacon("m-1", 1, "wrong", "started"))
	}
	if w := call(h, "POST", "/boot/v1/beacon", beacon("m-1", 1, "m-1|1", "started")); w.Code != 204 || len(c.stages) != 1 {
		t.Errorf("a beacon after a flood of strangers: %d", w.Code)
	}
}

func FuzzBeacon(f *testing.F) {
	f.Add(beacon("m-1", 1, "m-1|1", "started"))
	f.Add(`{"attempt":-1}`)
	f.Add(`[[[[`)
	f.Fuzz(func(t *testing.T, body string) {
		h, c := newHandler(t, nil)
		if w := call(h, "POST", "/boot/v1/beacon", body); w.Code >= 500 || (len(c.stages) > 0) != (w.Code == 204) {
			t.Errorf("%q: %d with stages %v", body, w.Code, c.stages)
		}
		for _, stage := range c.stages {
			if strings.ContainsFunc(stage, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("stage %q was recorded", stage)
			}
		}
	})
}

// onlyReader hides all methods of files but those of fs.File.
type onlyReader struct{ fstest.MapFS }

func (o onlyReader) Open(name string) (fs.File, error) {
	f, err := o.MapFS.Open(name)
	if err != nil {
		return nil, err
	}
	return struct{ fs.File }{f}, nil
}

func TestPrograms(t *testing.T) {
	content := map[string]string{"provisionr-agent-amd64": "the agent", "provisionr-wireguard-amd64": "wireguard", "provisionr-wireguard-arm64": "wireguard for arm"}
	dir := fstest.MapFS{"provisionr-other-amd64": {Data: []byte("other")}}
	for name, text := range content {
		dir[name] = &fstest.MapFile{Data: []byte(text)}
	}
	agents, err := boot.OpenAgents(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer agents.Close()
	for name, text := range content {
		sum := sha256.Sum256([]byte(text))
		from, size, ok := agents.Program(sum[:])
		got := make([]byte, len(text))
		if !ok || size != int64(len(text)) {
			t.Fatalf("%s: %d bytes, %v", name, size, ok)
		}
		if _, err := from.ReadAt(got, 0); err != nil || string(got) != text {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	sum := sha256.Sum256([]byte("other"))
	if _, _, ok := agents.Program(sum[:]); ok {
		t.Error("a file of another name is served")
	}
	helpers := agents.Helpers()
	want := sha256.Sum256([]byte("wireguard for arm"))
	if len(helpers) != 2 || string(helpers["wireguard/arm64"]) != string(want[:]) {
		t.Errorf("helpers %x", helpers)
	}
	want = sha256.Sum256([]byte("the agent"))
	if string(agents.Agent("amd64")) != string(want[:]) || agents.Agent("arm64") != nil {
		t.Errorf("agents %x and %x", agents.Agent("amd64"), agents.Agent("arm64"))
	}
	if _, err := boot.OpenAgents(fstest.MapFS{"provisionr-wireguard-amd64": {Data: []byte("wireguard")}}); !errs.Is(err, errs.NotFound) {
		t.Errorf("without an agent: %v", err)
	}
}
