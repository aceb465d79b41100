package host

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/provisionr/provisionr/server"
)

// What a start, a restore or many new names leave behind is several times what stays, and the runtime keeps it for a next time
// that seldom comes. So when more was allocated than is alive, and then hardly anything, the rest is collected and given back
// to the system. A server that is busy is left alone, and the collector's own pace as it is: once this is given back, less room
// to grow saves nothing, and changes would wait for the collector more often.
const (
	// look is how often is looked; calm is how many octets are allocated in between while little goes on.
	look, calm = time.Second, 512 << 10
	// least is how many octets are worth it; pause is the least time between two times.
	least, pause = 16 << 20, time.Minute
)

// serve runs a member until ctx ends, and gives the memory back that it does not need.
func serve(ctx context.Context, c server.Config) error {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	group.Go(func() { giveBack(ctx) })
	return server.Run(ctx, c)
}

// giveBack gives memory back whenever it is worth it, until ctx ends.
func giveBack(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	var r residue
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			metrics.Read(samples)
			if r.worth(now, samples[0].Value.Uint64(), samples[1].Value.Uint64()) {
				debug.FreeOSMemory()
			}
		}
	}
}

// residue knows how much had been allocated at the last look, and when memory was given back.
type residue struct {
	looked, given uint64
	at            time.Time
}

// worth reports whether to give memory back now, of the octets allocated since the start and those alive.
func (r *residue) worth(now time.Time, allocated, alive uint64) bool {
	quiet := allocated-r.looked <= calm
	r.looked = allocated
	if !quiet || allocated-r.given < max(least, alive) || now.Sub(r.at) < pause {
		return false
	}
	r.given, r.at = allocated, now
	return true
}
