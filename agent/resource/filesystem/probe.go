package filesystem

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	// edge is how much at the beginning and the end of a device must be empty for it to count as unused: it covers where
	// every signature of wipefs(8) is that can be alone on a device.
	edge = 1 << 20
	// minDevice is the smallest device that is looked at.
	minDevice = 2 * edge
)

// found is what is on a device.
type found struct {
	// Type is as mount(8) names it, or what else it is, as "partition table"; "data" is anything unknown; empty is nothing.
	Type string
	// UUID and Label are set for the types that we make.
	UUID, Label string
}

func (f found) String() string {
	if f.UUID == "" {
		return f.Type
	}
	return fmt.Sprintf("%s with label %q and UUID %s", f.Type, f.Label, f.UUID)
}

// probe looks at a device of a size in octets.
func probe(r io.ReaderAt, size int64) (found, error) {
	if size < minDevice {
		return found{}, fmt.Errorf("a device of %d octets is too small", size)
	}
	head, tail := make([]byte, edge), make([]byte, edge)
	for at, b := range map[int64][]byte{0: head, size - edge: tail} {
		if n, err := r.ReadAt(b, at); err != nil && (!errors.Is(err, io.EOF) || n < len(b)) {
			return found{}, fmt.Errorf("cannot read at %d: %w", at, err)
		}
	}
	if f := identify(head); f.Type != "" {
		return f, nil
	}
	// A backup of a partition table, and arrays of disks, are at the end.
	if bytes.Contains(tail, []byte("EFI PART")) {
		return found{Type: "partition table"}, nil
	}
	if !empty(head) || !empty(tail) {
		return found{Type: "data"}, nil
	}
	return found{}, nil
}

func empty(b []byte) bool {
	return bytes.Count(b, []byte{0}) == len(b)
}

// signature is where bytes are that tell a type. The list is that of libblkid for what is met on disks of servers.
type signature struct {
	at    int
	bytes string
	name  string
}

var signatures = []signature{
	{0, "LUKS\xba\xbe", "LUKS container"},
	{0, "\xfc\x4e\x2b\xa9", "RAID member"}, {0x1000, "\xfc\x4e\x2b\xa9", "RAID member"},
	{0x018, "LVM2 001", "LVM volume"}, {0x218, "LVM2 001", "LVM volume"}, {0x418, "LVM2 001", "LVM volume"}, {0x618, "LVM2 001", "LVM volume"},
	{0x10040, "_BHRfS_M", "btrfs"},
	{0x8001, "CD001", "iso9660"},
	{3, "NTFS    ", "ntfs"}, {3, "EXFAT   ", "exfat"},
	{0x400, "\x10\x20\xf5\xf2", "f2fs"},
	{0, "hsqs", "squashfs"},
	{4096 - 10, "SWAPSPACE2", "swap"}, {8192 - 10, "SWAPSPACE2", "swap"}, {16384 - 10, "SWAPSPACE2", "swap"}, {65536 - 10, "SWAPSPACE2", "swap"},
	{512, "EFI PART", "partition table"}, {4096, "EFI PART", "partition table"},
}

// identify tells what begins with head, which has edge octets. What it does not know has an empty type.
func identify(head []byte) found {
	for _, s := range signatures {
		if string(head[s.at:s.at+len(s.bytes)]) == s.bytes {
			return found{Type: s.name}
		}
	}
	switch {
	case binary.LittleEndian.Uint16(head[0x438:]) == 0xef53:
		return found{extType(head), uuid(head[0x468:]), text(head[0x478:], 16)}
	case string(head[:4]) == "XFSB":
		return found{"xfs", uuid(head[32:]), text(head[108:], 12)}
	case head[510] != 0x55 || head[511] != 0xaa:
		return found{}
	case string(head[82:87]) == "FAT32":
		return found{"vfat", serial(head[67:]), text(head[71:], 11)}
	case string(head[54:59]) == "FAT12", string(head[54:59]) == "FAT16":
		return found{"vfat", serial(head[39:]), text(head[43:], 11)}
	}
	return found{Type: "partition table"}
}

// extType tells ext4 from its ancestors by a feature that they have not: extents, or 64 bit (ext4 disk layout, s_feature_incompat).
func extType(head []byte) string {
	const extents, wide = 0x40, 0x80
	switch {
	case binary.LittleEndian.Uint32(head[0x460:])&(extents|wide) != 0:
		return "ext4"
	case binary.LittleEndian.Uint32(head[0x45c:])&4 != 0:
		return "ext3"
	}
	return "ext2"
}

func uuid(b []byte) string {
	x := hex.EncodeToString(b[:16])
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

// serial is the number of a FAT volume, as blkid(8) has it.
func serial(b []byte) string {
	n := binary.LittleEndian.Uint32(b)
	return fmt.Sprintf("%04X-%04X", n>>16, n&0xffff)
}

func text(b []byte, max int) string {
	s, _, _ := strings.Cut(string(b[:max]), "\x00")
	return strings.ToValidUTF8(strings.TrimRight(s, " "), "?")
}
