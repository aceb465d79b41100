package gce

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"

	"google.golang.org/api/compute/v1"

	"github.com/provisionr/provisionr/server/provider"
)

// page is one page of a list over zones.
type page[T any] struct {
	scopes       []inScope[T]
	next         string
	unreachables []string
	warning      string // its code
}

// inScope is what a page has of a zone, or of a region or of none.
type inScope[T any] struct {
	zone    string
	items   []T
	warning string // its code
}

// regional yields the pages of the region's zones: of a list of all zones, or of one list for each zone where the server
// lacks that. An error says that the list is not complete.
func regional[T any](ctx context.Context, p *Provider, api *compute.Service, what string,
	inAll func(token string) (page[T], error), inZone func(zone, token string) (page[T], error),
) iter.Seq2[inScope[T], error] {
	return func(yield func(inScope[T], error) bool) {
		// pages yields one list, and returns false where there is no more to yield.
		pages := func(next func(token string) (page[T], error)) bool {
			for token := ""; ; {
				of, err := next(token)
				if err == nil {
					err = p.complete(what, of.unreachables, of.warning)
				}
				if err != nil {
					yield(inScope[T]{}, p.unlisted(p.failed("list "+what, err)))
					return false
				}
				slices.SortFunc(of.scopes, func(a, b inScope[T]) int { return cmp.Compare(a.zone, b.zone) })
				for _, s := range of.scopes {
					if !p.inRegion(s.zone) {
						continue
					}
					if err := p.complete(what, nil, s.warning); err != nil {
						yield(inScope[T]{}, err)
						return false
					}
					if !yield(s, nil) {
						return false
					}
				}
				if token = of.next; token == "" {
					return true
				}
			}
		}
		first, err := inAll("")
		if !p.lacks(ctx, err, what+" are listed zone by zone") {
			pages(func(token string) (page[T], error) {
				if token == "" {
					return first, err
				}
				return inAll(token)
			})
			return
		}
		zones, err := p.zones(ctx, api)
		if err == nil && len(zones) == 0 {
			err = provider.Errorf(provider.Unknown, "gce: cannot list %s: region %s has no zones", what, p.region)
		}
		if err != nil {
			yield(inScope[T]{}, p.unlisted(err))
			return
		}
		for _, zone := range zones {
			if !pages(func(token string) (page[T], error) { return inZone(zone, token) }) {
				return
			}
		}
	}
}

// complete refuses what may lack something of the region. That another region is unreachable hides nothing here.
func (p *Provider) complete(what string, unreachables []string, warning string) error {
	for _, u := range unreachables {
		if zone := base(u); p.inRegion(zone) || !strings.Contains(u, "zones/") {
			return provider.Errorf(provider.Unknown, "gce: the list of %s is not complete: %s is unreachable", what, u)
		}
	}
	if len(unreachables) == 0 && warning != "" && warning != "NO_RESULTS_ON_PAGE" {
		return provider.Errorf(provider.Unknown, "gce: the list of %s is not complete: %s", what, warning)
	}
	return nil
}
