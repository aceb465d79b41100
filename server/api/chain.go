package api

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/auth"
)

// chain is what every call passes, from outside in: a defect is caught, the caller authorised, the request validated.
type chain struct {
	door     *auth.Door
	validate protovalidate.Validator
	logger   *slog.Logger
}

func newChain(door *auth.Door, logger *slog.Logger) (*chain, error) {
	v, err := protovalidate.New()
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot make validator: %w", err)
	}
	return &chain{door: door, validate: v, logger: logger}, nil
}

func (c *chain) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, c.defect(ctx, info.FullMethod, p)
		}
	}()
	resp, err = c.door.Unary(ctx, req, info, func(ctx context.Context, req any) (any, error) {
		if err := c.check(req); err != nil {
			return nil, err
		}
		return handler(ctx, req)
	})
	return resp, c.kinded(ctx, info.FullMethod, err)
}

func (c *chain) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.defect(ss.Context(), info.FullMethod, p)
		}
	}()
	err = c.door.Stream(srv, ss, info, func(srv any, ss grpc.ServerStream) error {
		return handler(srv, &checked{ServerStream: ss, chain: c})
	})
	return c.kinded(ss.Context(), info.FullMethod, err)
}

// checked is a stream whose requests are validated.
type checked struct {
	grpc.ServerStream
	chain *chain
}

func (s *checked) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.chain.check(m)
}

// check applies the rules annotated in the .proto files to a request, the objects of manifests within it included.
func (c *chain) check(req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return errs.New(errs.Internal, "cannot validate a %T", req)
	}
	// Manifests first get their defaults, and are checked by the rules that people know from the command line.
	if manifest, ok := req.(interface{ GetObjects() []*provisionrv1.Object }); ok {
		if err := prepare(manifest.GetObjects()); err != nil {
			return err
		}
	}
	err := c.validate.Validate(m)
	var invalid *protovalidate.ValidationError
	if errors.As(err, &invalid) {
		return errs.New(errs.Invalid, "cannot accept request: %s", violations(invalid))
	}
	if err != nil {
		return errs.New(errs.Internal, "cannot validate request: %w", err)
	}
	return nil
}

// maxViolations bounds how many are named in one error.
const maxViolations = 10

func violations(e *protovalidate.ValidationError) string {
	var text string
	for i, v := range e.Violations {
		if i > 0 {
			text += "; "
		}
		if i == maxViolations {
			return text + "and more"
		}
		if path := protovalidate.FieldPathString(v.Proto.GetField()); path != "" {
			text += path + ": "
		}
		text += v.Proto.GetMessage()
	}
	return text
}

// kinded gives errors that have no kind the kind internal, and logs what they said: it may be about our insides.
func (c *chain) kinded(ctx context.Context, method string, err error) error {
	var own *errs.Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	if _, ok := status.FromError(err); ok {
		return errs.FromRPC(err)
	}
	kind := errs.KindOf(err)
	if kind != errs.Internal {
		return errs.New(kind, "cannot finish the call: %w", err)
	}
	c.logger.LogAttrs(ctx, slog.LevelError, "call failed", slog.String("method", method), slog.String("error", err.Error()))
	return errs.New(errs.Internal, "internal error").WithHint("the server's log has the cause")
}

// defect turns a panic of one call into its error, so that one defect does not take the server with it.
func (c *chain) defect(ctx context.Context, method string, p any) error {
	c.logger.LogAttrs(ctx, slog.LevelError, "call panicked", slog.String("method", method),
		slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
	return errs.New(errs.Internal, "internal error").WithHint("the server's log has the cause")
}
