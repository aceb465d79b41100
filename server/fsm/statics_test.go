package fsm

import (
	"bytes"
	"testing"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// TestStaticNamesAreRegistered: whoever comes first has a name, a zone's static record or anybody else, also after a restore;
// and it is free when that is gone.
func TestStaticNamesAreRegistered(t *testing.T) {
	static := func(names ...string) *provisionrv1.Object { return zone("default", "provisionr.internal", names...) }
	withEndpoint := pool("a", 1)
	withEndpoint.GetPool().Spec.Endpoints = []*provisionrv1.PoolEndpoint{{Service: "http", Port: 80}}
	for _, tt := range []struct{ kind, name string }{
		{"pool", "a"}, {"alias", "web"}, {"slot", "a-2"}, {"endpoint", "_http._tcp.a"}, {"record", "x.y"}, {"member", "ns-s9"},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			claim := func(w *world) []Result {
				switch tt.kind {
				case "alias":
					return w.apply(put(pool("a", 2, "web")))
				case "endpoint":
					return w.apply(put(withEndpoint))
				case "record":
					return w.apply(put(withRecords(pool("a", 1), textRecord("x.y", "1"))))
				case "member":
					return w.apply(putServer("s9"))
				}
				return w.apply(put(pool("a", 2)))
			}
			release := func(w *world) {
				if tt.kind == "member" {
					w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_RemoveMember{RemoveMember: &raftlogv1.RemoveMember{Name: "s9"}}})
					return
				}
				w.must(remove("pools", "a"))
			}
			restored := func(w *world) *world {
				again := newWorld(t)
				if err := again.fsm.Restore(bytes.NewReader(w.snapshot())); err != nil {
					t.Fatal(err)
				}
				again.index = w.index
				return again
			}

			first := initialised(t)
			first.must(put(static("before", tt.name, "z")))
			for _, w := range []*world{first, restored(first)} {
				if r := claim(w); r[0].Err == nil || r[0].Err.Kind != errs.Conflict {
					t.Fatalf("%s beside a static record: %v", tt.name, r[0].Err)
				}
				if owner := w.store.Read().NameOwner("default", tt.name); owner == nil || owner.Kind != state.OwnerZone {
					t.Fatalf("%s is of %v", tt.name, owner)
				}
				w.must(put(static("before", "z")))
				if r := claim(w); r[0].Err != nil {
					t.Fatalf("%s is not free after the static record went: %v", tt.name, r[0].Err)
				}
			}

			second := initialised(t)
			if r := claim(second); r[0].Err != nil {
				t.Fatal(r[0].Err)
			}
			for _, w := range []*world{second, restored(second)} {
				w.refuse(errs.Conflict, put(static("before", tt.name, "z")))
				if w.store.Read().NameOwner("default", "before") != nil {
					t.Fatal("a refused zone has names")
				}
				// Another zone has names of its own.
				w.must(put(zone("other", "other.internal", "before", "z", "a")))
				release(w)
				w.must(put(static("before", tt.name, "z")))
			}
			// Within one command, what goes first makes room.
			second.must(put(static("before"), pool("before-2", 1)))
			second.must(put(static("z"), pool("before", 1)))
			second.refuse(errs.Conflict, put(static("z", "before")))
		})
	}
}

// TestNewZoneBesideServers: a new zone has no record of a server's name either.
func TestNewZoneBesideServers(t *testing.T) {
	w := initialised(t)
	w.must(putServer("s1"))
	w.refuse(errs.Conflict, put(zone("z", "z.internal", "a", "ns-s1")))
	w.must(put(zone("z", "z.internal", "a", "ns-s2")))
	w.refuse(errs.Conflict, putServer("s2"))
	w.must(remove("zones", "z"))
	w.must(putServer("s2"))
}
