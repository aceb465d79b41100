package consensus_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/server/consensus"
)

// damage overwrites bytes in the middle of the first file that matches.
func damage(t *testing.T, dir, pattern string, offset int64) string {
	t.Helper()
	var path string
	if err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if match, _ := filepath.Match(pattern, filepath.Base(p)); match && err == nil && !d.IsDir() && path == "" {
			path = p
		}
		return nil
	}); err != nil || path == "" {
		t.Fatalf("no file %s in %s: %v", pattern, dir, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if pattern == "log.db" {
		// Wherever an entry names its caller; some of the places are free pages by now.
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.ReplaceAll(data, []byte("tester"), []byte("tEster")), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := f.WriteAt([]byte("DAMAGE"), offset); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDamagedFilesAreRefused(t *testing.T) {
	small := func(c *consensus.Config) { c.SnapshotThreshold, c.SnapshotInterval = 4, 20*time.Millisecond }
	for name, test := range map[string]struct {
		pattern  string
		offset   int64
		snapshot bool
	}{
		"log":           {"log.db", 0, false},
		"snapshot":      {"state.bin", 40, true},
		"snapshot meta": {"meta.json", 0, true},
		"votes":         {"votes.db", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := &cluster{t: t, ca: newAuthority(t), net: newNetwork()}
			if test.snapshot {
				c.tune = small
			}
			c.run(1)
			s := c.servers[0]
			for i := range uint32(12) {
				s.do("", scale("p0", i+1))
			}
			if test.snapshot {
				c.eventually("a snapshot", func() bool {
					found, err := filepath.Glob(filepath.Join(s.dir, "snapshots", "*", "state.bin"))
					return err == nil && len(found) > 0 && !strings.HasSuffix(filepath.Dir(found[0]), ".tmp")
				})
			}
			s.stop()
			if test.pattern == "votes.db" {
				// Both of bolt's meta pages.
				damage(t, s.dir, test.pattern, 4096+16)
			}
			damage(t, s.dir, test.pattern, test.offset+16)
			err := s.open()
			if err == nil {
				t.Fatal("a damaged data directory was opened")
			}
			if errs.HintOf(err) == "" {
				t.Errorf("no remedy: %v", err)
			}
		})
	}
}

func TestShortFilesAreRefused(t *testing.T) {
	for _, name := range []string{"log.db", "votes.db"} {
		c := newCluster(t, 1)
		s := c.servers[0]
		for i := range uint32(40) {
			s.do("", scale("p0", i+1))
		}
		s.stop()
		if err := os.Truncate(filepath.Join(s.dir, name), 12<<10); err != nil {
			t.Fatal(err)
		}
		if err := s.open(); errs.HintOf(err) == "" {
			t.Errorf("%s cut short: %v, want a remedy", name, err)
		}
	}
}

func TestInterruptedRestoreIsRefused(t *testing.T) {
	c := newCluster(t, 1)
	s := c.servers[0]
	s.stop()
	if err := os.WriteFile(filepath.Join(s.dir, "restore.pending"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.open(); errs.HintOf(err) == "" || !strings.Contains(err.Error(), "restore") {
		t.Errorf("a start after an interrupted restore: %v", err)
	}
}

func TestRestart(t *testing.T) {
	c := newCluster(t, 1)
	s := c.servers[0]
	s.do("", scale("p0", 5))
	s.stop()
	s.start()
	c.eventually("the state is back", func() bool { return s.size("p0") == 5 })
	if err := s.node.Bootstrap(); !errs.Is(err, errs.Conflict) {
		t.Errorf("bootstrap of a member with data: %v", err)
	}
}

func TestFullDiskIsToldAndNothingIsLost(t *testing.T) {
	c := newCluster(t, 1)
	s := c.servers[0]
	s.do("", scale("p0", 5))
	s.stop()
	// More than any disk has stands for a disk that fills up after the start.
	var full bool
	c.tune = func(config *consensus.Config) {
		if full {
			config.MinFree = 1 << 62
		}
	}
	full = true
	if err := s.open(); !errs.Is(err, errs.Exhausted) || errs.HintOf(err) == "" {
		t.Fatalf("a start on a full disk: %v, want exhausted with a hint", err)
	}
	full = false
	s.start()
	c.eventually("the state is back", func() bool { return s.size("p0") == 5 })
	s.do("", scale("p0", 6))
}

func TestDirectoryInUse(t *testing.T) {
	c := newCluster(t, 1)
	other := &server{t: t, c: c, name: "other", dir: c.servers[0].dir}
	if err := other.open(); !errs.Is(err, errs.Conflict) {
		t.Errorf("a second process on one data directory: %v, want conflict", err)
	}
}
