package file_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/file"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func state(files ...*agentv1.File) *desired.State {
	return &desired.State{
		Machine: &agentv1.MachineComponent{MachineId: "m-a", Name: "zk-2", Fqdn: "zk-2.example.internal", Index: 2, Pool: "zk", Domain: "example.internal", Address: "10.0.0.2"},
		Pool:    &agentv1.PoolComponent{Name: "zk", Files: files, Variables: map[string]string{"port": "2181"}},
		Members: map[string][]*agentv1.Member{"zk": {
			{Name: "zk-1", Fqdn: "zk-1.example.internal", Index: 1},
			{Name: "zk-2", Fqdn: "zk-2.example.internal", Index: 2, Address: "10.0.0.2", MachineId: "m-a"},
		}},
	}
}

func accounts(t testing.TB, root string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"passwd": fmt.Sprintf("root:x:%d:%d::/:/bin/sh\n", os.Getuid(), os.Getgid()),
		"group":  fmt.Sprintf("root:x:%d:\n", os.Getgid()),
	} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConverge(t *testing.T) {
	h, _, _ := hosttest.New(t)
	accounts(t, h.Root)
	if err := os.WriteFile(filepath.Join(h.Root, "etc/old"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	list := file.New(state(
		&agentv1.File{Path: "/etc/motd", Source: &agentv1.File_Content{Content: []byte("hello\n")}},
		&agentv1.File{Path: "/var/lib/zk/myid", Mode: 0o640, Source: &agentv1.File_Template{Template: "{{.Machine.Index}}\n"}},
		&agentv1.File{Path: "/etc/zk/zoo.cfg", Source: &agentv1.File_Template{
			Template: "clientPort={{.Vars.port}}\n{{range .Pool.Members}}server.{{.Index}}={{.FQDN}}:2888:3888\n{{end}}",
		}},
		&agentv1.File{Path: "/etc/old", Source: &agentv1.File_Absent{Absent: true}},
	), &h)
	for _, r := range list {
		if d, err := r.Check(t.Context()); err != nil || d.Empty() || !strings.Contains(d.Text, strings.TrimPrefix(r.Name(), "file/")) {
			t.Errorf("%s before: %q, %v", r.Name(), d.Text, err)
		}
		if err := r.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
			t.Errorf("%s after: %q, %v", r.Name(), d.Text, err)
		}
	}
	for name, want := range map[string]string{
		"etc/motd": "hello\n", "var/lib/zk/myid": "2\n",
		"etc/zk/zoo.cfg": "clientPort=2181\nserver.1=zk-1.example.internal:2888:3888\nserver.2=zk-2.example.internal:2888:3888\n",
	} {
		if b, err := os.ReadFile(filepath.Join(h.Root, name)); err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v", name, b, err)
		}
	}
	if _, err := os.Stat(filepath.Join(h.Root, "etc/old")); !os.IsNotExist(err) {
		t.Errorf("the absent file: %v", err)
	}
}

func TestOwnerThatDoesNotExist(t *testing.T) {
	h, _, _ := hosttest.New(t)
	accounts(t, h.Root)
	r := file.New(state(&agentv1.File{Path: "/etc/f", Owner: "zookeeper", Source: &agentv1.File_Content{}}), &h)[0]
	if d, err := r.Check(t.Context()); err != nil || !strings.Contains(d.Text, "user zookeeper does not exist") {
		t.Errorf("check: %q, %v", d.Text, err)
	}
	if err := r.Apply(t.Context()); err == nil {
		t.Error("applied without the owner")
	}
}

func TestBrokenTemplate(t *testing.T) {
	h, _, _ := hosttest.New(t)
	accounts(t, h.Root)
	r := file.New(state(&agentv1.File{Path: "/etc/f", Source: &agentv1.File_Template{Template: "{{.Vars.nothing}}"}}), &h)[0]
	if _, err := r.Check(t.Context()); err == nil {
		t.Error("check found nothing wrong")
	}
	if err := r.Apply(t.Context()); err == nil {
		t.Error("a broken template was written")
	}
}

func BenchmarkCheck20Files(b *testing.B) {
	h, _, _ := hosttest.New(b)
	accounts(b, h.Root)
	var files []*agentv1.File
	for i := range 20 {
		files = append(files, &agentv1.File{Path: fmt.Sprintf("/etc/app/conf.d/%d", i), Source: &agentv1.File_Content{Content: []byte(strings.Repeat("x\n", 500))}})
	}
	list := file.New(state(files...), &h)
	for _, r := range list {
		if err := r.Apply(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		for _, r := range list {
			if d, err := r.Check(b.Context()); err != nil || !d.Empty() {
				b.Fatal(d, err)
			}
		}
	}
}
