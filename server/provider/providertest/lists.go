package providertest

import (
	"maps"
	"slices"
	"testing"

	"github.com/provisionr/provisionr/server/provider"
)

// fill makes many machines without the provider, and waits until they are listed.
func (r *run) fill(t *testing.T, p provider.Provider) (ids []string, empty func()) {
	t.Helper()
	ids, empty = r.Cloud.Fill(t, r.cluster, r.Many)
	slices.Sort(ids)
	if len(ids) != r.Many {
		t.Fatalf("Fill made %d machines instead of %d", len(ids), r.Many)
	}
	r.until(t, p, "all machines are listed", func(all map[string]provider.Instance) bool { return len(all) == len(ids) })
	return ids, empty
}

func (r *run) pagination(t *testing.T, p provider.Provider) {
	ids, empty := r.fill(t, p)
	defer empty()
	for _, by := range []provider.Provider{p, r.New(t, r.cluster), p} {
		all := r.list(t, by)
		if got := slices.Sorted(maps.Keys(all)); !slices.Equal(got, ids) {
			t.Errorf("%d of %d machines listed", len(got), len(ids))
		}
		seen := map[string]bool{}
		for _, i := range all {
			if i.ProviderID == "" || seen[i.ProviderID] {
				t.Fatalf("two machines are %q", i.ProviderID)
			}
			seen[i.ProviderID] = true
		}
	}
	for range p.List(t.Context()) {
		break
	}
	if all := r.list(t, r.New(t, r.cluster+"x")); len(all) != 0 {
		t.Errorf("another cluster sees %d machines", len(all))
	}
	if page := p.Capabilities().ListPage; r.Cloud.Calls != nil && page > 0 {
		before := r.Cloud.Calls()
		r.list(t, p)
		// One more may find that there is nothing more, and a few list what machines left behind.
		if calls, most := r.Cloud.Calls()-before, uint64(len(ids)/page+6); calls > most {
			t.Errorf("listing %d machines took %d calls, more than %d for pages of %d", len(ids), calls, most, page)
		}
	}
}

// brokenList fails in the midst of its pages: an error must say that it is not complete.
func (r *run) brokenList(t *testing.T, p provider.Provider) {
	_, empty := r.fill(t, p)
	defer empty()
	for skip := range 3 {
		r.Cloud.Fail(t, skip, -1)
		var last error
		n := 0
		for _, err := range p.List(t.Context()) {
			if last != nil {
				t.Error("a list went on after its error")
			}
			last = err
			n++
		}
		r.Cloud.Fail(t, 0, 0)
		if last == nil {
			// With all pages read by then, there was nothing to fail.
			if skip == 0 || n < r.Many {
				t.Errorf("a list that failed after %d calls yielded %d of %d machines and looks complete", skip, n, r.Many)
			}
			return
		}
		wants(t, "a list that failed", last, provider.Unknown)
	}
}

func (r *run) orphanSweep(t *testing.T, p provider.Provider) {
	id := "m-" + random(16)
	r.removeAtEnd(t, p, id)
	r.Cloud.Leftover(t, r.cluster, id)
	r.until(t, p, "what is left of a machine is listed", func(all map[string]provider.Instance) bool {
		return len(all) == 1 && all[id].State == provider.Stopped
	})
	other := r.New(t, r.cluster+"x")
	if all := r.list(t, other); len(all) != 0 {
		t.Errorf("another cluster sees %v", all)
	}
	if err := other.Terminate(t.Context(), id, ""); err != nil {
		t.Errorf("Terminate by another cluster: %v", err)
	}
	r.until(t, p, "another cluster deletes nothing", func(all map[string]provider.Instance) bool { return len(all) == 1 })
	r.terminate(t, p, provider.Instance{MachineID: id})
}

func (r *run) duplicates(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	id := request.Request.GetMachineId()
	first := r.launch(t, p, request)
	both := func() (list []provider.Instance) {
		r.Cloud.Duplicate(t, r.cluster, id)
		r.eventually(t, "both instances are listed", func() (bool, any) {
			list = r.instances(t, p)
			return len(list) == 2 && list[0].MachineID == id && list[1].MachineID == id, list
		})
		return list
	}
	if list := both(); list[0].ProviderID == list[1].ProviderID {
		t.Fatalf("both instances are %s", list[0].ProviderID)
	}
	if again := r.launch(t, p, request); again.MachineID != id || len(r.instances(t, p)) != 2 {
		t.Errorf("a launch made a third instance: %v", r.instances(t, p))
	}
	prune := func(keep provider.Instance) {
		t.Helper()
		for range 2 {
			if err := p.Prune(t.Context(), id, keep.ProviderID); err != nil {
				t.Fatalf("Prune: %v", err)
			}
		}
		r.eventually(t, "just the instance to keep is there", func() (bool, any) {
			list := r.instances(t, p)
			return len(list) == 1 && list[0].ProviderID == keep.ProviderID, list
		})
	}
	prune(first)
	list := both()
	second := list[slices.IndexFunc(list, func(i provider.Instance) bool { return i.ProviderID != first.ProviderID })]
	prune(second)
	both()
	if err := p.Terminate(t.Context(), id, second.ProviderID); err != nil {
		t.Fatalf("Terminate: %v", err)
	}
	r.eventually(t, "no duplicate outlives its machine", func() (bool, any) {
		list := r.instances(t, p)
		return len(list) == 0, list
	})
}
