package clouds

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// fault is what the proxy does to a call.
type fault string

const (
	fine fault = ""
	// cut closes the connection before the call acts, lost after.
	cut  fault = "cut"
	lost fault = "lost"
	// unavailable answers 503, throttled as the vendor does to too many calls; both before the call acts, or after.
	unavailable      fault = "503"
	unavailableAfter fault = "503 after"
	throttled        fault = "throttled"
	throttledAfter   fault = "throttled after"
	// slow waits before the call acts and before it is answered, at times longer than anybody waits for an answer.
	slow fault = "slow"
	// truncated cuts the answer off in its body.
	truncated fault = "truncated"
	// stale gives an earlier answer to the same question.
	stale fault = "stale"
	// late deposes the leader whose call this is, and lets the call act when another leader has been at work.
	late fault = "late"
)

// kind of a call.
type kind string

const (
	launches kind = "launch"
	ends     kind = "end"
	lists    kind = "list"
	changes  kind = "change"
	reads    kind = "read"
)

// The bounds of what a call may suffer. A launch may act, or not be seen, for as long as Capabilities.SettleWindow says, which
// is two minutes at both clouds: together with the servers' own lag, these stay below.
const (
	longestHold  = 50 * time.Second
	oldestAnswer = 50 * time.Second
)

var anywhere = []fault{cut, lost, unavailable, unavailableAfter, throttled, throttledAfter, slow, truncated}

// faultsOf are those that a kind of call can have.
func faultsOf(k kind) []fault {
	switch k {
	case lists:
		return append(anywhere[:len(anywhere):len(anywhere)], stale, stale, stale, stale)
	case reads:
		return anywhere
	}
	return append(anywhere[:len(anywhere):len(anywhere)], late)
}

// rates of faults of a kind of call, before a seed makes it a better or a worse day.
var rates = map[kind]float64{launches: 0.35, ends: 0.35, lists: 0.2, changes: 0.15, reads: 0.05}

// fate decides what happens to calls and servers. What becomes of a call depends on the seed, its action, and how often that
// was called before.
type fate struct {
	seed uint64
	// badness multiplies the rates.
	badness float64
	// sure has faults that certainly happen to the first call of a kind.
	sureKind  kind
	sureFault fault

	mu     sync.Mutex
	counts map[string]int
	tally  map[string]int
}

// newFate returns the fate of a seed. Consecutive seeds go through all faults of launches, ends, lists and changes for sure.
func newFate(seed uint64) *fate {
	f := &fate{seed: seed, counts: map[string]int{}, tally: map[string]int{}}
	r := f.dice("day", 0)
	f.badness = []float64{0.4, 1, 1.5}[r.IntN(3)]
	kinds := []kind{launches, ends, lists, changes}
	f.sureKind = kinds[seed%4]
	all := faultsOf(f.sureKind)
	f.sureFault = all[seed/4%uint64(len(all))]
	return f
}

// dice returns the random numbers for the nth time of something.
func (f *fate) dice(what string, n int) *rand.Rand {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%d/%s/%d", f.seed, what, n)
	return rand.New(rand.NewPCG(f.seed, h.Sum64()))
}

// next returns the dice for one more time of something.
func (f *fate) next(what string) (r *rand.Rand, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[what]++
	return f.dice(what, f.counts[what]), f.counts[what]
}

// of a call.
func (f *fate) of(k kind, action string) (fault, *rand.Rand) {
	r, _ := f.next(action)
	_, n := f.next("kind " + string(k))
	what := fine
	all := faultsOf(k)
	if r.Float64() < min(0.6, rates[k]*f.badness) {
		what = all[r.IntN(len(all))]
	}
	if k == f.sureKind && n == 1+int(f.seed/64%3) {
		what = f.sureFault
	}
	return what, r
}

// happened counts a fault that was done to a call.
func (f *fate) happened(k kind, what fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tally[string(k)+" "+string(what)]++
}

func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)+1))
}
