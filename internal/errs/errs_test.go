package errs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"google.golang.org/grpc/status"

	"github.com/provisionr/provisionr/internal/errs"
)

func TestErrorCrossesRPC(t *testing.T) {
	for _, kind := range []errs.Kind{
		errs.Invalid, errs.NotFound, errs.Exists, errs.Conflict, errs.Unauthenticated, errs.Denied, errs.Unavailable,
		errs.Exhausted, errs.Timeout, errs.Canceled, errs.Unsupported, errs.Internal,
	} {
		sent := errs.New(kind, "cannot do %s", "it").WithHint("do it otherwise")
		got := errs.FromRPC(status.ErrorProto(sent.GRPCStatus().Proto()))
		if errs.KindOf(got) != kind || got.Error() != "cannot do it" || errs.HintOf(got) != "do it otherwise" {
			t.Errorf("%s came back as %s %q hint %q", kind, errs.KindOf(got), got, errs.HintOf(got))
		}
	}
	if errs.FromRPC(nil) != nil {
		t.Error("nil did not stay nil")
	}
}

func TestKindOf(t *testing.T) {
	wrapped := fmt.Errorf("outer: %w", errs.New(errs.Conflict, "cannot write: %w", io.ErrShortWrite).WithHint("hint"))
	if !errs.Is(wrapped, errs.Conflict) || errs.HintOf(wrapped) != "hint" || !errors.Is(wrapped, io.ErrShortWrite) {
		t.Errorf("a wrapped error lost its kind, hint or cause: %v", wrapped)
	}
	for err, want := range map[error]errs.Kind{
		context.DeadlineExceeded: errs.Timeout, context.Canceled: errs.Canceled, io.EOF: errs.Internal,
	} {
		if got := errs.KindOf(err); got != want {
			t.Errorf("KindOf(%v) = %s, want %s", err, got, want)
		}
	}
	if errs.KindOf(nil) != "" || errs.Is(nil, "") {
		t.Error("nil has a kind")
	}
}
