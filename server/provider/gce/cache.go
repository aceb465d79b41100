package gce

import (
	"sync"
	"time"
)

const (
	// cacheFor is how long what hardly ever changes is remembered: zones, machine types, disk types, images.
	cacheFor = 10 * time.Minute
	// maxCached answers are remembered; all are forgotten when there are more.
	maxCached = 512
)

// cache remembers answers by what was asked. Its zero value is empty.
type cache struct {
	mu    sync.Mutex
	known map[string]known
}

type known struct {
	value any
	at    time.Time
}

// cached returns what load returned for the key within the last minutes. Errors are not remembered.
func cached[T any](c *cache, key string, load func() (T, error)) (T, error) {
	c.mu.Lock()
	k, ok := c.known[key]
	c.mu.Unlock()
	if value, is := k.value.(T); ok && is && time.Since(k.at) < cacheFor {
		return value, nil
	}
	value, err := load()
	if err != nil {
		return value, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxCached {
		c.known = map[string]known{}
	}
	c.known[key] = known{value, time.Now()}
	return value, nil
}
