package filesystem

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const someUUID = "01234567-89ab-4cde-8f01-23456789abcd"

func check(t *testing.T, r converge.Resource) string {
	t.Helper()
	d, err := r.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d.Text
}

func TestMadeAndMounted(t *testing.T) {
	for _, c := range []struct {
		name, device, ran string
		want              *agentv1.Filesystem
	}{
		{"whole disk", "vdb", `mkfs\.ext4 -q -F -L data -U [-0-9a-f]{36} /dev/vdb`, &agentv1.Filesystem{Disk: 1}},
		{"partition", "vdb1", `sfdisk --quiet --label gpt /dev/vdb; mkfs\.ext4 -q -F -L data -U [-0-9a-f]{36} /dev/vdb1`, &agentv1.Filesystem{Disk: 1, Partition: true}},
		{"by name", "vdc", `mkfs\.ext4 -q -F -L zk -U [-0-9a-f]{36} /dev/vdc`, &agentv1.Filesystem{Device: "/dev/disk/by-id/x", Label: "zk"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			m.disk("vdb", "", 8)
			m.disk("vdc", "", 8)
			m.link("dev/disk/by-id/x", "../../vdc")
			r := m.resource(c.want)
			if d := check(t, r); !strings.Contains(d, "+ext4 with label") || !strings.Contains(d, "is not mounted") {
				t.Errorf("before: %q", d)
			}
			if len(m.commands.Lines()) > 0 {
				t.Errorf("the check ran %q", m.commands.Lines())
			}
			if err := r.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(m.commands.Lines(), "; "); !regexp.MustCompile("^" + c.ran + "$").MatchString(got) {
				t.Errorf("ran %q", got)
			}
			if got := strings.Join(m.units.Log(), ", "); got != "daemon-reload, enable data.mount, start data.mount" {
				t.Errorf("units %q", got)
			}
			unit, err := os.ReadFile(filepath.Join(m.host.Root, "etc/systemd/system/data.mount"))
			if err != nil || !regexp.MustCompile(`(?s)What=/dev/disk/by-uuid/[-0-9a-f]{36}\nWhere=/data\nType=ext4\nOptions=defaults,nofail\n.*WantedBy=local-fs.target`).Match(unit) {
				t.Errorf("unit %s, %v", unit, err)
			}
			m.mounted(c.device)
			if d := check(t, m.resource(c.want)); d != "" {
				t.Errorf("after: %q", d)
			}
			// Unmounted by hand: mounted again, and not made again.
			m.write("proc/1/mountinfo", rootMount)
			if d := check(t, r); d != "is not mounted" {
				t.Errorf("unmounted: %q", d)
			}
			m.commands.Reset()
			if err := r.Apply(t.Context()); err != nil || len(m.commands.Lines()) > 0 {
				t.Errorf("again: ran %q, %v", m.commands.Lines(), err)
			}
			// Other options are taken up in place.
			m.mounted(c.device)
			c.want.Options = []string{"noatime"}
			r = m.resource(c.want)
			if d := check(t, r); !strings.Contains(d, "+Options=noatime") {
				t.Errorf("options: %q", d)
			}
			if err := r.Apply(t.Context()); err != nil || m.units.Log()[len(m.units.Log())-1] != "reload-or-restart data.mount" {
				t.Errorf("units %q, %v", m.units.Log(), err)
			}
		})
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	gpt := map[int64]string{512: "EFI PART"}
	for _, c := range []struct {
		name, says string
		want       *agentv1.Filesystem
		on         map[int64]string
		prepare    func(m *machine)
	}{
		{"another label", `ext4 with label "theirs"`, &agentv1.Filesystem{Disk: 1}, map[int64]string{0: string(ext4(someUUID, "theirs"))}, nil},
		{"another type", "ext4 with label", &agentv1.Filesystem{Disk: 1, Type: "xfs"}, map[int64]string{0: string(ext4(someUUID, "data"))}, nil},
		{"a partition table", "partition table", &agentv1.Filesystem{Disk: 1}, gpt, nil},
		{"a partition table, one wanted", "partition table", &agentv1.Filesystem{Disk: 1, Partition: true}, gpt, nil},
		{"an empty partition of somebody", "an empty partition", &agentv1.Filesystem{Disk: 1, Partition: true}, gpt, func(m *machine) { m.partition("vdb", "vdb1", 4) }},
		{"two partitions", "partition table", &agentv1.Filesystem{Disk: 1, Partition: true}, gpt, func(m *machine) {
			m.partition("vdb", "vdb1", 4)
			m.partition("vdb", "vdb2", 4)
		}},
		{"LVM", "LVM volume", &agentv1.Filesystem{Disk: 1}, map[int64]string{0x218: "LVM2 001"}, nil},
		{"unknown data", "data", &agentv1.Filesystem{Disk: 1}, map[int64]string{77777: "x"}, nil},
		{"data at the end", "data", &agentv1.Filesystem{Disk: 1}, map[int64]string{8<<20 - 1: "x"}, nil},
		{"the system's disk", "the system is on", &agentv1.Filesystem{Device: "/dev/vda"}, nil, nil},
		{"a partition of the system's disk", "the system is on", &agentv1.Filesystem{Device: "/dev/vda1"}, nil, nil},
		{"something is mounted there", "is mounted there", &agentv1.Filesystem{Disk: 1}, nil, func(m *machine) { m.mounted("vda1") }},
		{"fstab has it", "/etc/fstab has a line", &agentv1.Filesystem{Disk: 1}, nil, func(m *machine) { m.write("etc/fstab", "LABEL=x /data ext4 defaults 0 2\n") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			m.disk("vdb", "", 8)
			for at, b := range c.on {
				if err := m.patch("dev/vdb", at, []byte(b)); err != nil {
					t.Fatal(err)
				}
			}
			if c.prepare != nil {
				c.prepare(m)
			}
			r := m.resource(c.want)
			if _, err := r.Check(t.Context()); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("check: %v", err)
			}
			if err := r.Apply(t.Context()); !errs.Is(err, errs.Conflict) {
				t.Errorf("apply: %v", err)
			}
			if len(m.commands.Lines()) > 0 || len(m.units.Log()) > 0 {
				t.Errorf("ran %q, units %q", m.commands.Lines(), m.units.Log())
			}
		})
	}
}

func TestWhatACrashLeftIsFinished(t *testing.T) {
	m := newMachine(t)
	m.disk("vdb", "s1", 8)
	mkfs := "mkfs.ext4"
	half := true
	m.commands.On(mkfs, func(call hosttest.Call) (host.Result, error) {
		f := strings.Fields(call.Line)
		if half {
			half = false
			return host.Result{Exit: 137}, m.patch("dev/vdb", 99999, []byte("half"))
		}
		return host.Result{}, m.patch("dev/vdb", 0, ext4(f[6], f[4]))
	})
	if err := m.resource(&agentv1.Filesystem{Disk: 1}).Apply(t.Context()); err == nil {
		t.Fatal("half a file system counts")
	}
	// Not for another path, and not on another disk.
	if err := m.resource(&agentv1.Filesystem{Disk: 1, Path: "/other"}).Apply(t.Context()); !errs.Is(err, errs.Conflict) {
		t.Errorf("another path: %v", err)
	}
	if err := m.resource(&agentv1.Filesystem{Disk: 1}).Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := m.commands.Lines()
	if len(lines) != 2 || lines[0] != lines[1] {
		t.Errorf("ran %q", lines)
	}
}

func TestADiskThatOutlivedItsMachineKeepsItsData(t *testing.T) {
	m := newMachine(t)
	m.disk("vdb", "", 8)
	if err := m.patch("dev/vdb", 0, ext4(someUUID, "data")); err != nil {
		t.Fatal(err)
	}
	r := m.resource(&agentv1.Filesystem{Disk: 1})
	if err := r.Apply(t.Context()); err != nil || len(m.commands.Lines()) > 0 {
		t.Errorf("ran %q, %v", m.commands.Lines(), err)
	}
	m.mounted("vdb")
	if d := check(t, r); d != "" {
		t.Errorf("after: %q", d)
	}
}

func TestDiskThatIsNotThere(t *testing.T) {
	m := newMachine(t)
	for want, f := range map[string]*agentv1.Filesystem{"disk 2 is not there": {Disk: 2}, "/dev/vdz is not there": {Device: "/dev/vdz"}} {
		r := m.resource(f)
		if d := check(t, r); d != want {
			t.Errorf("check: %q", d)
		}
		if err := r.Apply(t.Context()); !errs.Is(err, errs.NotFound) {
			t.Errorf("apply: %v", err)
		}
	}
}

func TestSharedKernelOrderAndTriggers(t *testing.T) {
	m := newMachine(t)
	s := &desired.State{Machine: &agentv1.MachineComponent{}, Pool: &agentv1.PoolComponent{Filesystems: []*agentv1.Filesystem{{Path: "/data/x", Disk: 2}, {Path: "/data", Disk: 1}}}}
	ordered, err := converge.Order(New(s, &m.host))
	if err != nil || ordered[0].Name() != "filesystem//data" {
		t.Errorf("order %v, %v", ordered, err)
	}
	if got := ordered[0].(converge.Triggered).Triggers(); len(got) != 2 || got[0].Name != "data.mount" {
		t.Errorf("triggers %v", got)
	}
	s.Machine.SharedKernel = true
	if err := New(s, &m.host)[0].Apply(t.Context()); !errs.Is(err, errs.Unsupported) {
		t.Errorf("shared kernel: %v", err)
	}
}

func TestWhatLeftIsUnmountedAndKept(t *testing.T) {
	m := newMachine(t)
	m.units.Set("data-x.mount", host.Unit{Load: "loaded", Active: "active", File: "enabled"})
	m.units.Set("data.mount", host.Unit{Load: "loaded", Active: "active", File: "enabled"})
	for _, unit := range []string{"data", "data-x"} {
		m.write("etc/systemd/system/"+unit+".mount", unitHead+"\n[Mount]\n")
	}
	m.write("etc/systemd/system/theirs.mount", "[Mount]\n")
	list := New(&desired.State{Machine: &agentv1.MachineComponent{}, Pool: &agentv1.PoolComponent{Filesystems: []*agentv1.Filesystem{{Path: "/data", Disk: 1}}}}, &m.host)
	r := list[len(list)-1]
	if d := check(t, r); d != "file systems that are not listed: data-x.mount" {
		t.Errorf("one left: %q", d)
	}
	r = New(&desired.State{Machine: &agentv1.MachineComponent{}, Pool: &agentv1.PoolComponent{}}, &m.host)[0]
	m.units.Fail("stop data-x.mount", errs.New(errs.Internal, "target is busy"))
	if err := r.Apply(t.Context()); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "busy") {
		t.Errorf("busy: %v", err)
	}
	if d := check(t, r); d != "file systems that are not listed: data-x.mount" {
		t.Errorf("busy: %q", d)
	}
	m.units.Fail("stop data-x.mount", nil)
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := check(t, r); d != "" {
		t.Errorf("after: %q", d)
	}
	if _, err := os.Stat(filepath.Join(m.host.Root, "etc/systemd/system/theirs.mount")); err != nil {
		t.Error(err)
	}
	if len(m.commands.Lines()) > 0 {
		t.Errorf("ran %q", m.commands.Lines())
	}
}
