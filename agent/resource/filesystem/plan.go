package filesystem

import (
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// maxLabel is what the type with the shortest labels has: vfat.
const maxLabel = 11

// label is the manifest's, or one made of the path: as much of its end as there is room for, and, where that is not all, a
// hash of the whole.
func label(want *agentv1.Filesystem) string {
	if want.Label != "" {
		return want.Label
	}
	l := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
			return r
		}
		return '-'
	}, strings.Trim(want.Path, "/"))
	if len(l) <= maxLabel {
		return l
	}
	sum := fnv.New32a()
	// Writing to a hash never fails.
	_, _ = io.WriteString(sum, want.Path)
	return fmt.Sprintf("%s-%04x", strings.TrimLeft(l[len(l)-(maxLabel-5):], "-"), sum.Sum32()&0xffff)
}

// plan is what is there and what is to be done.
type plan struct {
	// missing says that there is no such disk.
	missing string
	// device is the kernel's name of the disk, or of its partition; identity is the disk's.
	device, identity string
	// make says that the file system is to be made; partition that a partition table comes first.
	make, partition bool
	uuid            string
	mounted         bool
}

// plan looks at the disk, and refuses whatever is not ours. It changes nothing.
func (f *filesystem) plan() (*plan, error) {
	mounted, err := mounts(f.host)
	if err != nil {
		return nil, err
	}
	name, err := f.disk(mounted)
	if err != nil {
		return nil, err
	}
	if name == "" {
		if f.want.Device != "" {
			return &plan{missing: f.want.Device + " is not there"}, nil
		}
		return &plan{missing: fmt.Sprintf("disk %d is not there", f.want.Disk)}, nil
	}
	identity, err := f.identity(name)
	if err != nil {
		return nil, err
	}
	rec, err := f.records.get(f.want.Path)
	if err != nil {
		return nil, err
	}
	at := f.mountedAt(mounted)
	if at != nil {
		root, err := f.host.Open()
		if err != nil {
			return nil, err
		}
		defer root.Close()
		// What is mounted needs no look at its disk.
		if wholeOf(root, deviceName(root, at.device)) != wholeOf(root, name) {
			return nil, errs.New(errs.Conflict, "cannot mount at %s: %s is mounted there", f.want.Path, at.source).WithHint("unmount it on the machine, or mount elsewhere")
		}
		if rec.Made && rec.Disk == identity && at.kind == f.kind {
			return &plan{device: name, identity: identity, uuid: rec.UUID, mounted: true}, nil
		}
	}
	if err := f.taken(); err != nil {
		return nil, err
	}
	p, err := f.inspect(name, identity, rec)
	if err == nil {
		p.mounted = at != nil
	}
	return p, err
}

// mountedAt returns what is mounted at the path: of several the last counts.
func (f *filesystem) mountedAt(mounted []mount) *mount {
	for _, m := range slices.Backward(mounted) {
		if m.target == f.want.Path && m.kind != "autofs" {
			return &m
		}
	}
	return nil
}

// disk returns the kernel's name of the disk, or "" where it is not there. The system's own are refused.
func (f *filesystem) disk(mounted []mount) (string, error) {
	system, err := own(f.host, mounted)
	if err != nil {
		return "", err
	}
	if f.want.Device == "" {
		list, err := disks(f.host, system)
		if err != nil || int(f.want.Disk) > len(list) || f.want.Disk == 0 {
			return "", err
		}
		return list[f.want.Disk-1].name, nil
	}
	name, err := resolve(f.host, f.want.Device)
	if err != nil || name == "" {
		return "", err
	}
	root, err := f.host.Open()
	if err != nil {
		return "", err
	}
	defer root.Close()
	if system[wholeOf(root, name)] {
		return "", errs.New(errs.Conflict, "cannot make file system %s: %s is of a disk that the system is on", f.want.Path, f.want.Device)
	}
	return name, nil
}

func (f *filesystem) identity(name string) (string, error) {
	root, err := f.host.Open()
	if err != nil {
		return "", err
	}
	defer root.Close()
	return strings.Join([]string{name, serialOf(root, name), attribute(root, name, "size")}, " "), nil
}

// inspect decides what to do with a disk from what is on it.
func (f *filesystem) inspect(name, identity string, rec record) (*plan, error) {
	p := &plan{device: name, identity: identity}
	begun := rec.Disk == identity && rec.UUID != "" && !rec.Made
	if begun {
		p.uuid = rec.UUID
	}
	if f.want.Partition {
		on, err := f.probe(name)
		if err != nil {
			return nil, err
		}
		parts, err := partitions(f.host, name)
		if err != nil {
			return nil, err
		}
		switch {
		case len(parts) == 0 && (on.Type == "" || begun && on.Type == "partition table"):
			p.make, p.partition = true, true
			return p, nil
		case on.Type != "partition table" || len(parts) != 1:
			return nil, f.refuse(name, on)
		}
		p.device = parts[0]
	}
	on, err := f.probe(p.device)
	if err != nil {
		return nil, err
	}
	switch {
	case on.Type == f.kind && on.UUID != "" && (on.UUID == rec.UUID || on.Label == f.label):
		p.uuid = on.UUID
		return p, nil
	case on.Type == "" && (!f.want.Partition || begun), on.Type == "data" && begun:
		p.make = true
		return p, nil
	}
	return nil, f.refuse(p.device, on)
}

func (f *filesystem) refuse(name string, on found) error {
	what := on.String()
	if what == "" {
		what = "an empty partition"
	}
	return errs.New(errs.Conflict, "cannot make file system %s on /dev/%s: there is %s already, and what is on a disk is never overwritten", f.want.Path, name, what).
		WithHint("if it may go, overwrite the beginning and the end of /dev/%s with zeros, as by blkdiscard --zeroout; if it shall be used, give it the type %s and the label %s", name, f.kind, f.label)
}

func (f *filesystem) probe(name string) (found, error) {
	root, err := f.host.Open()
	if err != nil {
		return found{}, err
	}
	defer root.Close()
	dev, err := root.OpenFile("dev/"+name, os.O_RDONLY, 0)
	if err != nil {
		return found{}, errs.New(errs.Internal, "cannot look at /dev/%s: %w", name, err)
	}
	defer dev.Close()
	size, err := dev.Seek(0, io.SeekEnd)
	if err != nil {
		return found{}, errs.New(errs.Internal, "cannot look at /dev/%s: %w", name, err)
	}
	on, err := probe(dev, size)
	if err != nil {
		return found{}, errs.New(errs.Internal, "cannot look at /dev/%s: %w", name, err)
	}
	return on, nil
}
