package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// dispatch starts what is not at work yet, may be tried and fits the bounds. What does not fit is planned again when a
// result makes room. It returns when to plan again for the sake of retries.
func (t *term) dispatch(ctx context.Context, actions []Action, wake time.Time) time.Time {
	now := time.Now()
	later := func(at time.Time) {
		if wake.IsZero() || at.Before(wake) {
			wake = at
		}
	}
	planned := make(map[string]bool, len(actions))
	for _, a := range actions {
		key := a.Key()
		planned[a.retryKey()] = true
		if w, busy := t.inFlight[key]; busy {
			if w.action.Op == Launch && a.Op != Launch {
				// The machine is not wanted any more: what follows waits for the call's return, so the call is cut off.
				w.cancel()
			}
			continue
		}
		if at := t.retries[a.retryKey()].at; at.After(now) {
			later(at)
			continue
		}
		if len(t.inFlight) >= maxInFlight {
			continue
		}
		if a.Op == Say {
			if at, ok := t.said[key]; ok && now.Before(at.Add(repeatSaying)) {
				continue
			}
			if len(t.said) >= maxSaid {
				clear(t.said)
			}
			t.said[key] = now
		}
		bound, pausedUntil := t.boundOf(a)
		if pausedUntil.After(now) {
			later(pausedUntil)
			continue
		}
		if bound != nil {
			select {
			case bound <- struct{}{}:
			default:
				continue
			}
		}
		t.start(ctx, a, bound)
	}
	for key, r := range t.retries {
		if !planned[key] && !r.at.After(now) {
			delete(t.retries, key)
		}
	}
	return wake
}

// boundOf returns the slots that calls of the action's kind share at its provider, and until when it is held back.
func (t *term) boundOf(a Action) (chan struct{}, time.Time) {
	account := t.accounts[a.Provider]
	if account == nil {
		return nil, time.Time{}
	}
	switch a.Op {
	case Begin:
		return account.begins, account.pausedUntil
	case Launch:
		return account.launches, account.pausedUntil
	case Ensure, Terminate, Reap, Prune, EnsureFirewall, DeleteFirewall:
		return account.changes, account.pausedUntil
	}
	return nil, time.Time{}
}

func (t *term) start(ctx context.Context, a Action, bound chan struct{}) {
	termCtx := ctx
	ctx, cancel := context.WithCancel(ctx)
	t.inFlight[a.Key()] = work{action: a, cancel: cancel}
	call := caller{Loop: t.Loop, market: t.market}
	if account := t.accounts[a.Provider]; account != nil {
		call.capabilities = account.listing.Capabilities
	}
	t.workers.Go(func() {
		defer cancel()
		r := call.execute(ctx, a)
		if bound != nil {
			<-bound
		}
		r.action, r.at = a, time.Now()
		select {
		case t.results <- r:
		case <-termCtx.Done():
		}
	})
}

// settle takes a result into account.
func (t *term) settle(r result) {
	switch {
	case r.listing != nil:
		t.take(r.listing, r.err)
		return
	case r.groups != nil:
		t.takeGroups(r.groups, r.err)
		return
	}
	a, key := r.action, r.action.retryKey()
	delete(t.inFlight, a.Key())
	switch {
	case a.Op == Launch:
		if _, own := t.launchEnded[a.Machine]; own {
			t.launchEnded[a.Machine] = r.at
		}
		if r.refused {
			t.refused[a.Machine] = a.Attempt
		}
	case r.err != nil:
	case a.Op == Begin:
		delete(t.refused, a.Machine)
		// Of an attempt before that another leader began, a call may still be in flight.
		if _, own := t.launchEnded[a.Machine]; own || a.Attempt == 1 {
			t.launchEnded[a.Machine] = r.at
		}
	case a.Op == Ensure:
		t.ensured[a.Network] = r.generation
	case a.Op == Terminate:
		t.terminated[a.Machine] = r.at
	case a.Op == Reboot:
		t.asked[a.Machine] = r.at
	case a.Op == Prune:
		t.pruned[a.Machine] = r.at
	case a.Op == EnsureFirewall:
		done := *a.Ensured
		done.At = r.at
		if t.firewalls[a.Pool].UID != done.UID {
			// The group may be a new one.
			t.market.forget(a.Pool)
		}
		t.firewalls[a.Pool] = done
	case a.Op == DeleteFirewall:
		delete(t.firewalls, a.Pool)
	}
	if r.stale != "" {
		t.market.forget(r.stale)
		delete(t.firewalls, r.stale)
	}
	if account := t.accounts[a.Provider]; account != nil {
		t.authorized(account, a.Op, r.err)
		switch a.Op {
		case Launch, Terminate, Reap, Prune:
			nudge(account.kick)
		case DeleteFirewall:
			account.groups = Groups{}
			nudge(account.regroup)
		}
		if kind := provider.KindOf(r.err); kind == provider.RateLimited || kind == provider.Unauthorized {
			account.pausedUntil = r.at.Add(max(provider.AfterOf(r.err), time.Second))
		}
	}
	if r.err == nil {
		delete(t.retries, key)
		return
	}
	failures := t.retries[key].failures + 1
	base, limit := retryBounds(r.err)
	wait := max(provider.AfterOf(r.err), backoff(failures, base, limit))
	t.retries[key] = retry{failures: failures, at: r.at.Add(wait)}
	if r.event != nil && failures == 1 {
		t.retain(r.event)
	}
	if errs.Is(r.err, errs.Conflict) || errs.Is(r.err, errs.NotFound) || errors.Is(r.err, context.Canceled) {
		// The state has moved on since the plan: the next plan starts from what is.
		t.Logger.Debug("action refused", "action", a.String(), "error", r.err)
		return
	}
	t.Logger.Warn("action failed", "action", a.String(), "error", r.err, "failures", failures, "retry_in", wait)
}

// retain has an event recorded with the next plan.
func (t *term) retain(e *provisionrv1.Event) {
	if len(t.pendingEvents) < maxProposals {
		t.pendingEvents = append(t.pendingEvents, e)
	}
}

// retryBounds are the first and the longest wait after an error.
func retryBounds(err error) (base, limit time.Duration) {
	switch provider.KindOf(err) {
	case provider.NoCapacity, provider.QuotaExceeded, provider.Unauthorized:
		return 15 * time.Second, 5 * time.Minute
	case provider.RateLimited:
		return 5 * time.Second, time.Minute
	}
	return 200 * time.Millisecond, 30 * time.Second
}
