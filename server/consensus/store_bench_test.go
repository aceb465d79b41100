package consensus

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// BenchmarkLogStore measures the two candidates for the log: docs/adr/0001-raft-log-store.md. One operation stores a
// batch of entries of 256 bytes durably. TMPDIR must be on the disk to measure.
func BenchmarkLogStore(b *testing.B) {
	stores := map[string]func(dir string) (raft.LogStore, error){
		"raft-boltdb": func(dir string) (raft.LogStore, error) {
			return openBolt("open", filepath.Join(dir, logFile))
		},
		"raft-wal": func(dir string) (raft.LogStore, error) {
			return wal.Open(dir, wal.WithLogger(newLogger(slog.New(slog.DiscardHandler), "wal")))
		},
	}
	for _, name := range []string{"raft-boltdb", "raft-wal"} {
		for _, batch := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/batch-%d", name, batch), func(b *testing.B) {
				store, err := stores[name](b.TempDir())
				if err != nil {
					b.Fatal(err)
				}
				data := make([]byte, 256)
				entries := make([]*raft.Log, batch)
				var index uint64
				for b.Loop() {
					for i := range entries {
						index++
						entries[i] = &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: data}
					}
					if err := store.StoreLogs(entries); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "entries/s")
			})
		}
	}
}
