package api

import (
	"context"

	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

type eventService struct {
	provisionrv1.UnimplementedEventServiceServer
	*base
}

const (
	defaultEvents = 100
	maxEvents     = 10000
)

func (s *eventService) ListEvents(ctx context.Context, req *provisionrv1.ListEventsRequest) (*provisionrv1.ListEventsResponse, error) {
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	events, err := newest(snapshot, req)
	if err != nil {
		return nil, err
	}
	return &provisionrv1.ListEventsResponse{Events: events, Version: snapshot.Version()}, nil
}

// newest returns the newest matching events, oldest first.
func newest(snapshot *state.Snapshot, req *provisionrv1.ListEventsRequest) ([]*provisionrv1.Event, error) {
	limit := int(req.Limit)
	switch {
	case limit == 0:
		limit = defaultEvents
	case limit > maxEvents:
		return nil, errs.New(errs.Invalid, "cannot list events: limit is above %d", maxEvents)
	}
	var events []*provisionrv1.Event
	for e := range snapshot.Events(req.After) {
		if matches(e, req) {
			events = append(events, e)
		}
	}
	return events[max(0, len(events)-limit):], nil
}

func matches(e *provisionrv1.Event, req *provisionrv1.ListEventsRequest) bool {
	return (req.Pool == "" || e.GetPool() == req.Pool) &&
		(req.Machine == "" || e.GetMachine() == req.Machine || e.GetSlot() == req.Machine)
}

// WatchEvents begins with what ListEvents answers, and goes on with what happens. It ends with an error after a
// restore, for the history before is another one then.
func (s *eventService) WatchEvents(req *provisionrv1.ListEventsRequest, stream grpc.ServerStreamingServer[provisionrv1.Event]) error {
	ctx := stream.Context()
	if _, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER); err != nil {
		return err
	}
	leave, err := s.enterWatch()
	if err != nil {
		return err
	}
	defer leave()
	changed := s.State.Watch(state.TableEvents)
	snapshot := s.State.Read()
	first, err := newest(snapshot, req)
	if err != nil {
		return err
	}
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	for _, e := range first {
		if err := stream.Send(e); err != nil {
			return err
		}
	}
	began := snapshot.Version()
	seen := max(began.GetIndex(), req.After)
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		changed = s.State.Watch(state.TableEvents)
		snapshot = s.State.Read()
		if snapshot.Version().GetIncarnation() != began.GetIncarnation() {
			return errs.New(errs.Conflict, "cannot follow events further: the state was restored from a snapshot").
				WithHint("list the events anew")
		}
		for e := range snapshot.Events(seen) {
			if matches(e, req) {
				if err := stream.Send(e); err != nil {
					return err
				}
			}
		}
		seen = max(seen, snapshot.Version().GetIndex())
	}
}
