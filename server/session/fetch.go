package session

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// maxFetches bounds the transfers of programs in progress on this member.
	maxFetches = 32
	// fetchChunk is the size of one message, in octets: no more than the window of a connection.
	fetchChunk = 32 << 10
	// fetchTimeout bounds one transfer: who reads so slowly goes on with another, from where it got.
	fetchTimeout = 10 * time.Minute
)

// Fetch streams a program, from an offset on.
func (h *Hub) Fetch(req *agentv1.FetchRequest, stream grpc.ServerStreamingServer[agentv1.FetchResponse]) error {
	if h.cfg.Programs == nil {
		return errs.New(errs.Unsupported, "this server has no programs")
	}
	m, err := h.calling(stream.Context(), "fetch")
	if err != nil {
		return err
	}
	content, size, ok := h.cfg.Programs.Program(req.GetSha256())
	if !ok {
		return errs.New(errs.NotFound, "this server has no program with that hash").
			WithHint("servers of one cluster should be of one version: another may have it")
	}
	if req.GetOffset() > uint64(size) {
		return errs.New(errs.Invalid, "the program has %d bytes: there is nothing at %d", size, req.GetOffset())
	}
	giveBack, err := h.fetches.take(m.GetMetadata().GetName(), "transfers of programs")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(stream.Context(), fetchTimeout,
		errs.New(errs.Timeout, "the transfer took more than %s: go on with another", fetchTimeout))
	defer cancel()
	done := make(chan error, 1)
	// Returning ends the stream, and with it a Send that waits for a reader.
	go func() {
		defer giveBack()
		done <- sendProgram(stream, io.NewSectionReader(content, int64(req.GetOffset()), size-int64(req.GetOffset())), size)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func sendProgram(stream grpc.ServerStreamingServer[agentv1.FetchResponse], from io.Reader, size int64) error {
	first := true
	for {
		// A message may be kept until it is written, so each has its own room.
		chunk := make([]byte, fetchChunk)
		n, err := io.ReadFull(from, chunk)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return errs.New(errs.Internal, "cannot read the program: %w", err)
		}
		if n > 0 || first {
			m := &agentv1.FetchResponse{Data: chunk[:n]}
			if first {
				m.Size = uint64(size)
			}
			if err := stream.Send(m); err != nil {
				return err
			}
			first = false
		}
		if err != nil {
			return nil
		}
	}
}
