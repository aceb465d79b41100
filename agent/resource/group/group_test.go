package group_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/group"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const before = "root:x:0:\nhdfs:x:900:\n"

func TestConverge(t *testing.T) {
	for _, c := range []struct {
		name, diff, ran string
		want            *agentv1.Group
	}{
		{"there", "", "", &agentv1.Group{Name: "hdfs"}},
		{"there with its number", "", "", &agentv1.Group{Name: "hdfs", Gid: 900}},
		{"new", "group is missing", "groupadd yarn", &agentv1.Group{Name: "yarn"}},
		{"new with a number", "group is missing", "groupadd --gid 950 --system yarn", &agentv1.Group{Name: "yarn", Gid: 950, System: true}},
		{"to go", "group exists, wanted absent", "groupdel hdfs", &agentv1.Group{Name: "hdfs", Absent: true}},
		{"gone", "", "", &agentv1.Group{Name: "yarn", Absent: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, commands, _ := hosttest.New(t)
			on := filepath.Join(h.Root, "etc/group")
			if err := errors.Join(os.MkdirAll(filepath.Dir(on), 0o755), os.WriteFile(on, []byte(before), 0o644)); err != nil {
				t.Fatal(err)
			}
			commands.On("groupadd", func(call hosttest.Call) (host.Result, error) {
				f := strings.Fields(call.Line)
				return host.Result{}, os.WriteFile(on, []byte(before+f[len(f)-1]+":x:950:\n"), 0o644)
			})
			commands.On("groupdel", func(hosttest.Call) (host.Result, error) {
				return host.Result{}, os.WriteFile(on, []byte("root:x:0:\n"), 0o644)
			})
			r := group.New(&desired.State{Pool: &agentv1.PoolComponent{Groups: []*agentv1.Group{c.want}}}, &h)[0]
			if d, err := r.Check(t.Context()); err != nil || d.Text != c.diff {
				t.Errorf("before: %q, %v", d.Text, err)
			}
			if err := r.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
				t.Errorf("after: %q, %v", d.Text, err)
			}
			if got := strings.Join(commands.Lines(), "; "); got != c.ran {
				t.Errorf("ran %q, want %q", got, c.ran)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	h, commands, _ := hosttest.New(t)
	on := filepath.Join(h.Root, "etc/group")
	if err := errors.Join(os.MkdirAll(filepath.Dir(on), 0o755), os.WriteFile(on, []byte(before), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []*agentv1.Group{{Name: "hdfs", Gid: 901}, {Name: "root", Absent: true}} {
		r := group.New(&desired.State{Pool: &agentv1.PoolComponent{Groups: []*agentv1.Group{want}}}, &h)[0]
		if err := r.Apply(t.Context()); err == nil || errs.HintOf(err) == "" {
			t.Errorf("%s: %v", want.Name, err)
		}
	}
	if lines := commands.Lines(); len(lines) > 0 {
		t.Errorf("ran %q", lines)
	}
}

func TestAnAbsentGroupComesAfterItsAccounts(t *testing.T) {
	h, _, _ := hosttest.New(t)
	r := group.New(&desired.State{Pool: &agentv1.PoolComponent{
		Groups: []*agentv1.Group{{Name: "hdfs", Absent: true}}, Users: []*agentv1.User{{Name: "ada", Absent: true}, {Name: "bob"}},
	}}, &h)[0]
	if ordered, ok := r.(converge.Ordered); !ok || !slices.Equal(ordered.After(), []string{"package", "user/ada"}) {
		t.Error("order")
	}
	if triggered, ok := r.(converge.Triggered); !ok || len(triggered.Triggers()) != 1 {
		t.Error("trigger")
	}
}
