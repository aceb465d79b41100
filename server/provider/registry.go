package provider

import (
	"maps"
	"slices"
	"sync"
)

// Registry holds the providers that this server can call, by the name of their Provider object. Its zero value is empty
// and ready for use by many goroutines.
type Registry struct {
	mu     sync.RWMutex
	byName map[string]Provider
}

// Set adds or replaces the provider of that name; nil removes it.
func (r *Registry) Set(name string, p Provider) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p == nil {
		delete(r.byName, name)
		return
	}
	if r.byName == nil {
		r.byName = map[string]Provider{}
	}
	r.byName[name] = p
}

// Provider returns the provider of that name. There being none says nothing about its machines: the error is Unknown.
func (r *Registry) Provider(name string) (Provider, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if p, ok := r.byName[name]; ok {
		return p, nil
	}
	return nil, Errorf(Unknown, "provider %q does not run on this server", name)
}

// Names returns the names in order.
func (r *Registry) Names() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Sorted(maps.Keys(r.byName))
}
