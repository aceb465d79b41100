package api

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

type watchService struct {
	provisionrv1.UnimplementedWatchServiceServer
	*base
}

// watchPause is the least time between two looks at the state: each costs time in proportion to what is watched.
const watchPause = 100 * time.Millisecond

// enterWatch counts a watch in; the caller must leave.
func (b *base) enterWatch() (leave func(), err error) {
	select {
	case b.watches <- struct{}{}:
		return func() { <-b.watches }, nil
	default:
		return nil, errs.New(errs.Exhausted, "cannot watch: %d watches run on this server", MaxWatches).
			WithHint("try another server, or poll")
	}
}

// Watch compares each new snapshot with what it sent before, so that a slow reader gets the newest state late, and
// never a backlog. After a restore it says relist and ends.
func (s *watchService) Watch(req *provisionrv1.WatchRequest, stream grpc.ServerStreamingServer[provisionrv1.WatchResponse]) error {
	kinds := req.Kinds
	if len(kinds) == 0 {
		kinds = []string{"pools", "machines"}
	}
	tables, err := tablesOf(kinds)
	if err != nil {
		return err
	}
	ctx := stream.Context()
	if _, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER); err != nil {
		return err
	}
	leave, err := s.enterWatch()
	if err != nil {
		return err
	}
	defer leave()
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	w := &watcher{kinds: kinds, pool: req.Pool, sent: make(map[objectKey]proto.Message), stream: stream}
	for {
		changed := s.State.Watch(tables...)
		snapshot := s.State.Read()
		if w.restored(snapshot) {
			return stream.Send(&provisionrv1.WatchResponse{Delta: &provisionrv1.WatchResponse_Relist{Relist: true}})
		}
		if err := w.send(snapshot); err != nil {
			return err
		}
		if err := next(ctx, changed); err != nil {
			return err
		}
	}
}

// next waits for a change and lets more of them gather.
func next(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-changed:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-time.After(watchPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func tablesOf(kinds []string) ([]state.Table, error) {
	var tables []state.Table
	for _, k := range kinds {
		switch k {
		case "pools":
			// A pool's status is derived from its machines.
			tables = append(tables, state.TablePools, state.TableMachines)
		case "machines":
			tables = append(tables, state.TableMachines)
		case "slots":
			tables = append(tables, state.TableSlots)
		case "events":
			tables = append(tables, state.TableEvents)
		case "members":
			tables = append(tables, state.TableMembers)
		default:
			return nil, errs.New(errs.Invalid, "cannot watch %q", k).WithHint("kinds are pools, machines, slots, events and members")
		}
	}
	return tables, nil
}

type objectKey struct{ kind, name string }

// watcher knows what one stream was sent.
type watcher struct {
	kinds  []string
	pool   string
	stream grpc.ServerStreamingServer[provisionrv1.WatchResponse]
	// sent has the row of each object as last sent; rows never change, so the same pointer is the same content.
	sent map[objectKey]proto.Message
	// events is the index until which events were sent, and version the position of the last bookmark.
	events  uint64
	version *provisionrv1.Version
}

func (w *watcher) restored(snapshot *state.Snapshot) bool {
	return w.version != nil && snapshot.Version().GetIncarnation() != w.version.GetIncarnation()
}

// send streams the difference between what was sent and the snapshot, then a bookmark.
func (w *watcher) send(snapshot *state.Snapshot) error {
	present := make(map[objectKey]bool, len(w.sent))
	for _, kind := range w.kinds {
		for name, row := range w.rows(snapshot, kind) {
			key := objectKey{kind, name}
			present[key] = true
			if same(w.sent[key], row) {
				continue
			}
			if err := w.put(row); err != nil {
				return err
			}
			w.sent[key] = row
		}
		if kind == "events" {
			if err := w.sendEvents(snapshot); err != nil {
				return err
			}
		}
	}
	for key := range w.sent {
		if present[key] {
			continue
		}
		delete(w.sent, key)
		removed := &provisionrv1.Removed{Kind: key.kind, Name: key.name}
		if err := w.stream.Send(&provisionrv1.WatchResponse{Delta: &provisionrv1.WatchResponse_Removed{Removed: removed}}); err != nil {
			return err
		}
	}
	w.version = snapshot.Version()
	return w.stream.Send(&provisionrv1.WatchResponse{Delta: &provisionrv1.WatchResponse_Bookmark{Bookmark: w.version}})
}

// rows yields the objects of a kind that the watch is about, by name.
func (w *watcher) rows(snapshot *state.Snapshot, kind string) func(func(string, proto.Message) bool) {
	return func(yield func(string, proto.Message) bool) {
		switch kind {
		case "pools":
			for p := range snapshot.Pools() {
				name := p.GetMetadata().GetName()
				if (w.pool == "" || w.pool == name) && !yield(name, withStatus(snapshot, p)) {
					return
				}
			}
		case "machines":
			for m := range snapshot.Machines() {
				if (w.pool == "" || w.pool == m.GetSpec().GetPool()) && !yield(m.GetMetadata().GetName(), m) {
					return
				}
			}
		case "slots":
			for s := range snapshot.Slots() {
				if (w.pool == "" || w.pool == s.GetPool()) && !yield(s.GetMetadata().GetName(), s) {
					return
				}
			}
		case "members":
			for m := range snapshot.Members() {
				if !yield(m.GetMetadata().GetName(), m) {
					return
				}
			}
		}
	}
}

// same compares rows by identity, and pools, which are put together at each look, by their row's version and status.
func same(a, b proto.Message) bool {
	pa, ok := a.(*provisionrv1.Pool)
	if !ok {
		return a == b
	}
	pb, ok := b.(*provisionrv1.Pool)
	return ok && pa.GetMetadata() == pb.GetMetadata() && pa.GetSpec() == pb.GetSpec() && proto.Equal(pa.GetStatus(), pb.GetStatus())
}

// sendEvents streams the events since the last look; at first, all that are kept.
func (w *watcher) sendEvents(snapshot *state.Snapshot) error {
	for e := range snapshot.Events(w.events) {
		if w.pool != "" && e.GetPool() != w.pool {
			continue
		}
		if err := w.put(e); err != nil {
			return err
		}
	}
	w.events = snapshot.Version().GetIndex()
	return nil
}

func (w *watcher) put(row proto.Message) error {
	return w.stream.Send(&provisionrv1.WatchResponse{Delta: &provisionrv1.WatchResponse_Put{Put: state.ObjectOf(row)}})
}
