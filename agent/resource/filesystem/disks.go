package filesystem

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/fstab"
	"github.com/provisionr/provisionr/internal/errs"
)

// disk is a whole block device.
type disk struct {
	// name is the kernel's, as vdb.
	name, serial string
}

// mount is a line of mountinfo (proc_pid_mountinfo(5)).
type mount struct {
	// device is MAJOR:MINOR.
	device, target, kind, source string
}

// mounts returns what the system has mounted, in order. The agent itself may see less.
func mounts(h *host.Host) ([]mount, error) {
	b, err := h.ReadFile("/proc/1/mountinfo")
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot read what is mounted: %w", err)
	}
	return parseMounts(string(b)), nil
}

func parseMounts(info string) []mount {
	var list []mount
	for line := range strings.Lines(info) {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if ok && len(f) >= 5 && len(g) >= 2 {
			list = append(list, mount{f[2], fstab.Unescape(f[4]), g[0], fstab.Unescape(g[1])})
		}
	}
	return list
}

// virtual begin the names of block devices that are no disks, or that others make of disks.
var virtual = []string{"loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "drbd", "bcache", "mtdblock", "rbd"}

// system are the mounts whose disks are the system's own.
var system = []string{"/", "/boot", "/boot/efi", "/efi", "/usr", "/var"}

// disks returns the disks beside the system's own, in their order.
func disks(h *host.Host, own map[string]bool) ([]disk, error) {
	root, err := h.Open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), "sys/block")
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot read which disks there are: %w", err)
	}
	var list []disk
	for _, e := range entries {
		name := e.Name()
		if slices.ContainsFunc(virtual, func(begin string) bool { return strings.HasPrefix(name, begin) }) {
			continue
		}
		if own[name] || number(root, name, "size") == 0 || number(root, name, "ro") == 1 || number(root, name, "removable") == 1 {
			continue
		}
		list = append(list, disk{name, serialOf(root, name)})
	}
	sortDisks(list)
	return list, nil
}

// serialOf returns a disk's serial number, or "". Virtio has it in another place than others.
func serialOf(root *os.Root, name string) string {
	if s := attribute(root, name, "serial"); s != "" {
		return s
	}
	return attribute(root, name, "device/serial")
}

func attribute(root *os.Root, name, file string) string {
	b, err := root.ReadFile("sys/class/block/" + name + "/" + file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func number(root *os.Root, name, file string) int64 {
	n, err := strconv.ParseInt(attribute(root, name, file), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// sortDisks puts disks in the order of the numbers that their serials end with, where those differ in nothing else and are
// all different; else in the order of their names, of which a shorter one comes first, as in sdz and sdaa.
func sortDisks(list []disk) {
	numbers := make(map[string]int)
	prefixes, seen := make(map[string]bool), make(map[int]bool)
	for _, d := range list {
		prefix := strings.TrimRight(d.serial, "0123456789")
		n, err := strconv.Atoi(d.serial[len(prefix):])
		if err == nil && prefix != "" {
			numbers[d.name] = n
			prefixes[prefix], seen[n] = true, true
		}
	}
	numbered := len(prefixes) == 1 && len(seen) == len(list)
	slices.SortFunc(list, func(a, b disk) int {
		if numbered {
			return cmp.Compare(numbers[a.name], numbers[b.name])
		}
		return cmp.Or(cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
}

// own returns the names of the disks that the system is on.
func own(h *host.Host, mounted []mount) (map[string]bool, error) {
	root, err := h.Open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	set := make(map[string]bool)
	for _, m := range mounted {
		if !slices.Contains(system, m.target) {
			continue
		}
		name := deviceName(root, m.device)
		if name == "" && strings.HasPrefix(m.source, "/dev/") {
			// A file system with several devices, as btrfs, has no number of its own.
			name = path.Base(m.source)
		}
		below(root, name, set, 0)
	}
	return set, nil
}

// deviceName returns the kernel's name of a number of a block device, or "".
func deviceName(root *os.Root, device string) string {
	target, err := root.Readlink("sys/dev/block/" + device)
	if err != nil {
		return ""
	}
	return path.Base(target)
}

// maxDepth bounds how deep devices are made of others.
const maxDepth = 8

// below adds the whole disks that a block device is made of.
func below(root *os.Root, name string, set map[string]bool, depth int) {
	if name == "" || depth > maxDepth {
		return
	}
	whole := wholeOf(root, name)
	set[whole] = true
	slaves, err := fs.ReadDir(root.FS(), "sys/class/block/"+name+"/slaves")
	if err != nil {
		return
	}
	for _, s := range slaves {
		below(root, s.Name(), set, depth+1)
	}
}

// wholeOf returns the disk that a partition is on; a disk is its own. In /sys a partition's directory is within its disk's.
func wholeOf(root *os.Root, name string) string {
	target, err := root.Readlink("sys/class/block/" + name)
	if err != nil {
		return name
	}
	if _, err := root.Stat("sys/class/block/" + name + "/partition"); err != nil {
		return name
	}
	return path.Base(path.Dir(target))
}

// partitions returns the names of a disk's partitions.
func partitions(h *host.Host, name string) ([]string, error) {
	root, err := h.Open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), "sys/block/"+name)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		if _, err := root.Stat("sys/block/" + name + "/" + e.Name() + "/partition"); err == nil && strings.HasPrefix(e.Name(), name) {
			list = append(list, e.Name())
		}
	}
	return list, nil
}

// resolve returns the kernel's name of a device file, through the links that udev makes.
func resolve(h *host.Host, device string) (string, error) {
	root, err := h.Open()
	if err != nil {
		return "", err
	}
	defer root.Close()
	for range maxDepth {
		target, err := root.Readlink(strings.TrimPrefix(device, "/"))
		if err != nil {
			if _, err := root.Lstat(strings.TrimPrefix(device, "/")); err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return "", nil
				}
				return "", err
			}
			return path.Base(device), nil
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(device), target)
		}
		device = target
	}
	return "", errs.New(errs.Invalid, "cannot use device %s: too many symbolic links", device)
}
