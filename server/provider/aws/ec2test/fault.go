package ec2test

import (
	"net/http"
	"net/url"
	"time"
)

// Call is one request, as a hook sees it before it acts.
type Call struct {
	// Action as RunInstances, GetParameter or AssumeRole.
	Action string
	// Params are the parameters as sent; of a JSON request nil.
	Params url.Values
	// N counts the calls of this action, from 1.
	N int
}

// Fault is what goes wrong with a call. The zero value lets it through.
type Fault struct {
	// Before is answered instead of acting.
	Before Failure
	// After is answered although the call has acted.
	After Failure
	// Truncate cuts a successful answer's body off after half of it and closes the connection.
	Truncate bool
	// Delay before the call acts, and Linger between its act and its answer.
	Delay, Linger time.Duration
	// Stale makes the call see the state of so long ago.
	Stale time.Duration
	// Empty makes a Describe call see nothing at all, as a replica would that has lost its data.
	Empty bool
}

// Failure is an answer that hides what the call did. The zero value is none.
type Failure struct {
	// Drop closes the connection without an answer. Code and Status do not matter then.
	Drop bool
	// Code of the error. Empty with a Status: a page of HTML, as load balancers send.
	Code string
	// Status of HTTP. Default: what is documented for the code.
	Status int
}

func (f Failure) isZero() bool { return f == Failure{} }

// Dropped closes the connection without an answer.
func Dropped() Failure { return Failure{Drop: true} }

// Throttled is the answer to too many calls.
func Throttled() Failure {
	return Failure{Code: "RequestLimitExceeded", Status: http.StatusServiceUnavailable}
}

// Unavailable is the answer of an overloaded service.
func Unavailable() Failure {
	return Failure{Code: "Unavailable", Status: http.StatusServiceUnavailable}
}

// Internal is the answer of a broken service.
func Internal() Failure {
	return Failure{Code: "InternalError", Status: http.StatusInternalServerError}
}

// BadGateway is a load balancer's page instead of an answer.
func BadGateway() Failure { return Failure{Status: http.StatusBadGateway} }
