package filesystem

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const rootMount = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"

// machine has a sysfs and device files on a temporary directory. Its disk vda has the system.
type machine struct {
	*testing.T
	host     host.Host
	commands *hosttest.Commands
	units    *hosttest.Units
	minor    int
}

func newMachine(t *testing.T) *machine {
	h, c, u := hosttest.New(t)
	m := &machine{T: t, host: h, commands: c, units: u}
	m.disk("vda", "", 4)
	m.partition("vda", "vda1", 2)
	m.write("proc/1/mountinfo", rootMount)
	u.Set("data.mount", host.Unit{Load: "loaded", Active: "inactive", File: "disabled"})
	c.On("mkfs.ext4", func(call hosttest.Call) (host.Result, error) {
		f := strings.Fields(call.Line)
		return host.Result{}, m.patch(f[7][1:], 0, ext4(f[6], f[4]))
	})
	c.On("sfdisk", func(call hosttest.Call) (host.Result, error) {
		name := filepath.Base(call.Line)
		m.partition(name, name+"1", 4)
		return host.Result{}, m.patch("dev/"+name, 512, []byte("EFI PART"))
	})
	return m
}

func (m *machine) write(name, content string) {
	m.Helper()
	hosttest.Write(m, m.host, name, content)
}

func (m *machine) link(name, target string) {
	m.Helper()
	on := filepath.Join(m.host.Root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(on), 0o755), os.Symlink(target, on)); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) patch(name string, at int64, b []byte) error {
	f, err := os.OpenFile(filepath.Join(m.host.Root, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, at)
	return errors.Join(err, f.Close())
}

// device makes a device file of a size in MiB, and what /sys says of it below a directory of /sys/devices.
func (m *machine) device(name, dir string, mib int64) {
	m.Helper()
	m.write("dev/"+name, "")
	if err := os.Truncate(filepath.Join(m.host.Root, "dev", name), mib<<20); err != nil {
		m.Fatal(err)
	}
	number := fmt.Sprintf("254:%d", m.minor)
	m.minor++
	m.write("sys/devices/"+dir+"/dev", number+"\n")
	m.write("sys/devices/"+dir+"/size", fmt.Sprintf("%d\n", mib<<11))
	m.link("sys/class/block/"+name, "../../devices/"+dir)
	m.link("sys/dev/block/"+number, "../../devices/"+dir)
}

func (m *machine) disk(name, serial string, mib int64) {
	m.Helper()
	m.device(name, name, mib)
	m.link("sys/block/"+name, "../devices/"+name)
	if serial != "" {
		m.write("sys/devices/"+name+"/serial", serial+"\n")
	}
}

func (m *machine) partition(disk, name string, mib int64) {
	m.Helper()
	m.device(name, disk+"/"+name, mib)
	m.write("sys/devices/"+disk+"/"+name+"/partition", "1\n")
}

// mounted makes the kernel say that a device is mounted at /data.
func (m *machine) mounted(name string) {
	m.Helper()
	b, err := os.ReadFile(filepath.Join(m.host.Root, "sys/class/block", name, "dev"))
	if err != nil {
		m.Fatal(err)
	}
	m.write("proc/1/mountinfo", rootMount+"30 22 "+strings.TrimSpace(string(b))+" / /data rw - ext4 /dev/"+name+" rw\n")
}

func (m *machine) resource(want *agentv1.Filesystem) converge.Resource {
	if want.Path == "" {
		want.Path = "/data"
	}
	return New(&desired.State{Machine: &agentv1.MachineComponent{}, Pool: &agentv1.PoolComponent{Filesystems: []*agentv1.Filesystem{want}}}, &m.host)[0]
}

// ext4 is the beginning of a file system.
func ext4(uuid, label string) []byte {
	b := make([]byte, 2048)
	binary.LittleEndian.PutUint16(b[0x438:], 0xef53)
	binary.LittleEndian.PutUint32(b[0x460:], 0x40)
	_, _ = hex.Decode(b[0x468:], []byte(strings.ReplaceAll(uuid, "-", "")))
	copy(b[0x478:], label)
	return b
}
