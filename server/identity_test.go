package server

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/provisionr/provisionr/internal/errs"
)

// TestUnfinishedStart: only the log of a start that never ended is removed, never a cluster's.
func TestUnfinishedStart(t *testing.T) {
	for _, test := range []struct {
		name            string
		log, mark, lost bool
		want            errs.Kind
		kept            bool
	}{
		{name: "nothing there"},
		{name: "cut off before the log", mark: true},
		{name: "cut off", log: true, mark: true},
		{name: "identity lost", log: true, want: errs.Conflict, kept: true},
		{name: "cut off after the end, identity lost later", log: true, mark: true, lost: true, want: errs.Conflict, kept: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			data := t.TempDir()
			dir := filepath.Join(data, "identity")
			id, err := openIdentity(dir)
			if err != nil {
				t.Fatal(err)
			}
			if test.log {
				if err := os.Mkdir(filepath.Join(data, "raft"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if test.mark {
				if err := id.begin(); err != nil {
					t.Fatal(err)
				}
			}
			if test.lost {
				if err := os.WriteFile(id.file(), []byte(`{"cluster":"c","name":"a"}`), 0o600); err != nil {
					t.Fatal(err)
				}
				if id, err = openIdentity(dir); err != nil || id.who == nil || id.beginning() {
					t.Fatalf("settled: %+v, %v", id, err)
				}
				if err := os.Remove(id.file()); err != nil {
					t.Fatal(err)
				}
			}
			s := &Server{config: Config{DataDir: data}, id: id}
			if err := s.removeUnfinished(); errs.KindOf(err) != test.want {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if _, err := os.Stat(s.raftDir()); (err == nil) != test.kept {
				t.Errorf("log: %v, kept %v", err, test.kept)
			}
		})
	}
}
