//go:build machine

package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/files"
	"github.com/provisionr/provisionr/server/provider"
)

// TestLife: launches are repeated, servers restart, machines are killed and end by themselves.
func TestLife(t *testing.T) {
	s := newStand(t)
	first := s.launch(s.p, s.request(1))
	before := s.record(1)
	restarted := s.open()
	if again := s.launch(restarted, s.request(1)); again != first {
		t.Errorf("a restarted provider has %+v instead of %+v", again, first)
	}
	if state := s.states()[machineID(1)]; state != provider.Running || s.record(1) != before {
		t.Errorf("after the restart it is %s, process %+v was %+v", state, s.record(1), before)
	}
	uids, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", before.Process.PID))
	if want := fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d", host.IDBase(machineID(1))); err != nil || !strings.Contains(string(uids), want) ||
		!strings.Contains(string(uids), "NoNewPrivs:\t1") || !strings.Contains(string(uids), "Seccomp:\t2") {
		t.Errorf("QEMU keeps privileges: %v\n%s", err, uids)
	}

	t.Run("another process has its pid", func(t *testing.T) {
		path := filepath.Join(s.p.machines.Path(machineID(1)), recordFile)
		other := before
		other.Process.PID = os.Getpid()
		if err := files.WriteJSON(path, other); err != nil {
			t.Fatal(err)
		}
		if state := s.states()[machineID(1)]; state != provider.Stopped {
			t.Errorf("the machine is %s", state)
		}
		if err := files.WriteJSON(path, before); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("killed", func(t *testing.T) {
		if err := unix.Kill(before.Process.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.waitFor(1, provider.Stopped, 30*time.Second)
		if i := s.launch(restarted, s.request(1)); i.State != provider.Stopped {
			t.Errorf("a killed machine was started again: %+v", i)
		}
		if _, err := restarted.Console(t.Context(), machineID(1), ""); err != nil {
			t.Errorf("console of a stopped machine: %v", err)
		}
	})

	t.Run("ended by itself", func(t *testing.T) {
		s.launch(s.p, s.request(2))
		_, err := ask(t.Context(), s.p.machines.Path(machineID(2)), func(m *monitor) (struct{}, error) { return struct{}{}, m.execute("quit", nil) })
		if err != nil {
			t.Fatal(err)
		}
		s.waitFor(2, provider.Stopped, 30*time.Second)
	})

	t.Run("interrupted before its first instruction", func(t *testing.T) {
		s.launch(s.p, s.request(3))
		r := s.record(3)
		r.Started = false
		if err := files.WriteJSON(filepath.Join(s.p.machines.Path(machineID(3)), recordFile), r); err != nil {
			t.Fatal(err)
		}
		if state := s.states()[machineID(3)]; state != provider.Starting {
			t.Errorf("the machine is %s", state)
		}
		if i := s.launch(restarted, s.request(3)); i.State != provider.Running || s.record(3).Process != r.Process {
			t.Errorf("the launch was not finished but %+v with %+v", i, s.record(3))
		}
	})

	for n := 1; n <= 3; n++ {
		for range 2 {
			if err := restarted.Terminate(t.Context(), machineID(n), ""); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat("/sys/class/net/" + s.p.linkName(machineID(n))); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the tap of a terminated machine is left: %v", err)
		}
	}
	if states := s.states(); len(states) != 0 {
		t.Errorf("after termination: %v", states)
	}
}

func (s *stand) record(n int) record {
	s.t.Helper()
	var r record
	if err := files.ReadJSON(filepath.Join(s.p.machines.Path(machineID(n)), recordFile), &r); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// TestOwnImage boots a user's image by path: the boot sector of this one writes to the serial port and stops.
func TestOwnImage(t *testing.T) {
	s := newStand(t)
	disk := make([]byte, 1<<20)
	copy(disk, bootSector("own image"))
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(disk)
	request := s.request(1)
	request.Request.Image = &provisionrv1.Image{Url: path, Sha256: hex.EncodeToString(sum[:])}
	request.Request.Os = &provisionrv1.OperatingSystem{Distribution: "rocky", Release: "9"}
	cached := filepath.Join(s.p.fetcher.Dir, hex.EncodeToString(sum[:]))
	t.Cleanup(func() {
		if err := os.Remove(cached); err != nil {
			t.Error(err)
		}
	})
	s.launch(s.p, request)
	for deadline := time.Now().Add(time.Minute); ; {
		console, err := s.p.Console(t.Context(), machineID(1), "")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(console, "own image") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it did not boot: %q", console)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// bootSector is a PC's boot sector that writes a text to the first serial port and halts.
func bootSector(text string) []byte {
	code := []byte{
		0xfa,       // cli
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd8, // mov ds, ax
		0xbe, 0x17, 0x7c, // mov si, 0x7c17: the text
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xfc,       // cld
		0xac,       // next: lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x03, // jz halt
		0xee,       // out dx, al
		0xeb, 0xf8, // jmp next
		0xf4,       // halt: hlt
		0xeb, 0xfd, // jmp halt
	}
	sector := make([]byte, 512)
	copy(sector, code)
	copy(sector[0x17:], text)
	sector[510], sector[511] = 0x55, 0xaa
	return sector
}
