package fsm

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// BenchmarkApply measures requests applied in entries of so many.
func BenchmarkApply(b *testing.B) {
	for _, size := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("%d-requests", size), func(b *testing.B) {
			w := initialised(b)
			w.must(put(pool("a", 1)))
			w.serving("m-1", "a", 1)
			next := 0
			for b.Loop() {
				b.StopTimer()
				entry := &raftlogv1.Entry{}
				for range size {
					next++
					entry.Requests = append(entry.Requests, &raftlogv1.Request{
						Id: fmt.Sprint("request-", next), Time: timestamppb.New(start), FeatureLevel: 1,
						Command: &raftlogv1.Command{Kind: &raftlogv1.Command_ReportMachine{ReportMachine: &raftlogv1.ReportMachine{
							Id: "m-1", Agent: &provisionrv1.AgentStatus{Message: fmt.Sprint(next)}}}},
					})
				}
				data, err := proto.Marshal(entry)
				if err != nil {
					b.Fatal(err)
				}
				w.index++
				b.StartTimer()
				if r := w.fsm.Apply(w.index, data); len(r) != size {
					b.Fatal(w.fatal)
				}
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}

// BenchmarkApplyZone measures a zone of as many records as it may have: new, with one record changed, and as it is.
func BenchmarkApplyZone(b *testing.B) {
	names := make([]string, maxRecords)
	for i := range names {
		names[i] = fmt.Sprintf("host-%06d", i)
	}
	w := initialised(b)
	entry := func(o *provisionrv1.Object) []byte {
		data, err := proto.Marshal(&raftlogv1.Entry{Requests: []*raftlogv1.Request{{Time: timestamppb.New(start), FeatureLevel: 1, Command: put(o)}}})
		if err != nil {
			b.Fatal(err)
		}
		return data
	}
	apply := func(b *testing.B, data []byte) {
		w.index++
		if r := w.fsm.Apply(w.index, data); len(r) != 1 || r[0].Err != nil {
			b.Fatal(r, w.fatal)
		}
	}
	whole := entry(zone("z", "z.example", names...))
	one := entry(zone("z", "z.example", append(names[:maxRecords-1:maxRecords-1], "other")...))
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			apply(b, whole)
			b.StopTimer()
			w.must(remove("zones", "z"))
			b.StartTimer()
		}
	})
	apply(b, whole)
	b.Run("changed", func(b *testing.B) {
		for b.Loop() {
			apply(b, one)
			b.StopTimer()
			apply(b, whole)
			b.StartTimer()
		}
	})
	b.Run("same", func(b *testing.B) {
		for b.Loop() {
			apply(b, whole)
		}
	})
}
