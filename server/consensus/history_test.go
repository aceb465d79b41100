package consensus_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// operation on one register: an annotation of a pool.
type operation struct {
	register string
	write    bool
	value    uint32
}

// registers is the sequential specification: reads answer the last write of the register.
var registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byName := map[string][]porcupine.Operation{}
		for _, o := range history {
			name := o.Input.(operation).register
			byName[name] = append(byName[name], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byName {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return uint32(0) },
	Step: func(state, input, output any) (bool, any) {
		in := input.(operation)
		if in.write {
			return true, in.value
		}
		return output.(uint32) == state.(uint32), state
	},
	DescribeOperation: func(input, output any) string {
		in := input.(operation)
		if in.write {
			return fmt.Sprintf("%s = %d", in.register, in.value)
		}
		return fmt.Sprintf("%s is %v", in.register, output)
	},
}

// relevant drops writes of unknown outcome whose value nobody read: each value is written once, so that they can always
// have happened last. Each that is kept doubles the work of the check.
func relevant(history []porcupine.Operation) []porcupine.Operation {
	read := map[uint32]bool{}
	for _, o := range history {
		if !o.Input.(operation).write {
			read[o.Output.(uint32)] = true
		}
	}
	return slices.DeleteFunc(history, func(o porcupine.Operation) bool {
		in := o.Input.(operation)
		return in.write && o.Return == int64(unknown) && !read[in.value]
	})
}

// unknown is when an operation ends of which nobody knows whether it happened.
const unknown = time.Hour

func annotate(name string, value uint32) *raftlogv1.Command {
	object := pool(name)
	object.GetPool().Metadata.Annotations = map[string]string{"value": strconv.Itoa(int(value))}
	return &raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{ApplyObjects: &raftlogv1.ApplyObjects{Objects: []*provisionrv1.Object{object}}}}
}

func annotation(store *state.Store, name string) uint32 {
	value, _ := strconv.Atoi(store.Read().Pool(name).GetMetadata().GetAnnotations()["value"])
	return uint32(value)
}

// TestHistoryIsLinearizable writes and reads through all members while leaders are cut off and killed.
func TestHistoryIsLinearizable(t *testing.T) {
	c := newCluster(t, 3)
	var mu sync.Mutex
	var history []porcupine.Operation
	start := time.Now()
	record := func(client int, in operation, out uint32, call time.Duration, known bool) {
		mu.Lock()
		defer mu.Unlock()
		end := time.Since(start)
		if !known {
			// It may take effect at any later time, or never.
			end = unknown
		}
		history = append(history, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: int64(call), Return: int64(end)})
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	for i := range 6 {
		// A client keeps to one member's node; the victims are restarted only after the clients have ended.
		node, store := c.servers[i%3].node, c.servers[i%3].store
		random := rand.New(rand.NewPCG(1, uint64(i)))
		clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				in := operation{register: fmt.Sprintf("p%d", random.IntN(3)), write: random.IntN(3) == 0, value: uint32(i*1_000_000 + n + 1)}
				call := time.Since(start)
				bounded, cancel := context.WithTimeout(ctx, time.Second)
				if in.write {
					_, err := node.Do(bounded, nil, "", annotate(in.register, in.value))
					record(i, in, 0, call, err == nil)
				} else if err := node.Sync(bounded, provisionrv1.Consistency_CONSISTENCY_LINEARIZABLE); err == nil {
					record(i, in, annotation(store, in.register), call, true)
				}
				cancel()
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(history)
	}
	progress := func(by int) {
		from := count()
		c.eventually("the clients make progress", func() bool { return count() >= from+by })
	}
	progress(100)
	for range 2 {
		cut := c.leader()
		c.net.isolate(cut.name, true)
		progress(60)
		c.net.isolate(cut.name, false)
		progress(60)
	}
	killed := c.leader()
	killed.stop()
	progress(60)
	stop()
	clients.Wait()
	killed.start()
	history = relevant(history)
	if result, _ := porcupine.CheckOperationsVerbose(registers, history, 10*time.Second); result != porcupine.Ok {
		t.Fatalf("the history of %d operations is %s", len(history), result)
	}
	c.eventually("all members agree", func() bool {
		for _, name := range []string{"p0", "p1", "p2"} {
			one := annotation(c.servers[0].store, name)
			if one != annotation(c.servers[1].store, name) || one != annotation(c.servers[2].store, name) {
				return false
			}
		}
		return true
	})
}
