package consensus_test

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// TestRestoreBesideWrites: a member that joins while a snapshot is restored has its record before or after, whenever it was
// told that it has.
func TestRestoreBesideWrites(t *testing.T) {
	const rounds, joining = 4, 40
	c := newCluster(t, 1)
	s := c.servers[0]
	s.do("", &raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{ApplyObjects: &raftlogv1.ApplyObjects{Objects: []*provisionrv1.Object{largeZone()}}}})
	var saved bytes.Buffer
	if err := s.node.SaveSnapshot(&saved); err != nil {
		t.Fatal(err)
	}
	for round := range rounds {
		name := func(i int) string { return fmt.Sprintf("m-%d-%d", round, i) }
		joined := make(chan struct{})
		go func() {
			defer close(joined)
			for i := range joining {
				m := &provisionrv1.Member{Metadata: &provisionrv1.Metadata{Name: name(i)}, FeatureLevel: 4}
				put := &raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: m}}}
				// Raft refuses what is on its way when it restores: that is not done.
				for {
					_, err := s.node.Do(t.Context(), &provisionrv1.Caller{Name: "test"}, "", put)
					if err == nil {
						break
					}
					if !errs.Is(err, errs.Conflict) {
						t.Errorf("join: %v", err)
						return
					}
				}
			}
		}()
		if err := s.node.RestoreSnapshot(t.Context(), bytes.NewReader(saved.Bytes())); err != nil {
			t.Fatal(err)
		}
		<-joined
		for i := range joining {
			if s.store.Read().Member(name(i)) == nil {
				t.Fatalf("round %d: %s joined and has no record", round, name(i))
			}
		}
		for i := range joining {
			s.do("", &raftlogv1.Command{Kind: &raftlogv1.Command_RemoveMember{RemoveMember: &raftlogv1.RemoveMember{Name: name(i)}}})
		}
	}
}

// largeZone takes a restore some time.
func largeZone() *provisionrv1.Object {
	records := make([]*provisionrv1.StaticRecord, 10000)
	for i := range records {
		records[i] = &provisionrv1.StaticRecord{Name: fmt.Sprintf("host-%d", i), Addresses: []string{"192.0.2.1"}}
	}
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{
		Metadata: &provisionrv1.Metadata{Name: "large"}, Spec: &provisionrv1.ZoneSpec{Domain: "large.example", Records: records},
	}}}
}

// TestRestoreLeavesNoFile: a snapshot on its way has no name on the disk, so that a crash leaves nothing of it.
func TestRestoreLeavesNoFile(t *testing.T) {
	c := newCluster(t, 1)
	s := c.servers[0]
	var saved bytes.Buffer
	if err := s.node.SaveSnapshot(&saved); err != nil {
		t.Fatal(err)
	}
	looked := false
	look := readerFunc(func([]byte) (int, error) {
		looked = true
		if names, err := filepath.Glob(filepath.Join(s.dir, "*.tmp")); err != nil || len(names) > 0 {
			t.Errorf("during a restore there are %v, %v", names, err)
		}
		return 0, io.EOF
	})
	if err := s.node.RestoreSnapshot(t.Context(), io.MultiReader(&saved, look)); err != nil || !looked {
		t.Errorf("restored: %v, looked: %v", err, looked)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
