package clouds

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"slices"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/provisionr/provisionr/server/reconcile/reconciletest"
)

var (
	runs  = flag.Int("runs", 40, "seeded runs at each vendor")
	first = flag.Uint64("first", 0, "seed of the first run")
)

// maxEnds bounds how often the servers of one run are killed or deposed at hooks.
const maxEnds = 6

// stuckAfter is when a run counts as stuck: it takes a second or a few of a free processor.
const stuckAfter = 5 * time.Minute

// dump ends a process whose virtual time stands still, as when a lock is held while a call is waited for, and says where.
func dump(cloud string, seed uint64) {
	fmt.Fprintf(os.Stderr, "run %d at %s is stuck\n", seed, cloud)
	_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
	os.Exit(2)
}

// TestRuns has pools live through seeded trouble.
func TestRuns(t *testing.T) {
	for _, cloud := range []struct {
		name  string
		start func(*testing.T, uint64) vendor
	}{{"aws", newAmazon}, {"gce", newGoogle(t)}} {
		t.Run(cloud.name, func(t *testing.T) {
			ec2Credentials(t)
			total := &census{tally: map[string]int{}}
			began, failed := time.Now(), 0
			for seed := *first; seed < *first+uint64(*runs); seed++ {
				ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
					t.Cleanup(func() {
						if t.Failed() {
							t.Logf("again: go test ./e2e/clouds -run 'TestRuns/%s' -args -first %d -runs 1", cloud.name, seed)
						}
					})
					cryptotest.SetGlobalRandom(t, seed)
					watch := time.AfterFunc(stuckAfter, func() { dump(cloud.name, seed) })
					defer watch.Stop()
					run(t, seed, cloud.start, total)
				})
				if !ok {
					failed++
				}
			}
			if *runs >= 500 {
				for _, k := range []kind{launches, ends, lists, changes} {
					for _, what := range faultsOf(k) {
						if total.tally[string(k)+" "+string(what)] == 0 {
							t.Errorf("in %d runs, %s was never done to %s", *runs, what, k)
						}
					}
				}
			}
			for _, what := range slices.Sorted(maps.Keys(total.tally)) {
				t.Logf("%6d %s", total.tally[what], what)
			}
			// tools/fault-runs adds these up.
			fmt.Printf("RUNS %s %d failed %d leaked %d doubled %d reaped %d seconds %.0f\n",
				cloud.name, *runs, failed, total.leaked, total.doubled, total.reaped, time.Since(began).Seconds())
		})
	}
}

// run is the life of a pool: made, grown, one machine replaced, shrunk, deleted. One seed in two changes the wish before
// the one before has come true.
func run(t *testing.T, seed uint64, start func(*testing.T, uint64) vendor, total *census) {
	fate := newFate(seed)
	dice := fate.dice("life", 0)
	terms := 0
	quit := 0
	trouble := trouble{
		decide: func(q question) (fault, *rand.Rand) { return fate.of(q.kind, q.action) },
		happened: func(q question, what fault) {
			if what != fine {
				fate.happened(q.kind, what)
			}
		},
		pause: func() time.Duration {
			r, _ := fate.next("pause")
			return between(r, 0, 10*time.Second)
		},
		hook: func(l *life, s *reconciletest.Server, point string) {
			r, _ := fate.next("hook " + point)
			if r.Float64() > 0.04*fate.badness || !s.Alive() {
				return
			}
			fate.mu.Lock()
			quit++
			again := quit <= maxEnds
			fate.mu.Unlock()
			if again {
				l.end(s, r.IntN(2) == 0)
			}
		},
	}
	hurried := dice.IntN(2) == 0
	live(t, seed, start, trouble, total, func(l *life) {
		defer func() { terms = l.terms }()
		next := func(n int) {
			switch {
			case !hurried:
				l.rests(n)
			case dice.IntN(2) == 0:
				l.asks(time.Minute)
				time.Sleep(between(dice, 0, 5*time.Second))
			default:
				time.Sleep(between(dice, 5*time.Second, 2*time.Minute))
			}
		}
		n := 2 + dice.IntN(2)
		l.size(uint32(n))
		next(n)
		l.size(uint32(n + 1))
		next(n + 1)
		l.killOne(dice)
		// A death is not seen at once, and a pool at rest may be so still.
		time.Sleep(between(dice, 0, 15*time.Second))
		next(n + 1)
		l.size(uint32(n - 1))
		next(n - 1)
		if dice.IntN(4) == 0 {
			// It is deleted in the middle of things.
			l.size(uint32(n + 2))
			l.asks(2 * time.Minute)
		} else {
			l.rests(n - 1)
		}
		l.ends()
	})
	total.mu.Lock()
	defer total.mu.Unlock()
	for what, n := range fate.tally {
		total.tally[what] += n
	}
	total.tally["terms"] += terms
}
