package consensus

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/server/state"
)

// check reads everything that Raft will need. Raft itself would panic on an unreadable entry and fall back to an older
// snapshot without a word.
func (s *storage) check(dir string) error {
	index, err := s.checkSnapshot(filepath.Join(dir, "snapshots"))
	if err != nil {
		return err
	}
	path := filepath.Join(dir, logFile)
	return guarded("read the Raft log", path, func() error {
		first, err := s.logs.FirstIndex()
		if err != nil {
			return err
		}
		last, err := s.logs.LastIndex()
		if err != nil {
			return err
		}
		if first > index+1 {
			return fmt.Errorf("it begins at entry %d, the snapshot ends at %d", first, index)
		}
		// A restore leaves a hole before its snapshot; what the snapshot includes is not needed.
		for i := index + 1; i <= last; i++ {
			var entry raft.Log
			if err := s.logs.GetLog(i, &entry); err != nil {
				return fmt.Errorf("entry %d: %w", i, err)
			}
			if entry.Index != i || !intact(&entry) {
				return fmt.Errorf("entry %d fails its check", i)
			}
		}
		return nil
	})
}

// checkSnapshot reads the newest snapshot whole and returns its log index, 0 if there is none.
func (s *storage) checkSnapshot(dir string) (uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, diskError("read the snapshots", err)
	}
	var newest raft.SnapshotMeta
	for _, e := range entries {
		if !e.IsDir() || strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		var meta raft.SnapshotMeta
		data, err := os.ReadFile(filepath.Join(path, "meta.json"))
		if err == nil {
			err = json.Unmarshal(data, &meta)
		}
		if err != nil {
			return 0, badSnapshot(path, err)
		}
		if meta.Index > newest.Index || meta.Index == newest.Index && meta.Term > newest.Term {
			newest = meta
		}
	}
	if newest.ID == "" {
		return 0, nil
	}
	path := filepath.Join(dir, newest.ID)
	_, contents, err := s.snapshots.Open(newest.ID)
	if err != nil {
		return 0, badSnapshot(path, err)
	}
	defer contents.Close()
	if _, _, err := state.Verify(contents); err != nil {
		return 0, badSnapshot(path, err)
	}
	return newest.Index, nil
}

func badSnapshot(path string, err error) *errs.Error {
	return errs.New(errs.Internal, "cannot read the snapshot %s: %w", path, err).
		WithHint("where other members are well, remove this one from the cluster, delete its data directory and let it join again; else restore a saved snapshot into a new data directory")
}
