package consensus_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/consensus"
)

// BenchmarkWrites measures acknowledged writes of three members on one disk, made through a follower over TLS, by so
// many writers at once, each waiting for its own.
func BenchmarkWrites(b *testing.B) {
	for _, bench := range []struct {
		name    string
		writers int
	}{{"1-writer", 1}, {"64-writers", 64}, {"1024-writers", 1024}} {
		b.Run(bench.name, func(b *testing.B) {
			c := newCluster(b, 3)
			node := c.followers()[0].node
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var writers sync.WaitGroup
			for range bench.writers {
				writers.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := node.Do(b.Context(), nil, "", &raftlogv1.Command{Kind: &raftlogv1.Command_RecordEvent{
							RecordEvent: &raftlogv1.RecordEvent{Event: &provisionrv1.Event{Reason: "Bench"}}}}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			writers.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
		})
	}
}

// BenchmarkFailover measures from the death of the leader to the next acknowledged write at a survivor, with the
// timeouts of production.
func BenchmarkFailover(b *testing.B) {
	c := &cluster{t: b, ca: newAuthority(b), net: newNetwork()}
	c.tune = func(config *consensus.Config) {
		config.HeartbeatTimeout, config.ElectionTimeout, config.LeaseTimeout = 0, 0, 0
	}
	c.run(3)
	var down time.Duration
	for n := 0; n < b.N; n++ {
		old := c.leader()
		survivor := c.followers()[0]
		begin := time.Now()
		c.net.isolate(old.name, true)
		survivor.do("", annotate("p0", uint32(n)))
		down += time.Since(begin)
		c.net.isolate(old.name, false)
		c.eventually("the old leader follows", func() bool { return annotation(old.store, "p0") == uint32(n) })
	}
	b.ReportMetric(float64(down.Milliseconds())/float64(b.N), "ms-to-next-write")
}
