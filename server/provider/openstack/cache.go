package openstack

import (
	"context"
	"sync"
	"time"
)

// cacheTime is how long images, flavors and zones are remembered: they change by hand, rarely.
const cacheTime = 5 * time.Minute

// cached remembers what changes rarely. Its zero value is empty. The value is shared: nobody changes it.
type cached[T any] struct {
	mu    sync.Mutex
	value T
	until time.Time
}

// get returns the value, and fetches it when it is missing, old, or not wanted as it is: a name that is not found may be
// new. Two at once may both fetch.
func (c *cached[T]) get(ctx context.Context, enough func(T) bool, fetch func(context.Context) (T, error)) (T, error) {
	c.mu.Lock()
	value, until := c.value, c.until
	c.mu.Unlock()
	if time.Now().Before(until) && enough(value) {
		return value, nil
	}
	value, err := fetch(ctx)
	if err != nil {
		return value, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.value, c.until = value, time.Now().Add(cacheTime)
	return value, nil
}

// keyed has one lock for each key in use. Its zero value is ready.
type keyed struct {
	mu   sync.Mutex
	held map[string]*turn
}

type turn struct {
	// room for one holder
	room  chan struct{}
	users int
}

// lock waits for the key's lock until ctx ends.
func (k *keyed) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	t := k.held[key]
	if t == nil {
		t = &turn{room: make(chan struct{}, 1)}
		if k.held == nil {
			k.held = map[string]*turn{}
		}
		k.held[key] = t
	}
	t.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(k.held, key)
		}
	}
	select {
	case t.room <- struct{}{}:
		return func() { <-t.room; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// lingering returns a context that outlives ctx by d: what was sent cannot be unsent, so its answer is worth waiting for.
func lingering(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var mu sync.Mutex
	var timer *time.Timer
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		timer = time.AfterFunc(d, cancel)
	})
	return longer, func() {
		stop()
		mu.Lock()
		defer mu.Unlock()
		if timer != nil {
			timer.Stop()
		}
		cancel()
	}
}
