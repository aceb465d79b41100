package gce

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/api/compute/v1"
	"google.golang.org/api/googleapi"

	"github.com/provisionr/provisionr/server/provider"
)

// throttledFor is how long to hold calls back where the answer does not say. The quota is filled up every minute
// (https://cloud.google.com/compute/docs/api-rate-limits); asking in between costs little.
const throttledFor = 5 * time.Second

// failed turns an error of the client library into one of a kind. What does not say for sure that nothing was done is
// Unknown.
func (p *Provider) failed(verb string, err error) error {
	var own *provider.Error
	var answered *googleapi.Error
	var token *tokenError
	var located *url.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return provider.Errorf(provider.Unknown, "gce: cannot %s: %w", verb, err)
	case errors.As(err, &answered):
		return p.refused(verb, answered)
	case errors.As(err, &token) && token.passing():
		return provider.Errorf(provider.Unknown, "gce: cannot %s: %s", verb, token.Error())
	case errors.As(err, &token):
		return credentialsError()
	}
	// The URL is long and says nothing that the verb does not.
	if errors.As(err, &located) {
		err = located.Err
	}
	return provider.Errorf(provider.Unknown, "gce: cannot %s: %w", verb, err)
}

// refused reads an answer that is an error
// (https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-reference).
func (p *Provider) refused(verb string, e *googleapi.Error) error {
	reason := reasonOf(e)
	message := public(e.Message)
	if message == "" {
		message = http.StatusText(e.Code)
	}
	switch {
	case e.Code == http.StatusTooManyRequests, reason == "rateLimitExceeded", reason == "userRateLimitExceeded", reason == "operationRateLimitExceeded":
		after := retryAfter(e.Header)
		p.limiter.Throttled(after)
		limited := provider.Errorf(provider.RateLimited, "gce: cannot %s: too many calls: %s", verb, message)
		limited.After = after
		return limited
	case e.Code == http.StatusUnauthorized:
		return provider.Errorf(provider.Unauthorized, "gce: cannot %s: the credentials are refused (%s); give the servers such as are valid for project %s", verb, chain, p.project)
	case reason == "quotaExceeded":
		return provider.Errorf(provider.QuotaExceeded, "gce: cannot %s: %s", verb, message)
	case e.Code == http.StatusForbidden:
		return provider.Errorf(provider.Unauthorized, "gce: cannot %s: the credentials (%s) lack a permission in project %s: %s; grant them the role Compute Admin", verb, chain, p.project, message)
	case saying(e, http.StatusNotFound, "notFound"):
		return provider.Errorf(provider.NotFound, "gce: cannot %s: %s", verb, message)
	case reason == "resourceNotReady", reason == "resourceInUseByAnotherResource", e.Code == http.StatusConflict, e.Code == http.StatusPreconditionFailed:
		return &provider.Error{Kind: provider.Unknown, Message: fmt.Sprintf("gce: cannot %s: %s", verb, message), Err: e}
	case e.Code == http.StatusBadRequest:
		return provider.Errorf(provider.Invalid, "gce: cannot %s: %s", verb, message)
	}
	return &provider.Error{Kind: provider.Unknown, Message: fmt.Sprintf("gce: cannot %s: status %d: %s", verb, e.Code, message), Err: e}
}

func reasonOf(e *googleapi.Error) string {
	if len(e.Errors) == 0 {
		return ""
	}
	return e.Errors[0].Reason
}

// public is a message without what it quotes of an instance's metadata, where the user-data has a token.
func public(message string) string {
	before, _, quotes := strings.Cut(message, "resource.metadata")
	if !quotes {
		before, _, quotes = strings.Cut(message, "user-data")
	}
	if quotes {
		return strings.TrimRight(before, " '\"") + " metadata (not shown)"
	}
	return message
}

// conflict says that a resource of that name may exist: whoever asks looks for it then.
func conflict(err error) bool {
	var e *googleapi.Error
	return errors.As(err, &e) && e.Code == http.StatusConflict
}

// lacks reports whether err may say that the server does not have the method at all, as others than Google's may not: what
// is done instead finds out. It logs once what is done without.
func (p *Provider) lacks(ctx context.Context, err error, without string) bool {
	var e *googleapi.Error
	if !errors.As(err, &e) || e.Code != http.StatusNotFound && e.Code != http.StatusMethodNotAllowed && e.Code != http.StatusNotImplemented {
		return false
	}
	if _, logged := p.lacking.LoadOrStore(without, true); !logged {
		p.log.WarnContext(ctx, "the server lacks a method: "+without, "status", e.Code)
	}
	return true
}

// absent says that exactly the resource of that name does not exist: not its zone or project, whose absence is told alike.
func absent(err error, name string) bool {
	var e *googleapi.Error
	return saying(err, http.StatusNotFound, "notFound") && errors.As(err, &e) && (strings.Contains(e.Message, name) || !strings.Contains(e.Message, "projects/"))
}

// saying tells whether the API itself answered with that status and reason. An answer without a message of the API's form
// may be of a proxy; one of that form may lack the reason.
func saying(err error, status int, reason string) bool {
	var e *googleapi.Error
	return errors.As(err, &e) && e.Code == status && e.Message != "" && (reasonOf(e) == reason || len(e.Errors) == 0)
}

func retryAfter(h http.Header) time.Duration {
	if seconds, err := strconv.Atoi(h.Get("Retry-After")); err == nil && seconds > 0 {
		return min(time.Duration(seconds)*time.Second, 10*time.Minute)
	}
	return throttledFor
}

// opFailed turns the error of an operation that is done into one of a kind.
func opFailed(verb string, o *compute.Operation) error {
	if o.Error == nil || len(o.Error.Errors) == 0 {
		if o.HttpErrorStatusCode != 0 {
			return provider.Errorf(provider.Unknown, "gce: cannot %s: %s", verb, public(o.HttpErrorMessage))
		}
		return nil
	}
	first := o.Error.Errors[0]
	return provider.Errorf(codeKind(first.Code, o.HttpErrorStatusCode), "gce: cannot %s: %s: %s", verb, first.Code, public(first.Message))
}

// codeKind says what the code of an operation's error asks for
// (https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-vm-creation, resource availability, quota errors).
func codeKind(code string, status int64) provider.Kind {
	switch {
	case strings.Contains(code, "RATE_LIMIT"):
		return provider.RateLimited
	case strings.Contains(code, "QUOTA"):
		return provider.QuotaExceeded
	case strings.Contains(code, "RESOURCE_POOL_EXHAUSTED"), strings.Contains(code, "STOCKOUT"), strings.Contains(code, "IP_SPACE_EXHAUSTED"), code == "RESOURCE_AVAILABILITY":
		return provider.NoCapacity
	case strings.Contains(code, "PERMISSION"), code == "FORBIDDEN":
		return provider.Unauthorized
	case strings.HasPrefix(code, "INVALID_"), strings.HasPrefix(code, "UNSUPPORTED_"), code == "RESOURCE_NOT_FOUND", code == "CONDITION_NOT_MET", code == "BAD_REQUEST",
		code == "REQUIRED":
		return provider.Invalid
	}
	if status == http.StatusBadRequest {
		return provider.Invalid
	}
	return provider.Unknown
}
