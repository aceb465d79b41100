package aws

import (
	"context"
	"sync"
	"time"
)

// How long answers are used again. What machines come and go by, groups for one, is never cached.
const (
	slowly = time.Hour        // types, offerings, regions
	often  = 5 * time.Minute  // images and parameters
	soon   = 30 * time.Second // networks: a subnet's free addresses change with each launch
)

// cacheLimit bounds the entries: all are dropped when there are more, which a cluster's pools never need.
const cacheLimit = 1024

// cache keeps answers of the API for a time. Its zero value is empty and ready.
type cache struct {
	mu      sync.Mutex
	entries map[string]*entry
}

// entry is filled by one caller at a time; the others wait for it.
type entry struct {
	filling semaphore
	value   any
	until   time.Time
}

// cached returns the value of the key, loaded anew when it is older than ttl. Errors are not kept.
func cached[T any](ctx context.Context, c *cache, key string, ttl time.Duration, load func(context.Context) (T, error)) (T, error) {
	c.mu.Lock()
	e := c.entries[key]
	if e == nil {
		if c.entries == nil || len(c.entries) >= cacheLimit {
			c.entries = map[string]*entry{}
		}
		e = &entry{filling: newSemaphore()}
		c.entries[key] = e
	}
	c.mu.Unlock()
	var none T
	if err := e.filling.acquire(ctx); err != nil {
		return none, err
	}
	defer e.filling.release()
	if value, ok := e.value.(T); ok && time.Now().Before(e.until) {
		return value, nil
	}
	value, err := load(ctx)
	if err != nil {
		return none, err
	}
	e.value, e.until = value, time.Now().Add(ttl)
	return value, nil
}
