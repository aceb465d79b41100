package clouds

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/provisionr/provisionr/server/reconcile/reconciletest"
)

// script breaks single calls, and ends servers at single points.
type script struct {
	mu sync.Mutex
	// faults are what happens to the first calls of a kind, in order.
	faults map[kind][]fault
	// kills has the points at which the server that comes there first is killed, deposes those at which it is deposed.
	kills, deposes map[string]bool
	// calls counts those that came to the proxy.
	calls map[kind]int
}

func (s *script) trouble() trouble {
	s.calls = map[kind]int{}
	return trouble{
		decide: func(q question) (fault, *rand.Rand) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.calls[q.kind]++
			what := fine
			if left := s.faults[q.kind]; len(left) > 0 {
				what, s.faults[q.kind] = left[0], left[1:]
			}
			return what, rand.New(rand.NewPCG(1, 1))
		},
		hook: func(l *life, server *reconciletest.Server, point string) {
			s.mu.Lock()
			killed, deposed := s.kills[point], s.deposes[point]
			delete(s.kills, point)
			delete(s.deposes, point)
			s.mu.Unlock()
			if killed || deposed {
				l.end(server, killed)
			}
		},
		pause: func() time.Duration { return time.Second },
	}
}

// TestOneEach loses what launches and ends have answered, in every way and at once: the two machines that were recorded first
// are the ones that come, each made once, and they go for good.
func TestOneEach(t *testing.T) {
	after := []fault{lost, throttledAfter, unavailableAfter, truncated}
	all := map[string]func() *script{
		"retried after a crash": func() *script {
			return &script{kills: map[string]bool{"launch.called": true, "terminate.called": true}}
		},
		"crash before the call": func() *script {
			return &script{kills: map[string]bool{"begin.committed": true, "launch.before": true, "terminate.before": true}}
		},
		"lost response and a crash": func() *script {
			return &script{
				faults: map[kind][]fault{launches: {lost, lost, lost}, ends: {lost, lost}},
				kills:  map[string]bool{"launch.called": true, "terminate.called": true},
			}
		},
		"deposed leader acts late": func() *script {
			return &script{faults: map[kind][]fault{launches: {late, late}, ends: {late, late}, changes: {late}}}
		},
		"deposed leader's answer is lost": func() *script {
			return &script{deposes: map[string]bool{"launch.called": true, "terminate.called": true}}
		},
	}
	for _, what := range after {
		all[string(what)] = func() *script {
			return &script{faults: map[kind][]fault{launches: {what}, ends: {what}}}
		}
		all[string(what)+" many times"] = func() *script {
			return &script{faults: map[kind][]fault{launches: {what, what, what, what}, ends: {what, what, what, what}}}
		}
	}
	for cloud, start := range map[string]func(*testing.T, uint64) vendor{"aws": newAmazon, "gce": newGoogle(t)} {
		for name, make := range all {
			t.Run(cloud+"/"+name, func(t *testing.T) {
				ec2Credentials(t)
				s, planned := make(), map[kind]int{}
				for k, all := range s.faults {
					planned[k] = len(all)
				}
				live(t, 1, start, s.trouble(), &census{}, func(l *life) {
					l.size(2)
					l.rests(2)
					made := l.vendor.made()
					if len(made) != 2 {
						t.Errorf("%d machines were made: %v", len(made), made)
					}
					l.ends()
					if s.calls[launches] < 2 || s.calls[ends] < 1 {
						t.Errorf("calls %v", s.calls)
					}
					// What is seen in a list meanwhile is not asked for again, so not all need to happen.
					for k, left := range s.faults {
						if len(left) >= planned[k] {
							t.Errorf("%s: %v did not happen", k, left)
						}
					}
					if len(s.kills)+len(s.deposes) > 0 {
						t.Errorf("no server came to %v %v", s.kills, s.deposes)
					}
					if l.terms == 1 && (s.deposes != nil || s.kills != nil) {
						t.Error("one server has led all the time")
					}
				})
			})
		}
	}
}

// TestDeletedMeanwhile deletes the pool while its launches are held, whose leader has been deposed or has had an error: they
// act when nobody wants them any more, and what they make is ended with the machine's record, not found as an orphan.
func TestDeletedMeanwhile(t *testing.T) {
	for cloud, start := range map[string]func(*testing.T, uint64) vendor{"aws": newAmazon, "gce": newGoogle(t)} {
		for _, what := range []fault{late, slow} {
			t.Run(cloud+"/"+string(what), func(t *testing.T) {
				ec2Credentials(t)
				s := &script{faults: map[kind][]fault{launches: {what, what}}}
				live(t, 1, start, s.trouble(), &census{}, func(l *life) {
					l.size(2)
					l.asks(time.Minute)
					l.ends()
					if made := l.vendor.made(); len(made) == 0 {
						t.Error("nothing was made")
					}
				})
			})
		}
	}
}
