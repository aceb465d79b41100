package auth

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// recheckEvery is how long a stream may run on a credential before it is checked again.
const recheckEvery = 5 * time.Second

// Unary authorises and audits calls of one request and one answer.
func (d *Door) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := d.enter(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	resp, err := handler(ctx, req)
	d.audit(ctx, info.FullMethod, err)
	return resp, err
}

// Stream authorises and audits streams. A stream whose caller loses the right to it ends at the next message.
func (d *Door) Stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := d.enter(ss.Context(), info.FullMethod); err != nil {
		return err
	}
	err := handler(srv, &guarded{ServerStream: ss, door: d, method: info.FullMethod, checked: d.config.Now()})
	d.audit(ss.Context(), info.FullMethod, err)
	return err
}

func (d *Door) enter(ctx context.Context, method string) error {
	if d.public[method] {
		return nil
	}
	err := d.authorise(CallerOf(ctx), method)
	if err != nil {
		d.refused(ctx, method, err)
	}
	return err
}

// guarded is a stream that checks the caller again now and then.
type guarded struct {
	grpc.ServerStream
	door   *Door
	method string

	mu      sync.Mutex
	checked time.Time
}

func (g *guarded) SendMsg(m any) error {
	if err := g.recheck(); err != nil {
		return err
	}
	return g.ServerStream.SendMsg(m)
}

func (g *guarded) RecvMsg(m any) error {
	if err := g.recheck(); err != nil {
		return err
	}
	return g.ServerStream.RecvMsg(m)
}

func (g *guarded) recheck() error {
	session := FromContext(g.Context())
	if session == nil {
		return nil // A public method: enter let it in.
	}
	g.mu.Lock()
	now := g.door.config.Now()
	due := now.Sub(g.checked) >= recheckEvery
	if due {
		g.checked = now
	}
	g.mu.Unlock()
	if !due {
		return nil
	}
	caller, err := session.check()
	if err == nil {
		err = g.door.authorise(caller, g.method)
	}
	return err
}

// audit logs calls that need more than the role viewer, and those that anybody may make.
func (d *Door) audit(ctx context.Context, method string, err error) {
	if d.roles[method] == provisionrv1.Role_ROLE_VIEWER {
		return
	}
	outcome := "ok"
	if err != nil {
		outcome = string(errs.KindOf(errs.FromRPC(err)))
	}
	d.config.Logger.LogAttrs(ctx, slog.LevelInfo, "call", append(who(ctx), slog.String("method", method), slog.String("outcome", outcome))...)
}

func (d *Door) refused(ctx context.Context, method string, err error) {
	d.config.Logger.LogAttrs(ctx, slog.LevelWarn, "call refused", append(who(ctx),
		slog.String("method", method), slog.String("outcome", string(errs.KindOf(err))), slog.String("error", err.Error()))...)
}

func who(ctx context.Context) []slog.Attr {
	session := FromContext(ctx)
	if session == nil {
		return []slog.Attr{slog.String("caller", "")}
	}
	return []slog.Attr{
		slog.String("caller", session.Caller.GetName()),
		slog.String("kind", session.Caller.GetKind()),
		slog.String("role", roleName(session.Caller.GetRole())),
		slog.String("credential", session.Credential),
	}
}
