package link

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// callTimeout bounds a call that is not a stream.
const callTimeout = 30 * time.Second

// Linked reports whether there is a session.
func (l *Link) Linked() bool { return l.client.Load() != nil }

func (l *Link) current() (agentv1.AgentServiceClient, error) {
	if c := l.client.Load(); c != nil {
		return *c, nil
	}
	return nil, errs.New(errs.Unavailable, "there is no session with a server")
}

// call makes a call on the session's connection.
func call[Q, R any](ctx context.Context, l *Link, method func(agentv1.AgentServiceClient, context.Context, Q, ...grpc.CallOption) (R, error), request Q) (R, error) {
	c, err := l.current()
	if err != nil {
		return *new(R), err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := method(c, ctx, request)
	if err != nil {
		return *new(R), errs.FromRPC(err)
	}
	return r, nil
}

// Secrets returns the values of secrets, in order.
func (l *Link) Secrets(ctx context.Context, refs []*agentv1.SecretRef) ([][]byte, error) {
	r, err := call(ctx, l, agentv1.AgentServiceClient.Secrets, &agentv1.SecretsRequest{Secrets: refs})
	return r.GetValues(), err
}

// CertifyHost implements desired.HostCertifier.
func (l *Link) CertifyHost(ctx context.Context, keys []string) (certs []string, renewAt time.Time, err error) {
	r, err := call(ctx, l, agentv1.AgentServiceClient.CertifyHost, &agentv1.CertifyHostRequest{PublicKeys: keys})
	if err == nil && len(r.Certificates) != len(keys) {
		err = errs.New(errs.Internal, "cannot get host certificates: a server answered %d for %d keys", len(r.Certificates), len(keys))
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	return r.Certificates, r.RenewAt.AsTime(), nil
}

// Fetch streams a program: next returns io.EOF at its end.
func (l *Link) Fetch(ctx context.Context, request *agentv1.FetchRequest) (next func() (*agentv1.FetchResponse, error), err error) {
	c, err := l.current()
	if err != nil {
		return nil, err
	}
	stream, err := c.Fetch(ctx, request)
	if err != nil {
		return nil, errs.FromRPC(err)
	}
	return stream.Recv, nil
}

// Confirm asks, on a connection made for it, which ports of this machine are reached from outside. It tries every endpoint.
func (l *Link) Confirm(ctx context.Context, ports []uint32) ([]*agentv1.Reach, error) {
	var failed []error
	for _, endpoint := range l.Identity.Endpoints() {
		reached, err := l.confirmAt(ctx, endpoint, ports)
		if err == nil {
			return reached, nil
		}
		failed = append(failed, at(endpoint, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failed...)
}

func (l *Link) confirmAt(ctx context.Context, endpoint string, ports []uint32) ([]*agentv1.Reach, error) {
	conn, err := l.connect(endpoint, l.Identity.TLS)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r, err := agentv1.NewAgentServiceClient(conn).Confirm(ctx, &agentv1.ConfirmRequest{Ports: ports})
	if err != nil {
		return nil, errs.FromRPC(err)
	}
	return r.Reached, nil
}
