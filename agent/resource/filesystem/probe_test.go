package filesystem

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/host"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// image is a device of 4 MiB with bytes in places.
func image(places map[int]string) *bytes.Reader {
	b := make([]byte, 4<<20)
	for at, s := range places {
		copy(b[at:], s)
	}
	return bytes.NewReader(b)
}

func TestProbe(t *testing.T) {
	boot := "\x55\xaa"
	for _, c := range []struct {
		name   string
		places map[int]string
		want   found
	}{
		{"empty", nil, found{}},
		{"ext4", map[int]string{0: string(ext4(someUUID, "data"))}, found{"ext4", someUUID, "data"}},
		{"ext3", map[int]string{0x438: "\x53\xef", 0x45c: "\x04"}, found{"ext3", "00000000-0000-0000-0000-000000000000", ""}},
		{"xfs", map[int]string{0: "XFSB", 32: "\x01\x02", 108: "twelve-chars"}, found{"xfs", "01020000-0000-0000-0000-000000000000", "twelve-chars"}},
		{"fat32", map[int]string{510: boot, 82: "FAT32   ", 67: "\x78\x56\x34\x12", 71: "DATA       "}, found{"vfat", "1234-5678", "DATA"}},
		{"fat16", map[int]string{510: boot, 54: "FAT16   ", 39: "\x78\x56\x34\x12", 43: "DATA       "}, found{"vfat", "1234-5678", "DATA"}},
		{"mbr", map[int]string{510: boot}, found{Type: "partition table"}},
		{"gpt", map[int]string{510: boot, 512: "EFI PART"}, found{Type: "partition table"}},
		{"gpt of 4 KiB sectors", map[int]string{4096: "EFI PART"}, found{Type: "partition table"}},
		{"backup of gpt", map[int]string{4<<20 - 512: "EFI PART"}, found{Type: "partition table"}},
		{"swap", map[int]string{4086: "SWAPSPACE2"}, found{Type: "swap"}},
		{"luks", map[int]string{0: "LUKS\xba\xbe"}, found{Type: "LUKS container"}},
		{"raid", map[int]string{4096: "\xfc\x4e\x2b\xa9"}, found{Type: "RAID member"}},
		{"btrfs", map[int]string{0x10040: "_BHRfS_M"}, found{Type: "btrfs"}},
		{"unknown", map[int]string{1<<20 - 1: "x"}, found{Type: "data"}},
		{"unknown at the end", map[int]string{4<<20 - 1: "x"}, found{Type: "data"}},
		// Beyond the edges nothing is looked at: no signature can be there alone.
		{"middle", map[int]string{2 << 20: "x"}, found{}},
	} {
		got, err := probe(image(c.places), 4<<20)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
	if _, err := probe(bytes.NewReader(nil), 100); err == nil {
		t.Error("a device of 100 octets was looked at")
	}
	if _, err := probe(bytes.NewReader(nil), 4<<20); err == nil {
		t.Error("a device that cannot be read counts")
	}
}

// Whatever a device begins with, it only counts as unused if that is nothing.
func FuzzProbe(f *testing.F) {
	f.Add(ext4(someUUID, "data"), 0)
	f.Add([]byte("XFSB"), 0)
	f.Add([]byte("EFI PART"), 512)
	f.Fuzz(func(t *testing.T, data []byte, at int) {
		if at < 0 || at+len(data) > edge {
			return
		}
		got, err := probe(image(map[int]string{at: string(data)}), 4<<20)
		if err != nil || (got.Type == "") != empty(data) {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestSortDisks(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []disk
		want string
	}{
		{"by name", []disk{{"sdaa", ""}, {"sdz", ""}, {"sdb", ""}}, "sdb sdz sdaa"},
		{"nvme", []disk{{"nvme10n1", ""}, {"nvme2n1", ""}}, "nvme2n1 nvme10n1"},
		{"by serial", []disk{{"vdb", "disk10"}, {"vdc", "disk2"}}, "vdc vdb"},
		{"serials of different kinds", []disk{{"vdc", "disk1"}, {"vdb", "x2"}}, "vdb vdc"},
		{"serials that mean nothing", []disk{{"nvme2n1", "vol0a9"}, {"nvme1n1", "vol0b1"}}, "nvme1n1 nvme2n1"},
		{"serials that are the same", []disk{{"vdc", "d1"}, {"vdb", "d1"}}, "vdb vdc"},
		{"one without", []disk{{"vdc", "d1"}, {"vdb", ""}}, "vdb vdc"},
	} {
		sortDisks(c.in)
		var names []string
		for _, d := range c.in {
			names = append(names, d.name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestDisks(t *testing.T) {
	m := newMachine(t)
	m.disk("vdb", "", 8)
	m.disk("vdc", "", 8)
	m.disk("vdd", "", 8)
	m.disk("loop0", "", 8)
	m.disk("sr0", "", 8)
	m.disk("dm-0", "", 8)
	m.write("sys/devices/vdc/ro", "1\n")
	m.link("sys/devices/dm-0/slaves/vdd", "../../vdd")
	// The system is on LVM, of vdd.
	m.write("proc/1/mountinfo", "22 1 254:7 / / rw - ext4 /dev/mapper/root rw\n")
	mounted, err := mounts(&m.host)
	if err != nil {
		t.Fatal(err)
	}
	system, err := own(&m.host, mounted)
	if err != nil || !system["vdd"] {
		t.Errorf("own disks %v, %v", system, err)
	}
	list, err := disks(&m.host, system)
	if err != nil || !slices.Equal(list, []disk{{"vda", ""}, {"vdb", ""}}) {
		t.Errorf("disks %v, %v", list, err)
	}
}

func TestLabel(t *testing.T) {
	for path, want := range map[string]string{"/data": "data", "/srv/kafka": "srv-kafka"} {
		if got := label(&agentv1.Filesystem{Path: path}); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	a, b := label(&agentv1.Filesystem{Path: "/srv/a/very-long"}), label(&agentv1.Filesystem{Path: "/srv/b/very-long"})
	if a == b || len(a) > maxLabel || !strings.HasPrefix(a, "y-long-") && !strings.HasPrefix(a, "long-") {
		t.Errorf("labels %s and %s", a, b)
	}
}

func TestMkfs(t *testing.T) {
	for kind, want := range map[string]string{
		"ext4": "mkfs.ext4 -q -F -L data -U " + someUUID + " /dev/vdb", "xfs": "mkfs.xfs -q -f -L data -m uuid=" + someUUID + " /dev/vdb",
	} {
		if got := line(mkfs(kind, "data", someUUID, "/dev/vdb")); got != want {
			t.Errorf("ran %s, want %s", got, want)
		}
	}
	if got := line(mkfs("vfat", "DATA", "1234-5678", "/dev/vdb")); got != "mkfs.vfat -I -n DATA -i 12345678 /dev/vdb" {
		t.Errorf("ran %s", got)
	}
}

func line(c host.Command) string { return strings.Join(append([]string{c.Path}, c.Args...), " ") }

func FuzzParseMounts(f *testing.F) {
	f.Add(rootMount)
	f.Fuzz(func(t *testing.T, info string) {
		for _, m := range parseMounts(info) {
			if m.device == "" || m.kind == "" {
				t.Errorf("%+v", m)
			}
		}
	})
}

func TestParseMounts(t *testing.T) {
	want := []mount{{"254:1", "/", "ext4", "/dev/vda1"}, {"0:5", "/my data", "nfs", "h:/x"}}
	if diff := cmp.Diff(want, parseMounts(rootMount+"5 1 0:5 / /my\\040data rw - nfs h:/x rw\nbroken - \n"), cmp.AllowUnexported(mount{})); diff != "" {
		t.Error(diff)
	}
}
