package provider_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/provisionr/provisionr/server/provider"
)

func TestErrorCrossesRPC(t *testing.T) {
	for _, kind := range []provider.Kind{
		provider.NotFound, provider.NoCapacity, provider.QuotaExceeded, provider.RateLimited, provider.Unauthorized,
		provider.Invalid, provider.Unknown,
	} {
		sent := provider.Errorf(kind, "cannot launch: %w", io.ErrUnexpectedEOF)
		sent.After = 3 * time.Second
		got := provider.FromRPC(status.ErrorProto(sent.GRPCStatus().Proto()))
		if provider.KindOf(got) != kind || got.Error() != sent.Error() || provider.AfterOf(got) != sent.After {
			t.Errorf("%s came back as %s %q after %s", kind, provider.KindOf(got), got, provider.AfterOf(got))
		}
	}
}

func TestForeignErrorIsUnknown(t *testing.T) {
	for _, err := range []error{
		io.EOF, context.Canceled, status.Error(codes.NotFound, "unknown method"), status.Error(codes.Unavailable, "refused"),
	} {
		if got := provider.FromRPC(err); provider.KindOf(got) != provider.Unknown {
			t.Errorf("%v reads as %s, want unknown: it must never decide anything", err, provider.KindOf(got))
		}
	}
	if !errors.Is(provider.FromRPC(status.Error(codes.DeadlineExceeded, "late")), context.DeadlineExceeded) {
		t.Error("a deadline lost its identity")
	}
	if provider.FromRPC(nil) != nil || provider.KindOf(nil) != "" {
		t.Error("nil did not stay nil")
	}
}

func TestRegistry(t *testing.T) {
	var r provider.Registry
	if _, err := r.Provider("local"); provider.KindOf(err) != provider.Unknown {
		t.Errorf("a missing provider is %v, want unknown", err)
	}
	r.Set("local", struct{ provider.Provider }{})
	if _, err := r.Provider("local"); err != nil || len(r.Names()) != 1 {
		t.Errorf("cannot find what was set: %v, %v", err, r.Names())
	}
	r.Set("local", nil)
	if len(r.Names()) != 0 {
		t.Errorf("a removed provider is still there: %v", r.Names())
	}
}
