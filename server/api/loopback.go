package api

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/provisionr/provisionr/internal/errs"
)

// loopback is a grpc.ClientConnInterface whose server is in the same process: the gateway calls the services through
// it. Calls run through the same interceptors as those from outside and keep their context, so that the caller's
// session, which auth put there, arrives without ever being text that somebody could forge.
type loopback struct {
	chain   *chain
	methods map[string]method
	streams map[string]stream
}

type method struct {
	impl any
	desc grpc.MethodDesc
}

type stream struct {
	impl any
	desc grpc.StreamDesc
}

func newLoopback(c *chain) *loopback {
	return &loopback{chain: c, methods: make(map[string]method), streams: make(map[string]stream)}
}

// RegisterService is for use before the first call.
func (l *loopback) RegisterService(desc *grpc.ServiceDesc, impl any) {
	for _, m := range desc.Methods {
		l.methods["/"+desc.ServiceName+"/"+m.MethodName] = method{impl, m}
	}
	for _, s := range desc.Streams {
		l.streams["/"+desc.ServiceName+"/"+s.StreamName] = stream{impl, s}
	}
}

// Invoke calls a method of one request and one answer.
func (l *loopback) Invoke(ctx context.Context, name string, args, reply any, _ ...grpc.CallOption) error {
	m, ok := l.methods[name]
	if !ok {
		return errs.New(errs.Unsupported, "cannot call %s: no such method", name)
	}
	resp, err := m.desc.Handler(m.impl, ctx, func(into any) error { return share(into, args) }, l.chain.unary)
	if err != nil {
		return err
	}
	return share(reply, resp)
}

// NewStream calls a method that answers with a stream; streams from the client have no REST form.
func (l *loopback) NewStream(ctx context.Context, _ *grpc.StreamDesc, name string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	s, ok := l.streams[name]
	if !ok || s.desc.ClientStreams {
		return nil, errs.New(errs.Unsupported, "cannot call %s: no such method over REST", name)
	}
	p := &pipe{
		ctx: ctx, request: make(chan any, 1), messages: make(chan any),
		begun: make(chan struct{}), done: make(chan struct{}),
	}
	info := &grpc.StreamServerInfo{FullMethod: name, IsServerStream: true}
	// The goroutine ends with the handler, which the gateway's cancelled context ends at the latest.
	go func() {
		defer close(p.done)
		p.err = l.chain.stream(s.impl, &pipeServer{p}, info, s.desc.Handler)
	}()
	return p, nil
}

// share makes to another view of what from holds: top-level fields are copied, what they point to is shared.
// Both sides only read from then on.
func share(to, from any) error {
	dst, okTo := to.(proto.Message)
	src, okFrom := from.(proto.Message)
	if !okTo || !okFrom || dst.ProtoReflect().Descriptor() != src.ProtoReflect().Descriptor() {
		return errs.New(errs.Internal, "cannot pass %T as %T", from, to)
	}
	into := dst.ProtoReflect()
	src.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		into.Set(f, v)
		return true
	})
	return nil
}

// pipe is the client's end of a stream of answers. It holds no message: the server waits until each is taken.
type pipe struct {
	ctx      context.Context
	request  chan any
	messages chan any
	// begun is closed when the server sends its headers or first message, done when its handler has returned with err.
	begun, done chan struct{}
	once        sync.Once
	err         error
}

func (p *pipe) begin() { p.once.Do(func() { close(p.begun) }) }

// Header waits until the stream has begun, so that a call that is refused at once is answered with a plain error.
func (p *pipe) Header() (metadata.MD, error) {
	select {
	case <-p.begun:
		return nil, nil
	case <-p.done:
		return nil, p.err
	case <-p.ctx.Done():
		return nil, p.ctx.Err()
	}
}

func (p *pipe) Trailer() metadata.MD     { return nil }
func (p *pipe) CloseSend() error         { close(p.request); return nil }
func (p *pipe) Context() context.Context { return p.ctx }

func (p *pipe) SendMsg(m any) error {
	select {
	case p.request <- m:
		return nil
	case <-p.done:
		return io.EOF
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

func (p *pipe) RecvMsg(m any) error {
	select {
	case got := <-p.messages:
		return share(m, got)
	case <-p.done:
		if p.err == nil {
			return io.EOF
		}
		return p.err
	}
}

// pipeServer is the server's end.
type pipeServer struct{ p *pipe }

func (s *pipeServer) SetHeader(metadata.MD) error  { return nil }
func (s *pipeServer) SendHeader(metadata.MD) error { s.p.begin(); return nil }
func (s *pipeServer) SetTrailer(metadata.MD)       {}
func (s *pipeServer) Context() context.Context     { return s.p.ctx }

func (s *pipeServer) SendMsg(m any) error {
	s.p.begin()
	select {
	case s.p.messages <- m:
		return nil
	case <-s.p.ctx.Done():
		return s.p.ctx.Err()
	}
}

func (s *pipeServer) RecvMsg(m any) error {
	select {
	case got, ok := <-s.p.request:
		if !ok {
			return io.EOF
		}
		return share(m, got)
	case <-s.p.ctx.Done():
		return s.p.ctx.Err()
	}
}
