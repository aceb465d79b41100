package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Kind is the decision that an error of a provider asks for.
type Kind string

// The kinds. Every error that is not an *Error counts as Unknown.
const (
	// NotFound: what the call names does not exist. Terminate never returns it.
	NotFound Kind = "not_found"
	// NoCapacity: the provider has no room for such a machine now. Try again later or elsewhere.
	NoCapacity Kind = "no_capacity"
	// QuotaExceeded: the account's limit is reached. Try again later; a person may have to act.
	QuotaExceeded Kind = "quota_exceeded"
	// RateLimited: too many calls. Try again after Error.After.
	RateLimited Kind = "rate_limited"
	// Unauthorized: the credentials are refused. A person has to act.
	Unauthorized Kind = "unauthorized"
	// Invalid: the request can never succeed as it is.
	Invalid Kind = "invalid"
	// Unknown: nothing is known about the outcome: the call may have acted.
	Unknown Kind = "unknown"
)

// errorDomain marks our error details on the wire (google.rpc.ErrorInfo.domain).
const errorDomain = "provider.provisionr"

var codeOf = map[Kind]codes.Code{
	NotFound: codes.NotFound, NoCapacity: codes.ResourceExhausted, QuotaExceeded: codes.ResourceExhausted,
	RateLimited: codes.ResourceExhausted, Unauthorized: codes.PermissionDenied, Invalid: codes.InvalidArgument,
	Unknown: codes.Unavailable,
}

// Error is an error with the decision that it asks for. Message is lower case, without a full stop and without secrets.
type Error struct {
	Kind    Kind
	Message string
	// After is how long to wait before the next call; zero leaves it to the caller.
	After time.Duration
	// Err is the cause, which Message already includes; it may be nil and does not cross RPC.
	Err error
}

// Errorf makes an error of a kind; format may wrap a cause with %w.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: err.Error(), Err: errors.Unwrap(err)}
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus lets gRPC carry the error with its kind and wait.
func (e *Error) GRPCStatus() *status.Status {
	code, ok := codeOf[e.Kind]
	if !ok {
		code = codes.Unknown
	}
	s := status.New(code, e.Message)
	with, err := s.WithDetails(&errdetails.ErrorInfo{Reason: string(e.Kind), Domain: errorDomain})
	if err != nil {
		return s
	}
	if e.After > 0 {
		if after, err := with.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.After)}); err == nil {
			with = after
		}
	}
	return with
}

// KindOf returns the kind of err: Unknown for every error that is not of this package, "" for nil.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Kind
	}
	return Unknown
}

// AfterOf returns how long err asks to wait, or zero.
func AfterOf(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.After
	}
	return 0
}

// FromRPC turns an error that came over gRPC back into an *Error. What carries no kind of ours, a broken connection for
// one, is Unknown. Nil stays nil; context errors keep their identity for errors.Is.
func FromRPC(err error) error {
	if err == nil {
		return nil
	}
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	s := status.Convert(err)
	e := &Error{Kind: Unknown, Message: s.Message(), Err: err}
	switch s.Code() {
	case codes.Canceled:
		e.Err = context.Canceled
	case codes.DeadlineExceeded:
		e.Err = context.DeadlineExceeded
	}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if _, ok := codeOf[Kind(d.GetReason())]; ok && d.GetDomain() == errorDomain {
				e.Kind = Kind(d.GetReason())
			}
		case *errdetails.RetryInfo:
			e.After = max(0, d.GetRetryDelay().AsDuration())
		}
	}
	return e
}
