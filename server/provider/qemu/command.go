package qemu

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/provider/qemu/image"
)

// The accelerators.
const (
	kvm = "kvm"
	tcg = "tcg"
)

// machine is what QEMU is to emulate.
type machine struct {
	id, name string
	// dir is the machine's directory.
	dir         string
	accelerator string
	cpus        uint32
	memoryMiB   uint32
	image       image.Image
	// disks is how many further disks there are.
	disks int
	// link is the name of the tap.
	link string
}

const (
	rootDisk = "disk.qcow2"
	seedFile = "seed.iso"
	pidFile  = "qemu.pid"
)

func dataDisk(n int) string { return fmt.Sprintf("disk-%d.qcow2", n) }

// arguments of qemu-system-x86_64 (qemu(1)), which is to be run in the machine's directory. It goes to the background when
// all devices are there, with the machine stopped before its first instruction.
func (m machine) arguments() []string {
	args := []string{
		"-name", "guest=" + m.name, "-uuid", uuid(m.id), "-nodefaults", "-no-user-config", "-display", "none", "-S", "-daemonize", "-pidfile", pidFile,
		// It opens its files, and is a user that owns nothing from then on. The sandbox cannot deny to fork: -daemonize does.
		"-runas", fmt.Sprintf("%[1]d:%[1]d", host.IDBase(m.id)), "-sandbox", "on,obsolete=deny,resourcecontrol=deny",
		"-machine", "q35,usb=off,vmport=off", "-accel", m.accel(), "-cpu", m.cpu(),
		"-smp", strconv.Itoa(int(m.cpus)), "-m", strconv.Itoa(int(m.memoryMiB)) + "M",
		"-qmp", "unix:" + socketName + ",server=on,wait=off",
		"-chardev", "file,id=console,append=on,path=" + consoleFile, "-serial", "chardev:console",
		"-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random",
		"-netdev", "tap,id=net,script=no,downscript=no,ifname=" + m.link,
		"-device", "virtio-net-pci,netdev=net,romfile=,mac=" + host.HardwareAddress(m.id).String(),
	}
	if m.image.Kernel != "" {
		args = append(args, "-kernel", m.image.Kernel, "-append", m.image.Append)
	}
	args = append(args, m.disk("root", rootDisk, "qcow2", false)...)
	for n := range m.disks {
		args = append(args, m.disk(fmt.Sprintf("data%d", n), dataDisk(n), "qcow2", false)...)
	}
	return append(args, m.disk("seed", seedFile, "raw", true)...)
}

// translatedMiB bounds the translated code that an emulating QEMU keeps. Its default is up to 1 GiB beside the machine's own
// memory; a boot of the distribution translates about half of that.
const translatedMiB = 256

// overheadMiB is what QEMU itself takes, about.
func overheadMiB(accelerator string) int64 {
	if accelerator == tcg {
		return 96 + translatedMiB
	}
	return 96
}

func (m machine) accel() string {
	if m.accelerator == tcg {
		return fmt.Sprintf("tcg,thread=multi,tb-size=%d", translatedMiB)
	}
	return m.accelerator
}

// cpu is the model. Emulating few features is faster; a user's image may need more of them, as x86-64-v2.
func (m machine) cpu() string {
	switch {
	case m.accelerator == kvm:
		return "host"
	case m.image.Kernel != "":
		return "qemu64"
	}
	return "max"
}

// disk attaches a file by NVMe, which our kernel has built in, or by virtio, which every image with an initial RAM disk can
// boot from. No write waits for the host's disk: a machine whose host crashed is never started again.
func (m machine) disk(name, file, format string, readOnly bool) []string {
	node, _ := json.Marshal(map[string]any{ // strings and booleans always marshal
		"driver": format, "node-name": name, "read-only": readOnly,
		"file": map[string]any{
			"driver": "file", "filename": filepath.Join(m.dir, file), "read-only": readOnly,
			"cache": map[string]bool{"direct": false, "no-flush": true},
		},
		"cache": map[string]bool{"direct": false, "no-flush": true},
	})
	device := "virtio-blk-pci,drive=" + name
	if m.image.Kernel != "" {
		device = "nvme,drive=" + name + ",serial=" + name
	} else if name == "root" {
		device += ",bootindex=0"
	}
	return []string{"-blockdev", string(node), "-device", device}
}
