package provider

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Bucket is a token bucket: Size calls at once, then Rate calls per second.
type Bucket struct {
	Size int
	Rate float64
}

// Limiter holds the token buckets of one account. Every call of the account's API waits for it, so all of them together
// stay below what the provider allows. All methods may be called concurrently.
type Limiter struct {
	all     *rate.Limiter
	classes map[string]*rate.Limiter
	calls   atomic.Uint64

	mu    sync.Mutex
	until time.Time
}

// NewLimiter makes full buckets: one for each class of calls that the provider limits apart, and one for all calls
// together. A rate of 0 or less for all calls means that only the classes limit.
func NewLimiter(all Bucket, classes map[string]Bucket) *Limiter {
	l := &Limiter{classes: make(map[string]*rate.Limiter, len(classes))}
	if all.Rate > 0 {
		l.all = limiterOf(all)
	}
	for name, b := range classes {
		l.classes[name] = limiterOf(b)
	}
	return l
}

func limiterOf(b Bucket) *rate.Limiter { return rate.NewLimiter(rate.Limit(b.Rate), max(1, b.Size)) }

// Wait waits until a call of the class may be made. A class without a bucket has that of all calls alone. The error is that
// of the context.
func (l *Limiter) Wait(ctx context.Context, class string) error {
	for _, bucket := range []*rate.Limiter{l.classes[class], l.all} {
		if bucket == nil {
			continue
		}
		if err := bucket.Wait(ctx); err != nil {
			return Errorf(Unknown, "waiting for the provider's rate limit: %w", err)
		}
	}
	if err := l.rest(ctx); err != nil {
		return Errorf(Unknown, "waiting as the provider has asked: %w", err)
	}
	l.calls.Add(1)
	return nil
}

// rest waits while the provider has asked for no calls at all.
func (l *Limiter) rest(ctx context.Context) error {
	for {
		l.mu.Lock()
		d := time.Until(l.until)
		l.mu.Unlock()
		if d <= 0 {
			return ctx.Err()
		}
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// Throttled holds back all calls for a while after the provider has refused one as too many.
func (l *Limiter) Throttled(after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := time.Now().Add(after); until.After(l.until) {
		l.until = until
	}
}

// Calls returns how many calls were let through.
func (l *Limiter) Calls() uint64 { return l.calls.Load() }
