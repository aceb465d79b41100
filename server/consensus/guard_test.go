package consensus

import (
	"log/slog"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/provisionr/provisionr/internal/errs"
)

func TestGuardRefusesOnAFullDisk(t *testing.T) {
	s, err := openStorage(t.TempDir(), 1<<20, newLogger(slog.New(slog.DiscardHandler), "test"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	entry := func(i uint64) []*raft.Log {
		return []*raft.Log{{Index: i, Term: 1, Type: raft.LogCommand, Data: []byte("x"), Extensions: seal([]byte("x"))}}
	}
	if err := s.logs.StoreLogs(entry(1)); err != nil {
		t.Fatal(err)
	}
	s.logs.minFree = 1 << 62
	if err := s.logs.StoreLogs(entry(2)); !errs.Is(err, errs.Exhausted) || errs.HintOf(err) == "" {
		t.Errorf("an entry on a full disk: %v", err)
	}
	if s.logs.failed.Load() == nil {
		t.Error("the failure was not noted")
	}
	// Votes still can be written.
	if err := s.votes.SetUint64([]byte("CurrentTerm"), 7); err != nil {
		t.Error(err)
	}
	s.logs.minFree = 0
	if err := s.logs.StoreLogs(entry(2)); err != nil || s.logs.failed.Load() != nil {
		t.Errorf("an entry after space was freed: %v", err)
	}
	if last, err := s.logs.LastIndex(); err != nil || last != 2 {
		t.Errorf("last index %d, %v", last, err)
	}
}

func TestChecksum(t *testing.T) {
	data := []byte("some entry")
	good := &raft.Log{Type: raft.LogCommand, Data: data, Extensions: seal(data)}
	if !intact(good) {
		t.Error("a good entry fails its check")
	}
	bad := *good
	bad.Data = []byte("same entry")
	if intact(&bad) {
		t.Error("a changed entry passes its check")
	}
	if intact(&raft.Log{Type: raft.LogCommand, Data: data}) {
		t.Error("an entry without checksum passes its check")
	}
}
