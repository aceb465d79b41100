package confirm

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host/hosttest"
)

func TestRestore(t *testing.T) {
	h, commands, _ := hosttest.New(t)
	commands.Answer("good", "")
	commands.Fail("bad", 3, "no")
	at := func(name string) string { return filepath.Join(h.Root, name) }
	must(t, os.MkdirAll(at("d"), 0o755))
	must(t, os.WriteFile(at("d/new"), nil, 0o644))
	must(t, os.WriteFile(at("d/link"), []byte("now a file"), 0o644))
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 12, 34
	}
	undo := converge.Undo{
		Files: []converge.SavedFile{
			{Path: "/d/new", Absent: true},
			{Path: "/d/link", Link: "../elsewhere"},
			{Path: "/gone/program", Content: []byte("x"), Mode: 0o4750, UID: uid, GID: gid},
		},
		Commands: [][]string{{"bad"}, {}, {"good", "x"}},
	}
	for range 2 { // undoing twice is undoing once
		if err := back(t.Context(), &h, undo); err == nil || !strings.Contains(err.Error(), "exit 3: no") {
			t.Errorf("error %v", err)
		}
		if _, err := os.Lstat(at("d/new")); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if target, err := os.Readlink(at("d/link")); target != "../elsewhere" {
			t.Error(target, err)
		}
		st, err := os.Stat(at("gone/program"))
		must(t, err)
		sys := st.Sys().(*syscall.Stat_t)
		if st.Mode().Perm() != 0o750 || st.Mode()&fs.ModeSetuid == 0 || int(sys.Uid) != uid || int(sys.Gid) != gid {
			t.Errorf("%v %d %d", st.Mode(), sys.Uid, sys.Gid)
		}
	}
	if lines := commands.Lines(); !slices.Equal(lines, []string{"bad", "good x", "bad", "good x"}) {
		t.Errorf("commands %q", lines)
	}
}

func TestListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l, machineID) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	line, err := io.ReadAll(conn)
	if string(line) != machineID+"\n" || err != nil {
		t.Errorf("%q, %v", line, err)
	}
	must(t, conn.Close())
	cancel()
	must(t, <-ended)
}

func TestListenBeforeTheAddressIsUp(t *testing.T) {
	// TEST-NET-1 (RFC 5737) is on no machine.
	ctx, cancel := context.WithCancel(t.Context())
	must(t, Greet(ctx, "192.0.2.1", 0, machineID, cancel))
}
