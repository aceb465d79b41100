package reconcile

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

const (
	// coolDown is how long a choice that was out of capacity is not taken again.
	coolDown = 5 * time.Minute
	// offerAge is how old an offer may be that a launch is decided by, refusalAge the same for there being none.
	offerAge   = time.Minute
	refusalAge = 5 * time.Second
	// maxCooling bounds the choices that cool down; above it all are tried again.
	maxCooling = 4096
)

// market is what a term knows of what its providers sell. Its methods are for workers: they may be called concurrently.
type market struct {
	mu sync.Mutex
	// offers by pool; cooling by coolKey.
	offers  map[string]*quote
	cooling map[string]refusal
}

// refusal is why a choice cannot be had, and until when that is believed.
type refusal struct {
	until time.Time
	err   error
}

// quote is one answer of a provider, or the wait for it.
type quote struct {
	// from is the account that was asked, as it was then.
	from  string
	wish  *provisionrv1.Wish
	done  chan struct{}
	at    time.Time
	offer *provisionrv1.Offer
	err   error
}

func newMarket() *market {
	return &market{offers: map[string]*quote{}, cooling: map[string]refusal{}}
}

// offer returns what a provider has for a wish. Who asks the same of the same account for the same pool shares one call.
func (k *market) offer(ctx context.Context, p provider.Provider, from *provisionrv1.Provider, wish *provisionrv1.Wish) (*provisionrv1.Offer, error) {
	meta := from.GetMetadata()
	account := fmt.Sprintf("%s/%s/%d", meta.GetName(), meta.GetUid(), meta.GetGeneration())
	k.mu.Lock()
	q := k.offers[wish.GetPool()]
	if q == nil || q.from != account || !q.answers(wish) {
		q = &quote{from: account, wish: wish, done: make(chan struct{})}
		k.offers[wish.GetPool()] = q
		k.mu.Unlock()
		q.offer, q.err = p.Resolve(ctx, clone(wish))
		if q.err == nil && len(q.offer.GetChoices()) == 0 {
			q.err = provider.Errorf(provider.NoCapacity, "the provider offers nothing")
		}
		q.at = time.Now()
		close(q.done)
		return q.offer, q.err
	}
	k.mu.Unlock()
	select {
	case <-q.done:
		return q.offer, q.err
	case <-ctx.Done():
		return nil, provider.Errorf(provider.Unknown, "waiting for the provider's offer: %w", ctx.Err())
	}
}

// answers says whether the quote is one for the wish, however many machines that counts, and still holds.
func (q *quote) answers(wish *provisionrv1.Wish) bool {
	asked := clone(wish)
	asked.Count = q.wish.GetCount()
	if !proto.Equal(asked, q.wish) {
		return false
	}
	select {
	case <-q.done:
		if q.err != nil {
			return time.Since(q.at) < refusalAge
		}
		return time.Since(q.at) < offerAge
	default:
		return true
	}
}

// forget drops the offer for a pool.
func (k *market) forget(pool string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.offers, pool)
}

// keep drops the offers for pools that are no more.
func (k *market) keep(exists func(pool string) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	deleteIf(k.offers, func(pool string) bool { return !exists(pool) })
	now := time.Now()
	deleteIf(k.cooling, func(key string) bool { return !k.cooling[key].until.After(now) })
}

// choose returns the first choice of an offer that does not cool down. The error is the first choice's refusal with the names
// of all, and the wait until one may be taken again.
func (k *market) choose(providerName string, offer *provisionrv1.Offer) (*provisionrv1.Choice, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	var first refusal
	var soonest time.Time
	var names []string
	for _, c := range offer.GetChoices() {
		r := k.cooling[coolKey(providerName, c)]
		if !r.until.After(now) {
			return c, nil
		}
		if len(names) == 0 {
			first, soonest = r, r.until
		}
		if r.until.Before(soonest) {
			soonest = r.until
		}
		names = append(names, choiceName(c))
	}
	err := provider.Errorf(provider.KindOf(first.err), "none of %s can be had: %w", strings.Join(names, ", "), first.err)
	err.After = soonest.Sub(now)
	return nil, err
}

// cool keeps a choice that was refused from being taken for a while.
func (k *market) cool(providerName string, c *provisionrv1.Choice, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.cooling) >= maxCooling {
		clear(k.cooling)
	}
	k.cooling[coolKey(providerName, c)] = refusal{time.Now().Add(coolDown), err}
}

// coolKey is what capacity is had by: a type in a zone, on demand or not.
func coolKey(providerName string, c *provisionrv1.Choice) string {
	return fmt.Sprintf("%s/%s/%s/%v", providerName, c.GetType(), c.GetZone(), c.GetSpot())
}

// choiceName names a choice for people.
func choiceName(c *provisionrv1.Choice) string {
	name := c.GetTypeName()
	if name == "" {
		name = c.GetType()
	}
	if name == "" {
		name = "machines"
	}
	if c.GetZone() != "" {
		name += " in " + c.GetZone()
	}
	if c.GetSpot() {
		name += " (spot)"
	}
	return name
}
