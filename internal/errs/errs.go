// Package errs is the one kinded error of Provisionr: it crosses RPC unchanged and carries a hint for the person
// at the terminal.
//
// A kind says what a caller can do about the error; code decides on kinds with [Is] or [KindOf], never on messages.
package errs

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Kind says what a caller can do about an error.
type Kind string

// The kinds, each with the gRPC code that it travels as.
const (
	// Invalid input: correct it.
	Invalid Kind = "invalid"
	// NotFound: the object does not exist.
	NotFound Kind = "not_found"
	// Exists: an object of that name exists already.
	Exists Kind = "exists"
	// Conflict: the object changed or is in a state that forbids it: read it again.
	Conflict Kind = "conflict"
	// Unauthenticated: no or bad credentials.
	Unauthenticated Kind = "unauthenticated"
	// Denied: the caller may not do that.
	Denied Kind = "denied"
	// Unavailable: nothing wrong with the request; try again later.
	Unavailable Kind = "unavailable"
	// Exhausted: a stated bound or quota is reached.
	Exhausted Kind = "exhausted"
	// Timeout: the deadline passed; the outcome is unknown.
	Timeout Kind = "timeout"
	// Canceled by the caller.
	Canceled Kind = "canceled"
	// Unsupported: this provider, system or version cannot do that.
	Unsupported Kind = "unsupported"
	// Internal: a defect or a broken invariant.
	Internal Kind = "internal"
)

var codeOf = map[Kind]codes.Code{
	Invalid: codes.InvalidArgument, NotFound: codes.NotFound, Exists: codes.AlreadyExists, Conflict: codes.FailedPrecondition,
	Unauthenticated: codes.Unauthenticated, Denied: codes.PermissionDenied, Unavailable: codes.Unavailable,
	Exhausted: codes.ResourceExhausted, Timeout: codes.DeadlineExceeded, Canceled: codes.Canceled,
	Unsupported: codes.Unimplemented, Internal: codes.Internal,
}

// Error is an error with a kind and perhaps a hint. Message is lower case, without a full stop.
type Error struct {
	Kind    Kind
	Message string
	// Hint says what the person can do about it; it may be empty.
	Hint string
	// Err is the cause, which Message already includes; it may be nil and does not cross RPC.
	Err error
}

// New makes an error of a kind; format may wrap a cause with %w.
func New(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: err.Error(), Err: errors.Unwrap(err)}
}

// WithHint returns a copy of e with the hint.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus lets gRPC carry the error: kind as code, hint as a Help detail.
func (e *Error) GRPCStatus() *status.Status {
	s := status.New(codeOf[e.Kind], e.Message)
	if e.Hint == "" {
		return s
	}
	if with, err := s.WithDetails(&errdetails.Help{Links: []*errdetails.Help_Link{{Description: e.Hint}}}); err == nil {
		return with
	}
	return s
}

// FromRPC turns an error that came over gRPC back into an *Error; nil stays nil.
func FromRPC(err error) error {
	if err == nil {
		return nil
	}
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	s := status.Convert(err)
	e := &Error{Kind: Internal, Message: s.Message(), Err: err}
	for kind, code := range codeOf {
		if code == s.Code() {
			e.Kind = kind
		}
	}
	for _, d := range s.Proto().GetDetails() {
		var help errdetails.Help
		if d.MessageIs(&help) && proto.Unmarshal(d.Value, &help) == nil && len(help.Links) > 0 {
			e.Hint = help.Links[0].Description
		}
	}
	return e
}

// KindOf returns the kind of err; a plain error is Internal, a context error Timeout or Canceled, nil is "".
func KindOf(err error) Kind {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Internal
}

// Is reports whether err is of the kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// HintOf returns the hint of the outermost error that has one.
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}

// HTTPStatus returns the status code for the kind (google.rpc.Code mapping).
func (k Kind) HTTPStatus() int {
	switch k {
	case Invalid:
		return http.StatusBadRequest
	case NotFound:
		return http.StatusNotFound
	case Exists, Conflict:
		return http.StatusConflict
	case Unauthenticated:
		return http.StatusUnauthorized
	case Denied:
		return http.StatusForbidden
	case Unavailable:
		return http.StatusServiceUnavailable
	case Exhausted:
		return http.StatusTooManyRequests
	case Timeout:
		return http.StatusGatewayTimeout
	case Unsupported:
		return http.StatusNotImplemented
	}
	return http.StatusInternalServerError
}
