package gce

import (
	"context"
	"time"

	"google.golang.org/api/compute/v1"

	"github.com/provisionr/provisionr/server/provider"
)

// The pause between two calls of operations.wait, which itself waits for up to two minutes but may return at once
// (zoneOperations.wait: on a best-effort basis).
const (
	firstPause = 100 * time.Millisecond
	longPause  = 5 * time.Second
)

// done waits until an operation in a zone, or a global one for "", has ended, and returns it as it is then. All errors but
// refusals to be asked are Unknown.
func (p *Provider) done(ctx context.Context, api *compute.Service, verb, zone string, o *compute.Operation) (*compute.Operation, error) {
	for pause := firstPause; o.Status != "DONE"; pause = min(2*pause, longPause) {
		asked, name := time.Now(), o.Name
		var err error
		if zone != "" {
			o, err = api.ZoneOperations.Wait(p.project, zone, name).Context(ctx).Do()
		} else {
			o, err = api.GlobalOperations.Wait(p.project, name).Context(ctx).Do()
		}
		if p.lacks(ctx, err, "operations are asked for now and then") {
			if zone != "" {
				o, err = api.ZoneOperations.Get(p.project, zone, name).Context(ctx).Do()
			} else {
				o, err = api.GlobalOperations.Get(p.project, name).Context(ctx).Do()
			}
		}
		if err != nil {
			err = p.failed(verb, err)
			// What cannot be asked may have acted all the same; so may what the API has forgotten.
			if kind := provider.KindOf(err); kind != provider.RateLimited && kind != provider.Unauthorized {
				err = &provider.Error{Kind: provider.Unknown, Message: err.Error(), Err: err}
			}
			return nil, err
		}
		if o.Status == "DONE" {
			break
		}
		if err := rest(ctx, pause-time.Since(asked)); err != nil {
			return nil, provider.Errorf(provider.Unknown, "gce: cannot %s: waiting for operation %s: %w", verb, o.Name, err)
		}
	}
	return o, nil
}

func rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish waits for an operation that must succeed.
func (p *Provider) finish(ctx context.Context, api *compute.Service, verb, zone string, o *compute.Operation) error {
	o, err := p.done(ctx, api, verb, zone, o)
	if err != nil {
		return err
	}
	return opFailed(verb, o)
}
