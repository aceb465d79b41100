package providertest

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

func (r *run) capabilities(t *testing.T, p provider.Provider) {
	if a, b := p.Capabilities(), p.Capabilities(); a != b || a.UserDataLimit < 8<<10 || a.SettleWindow < 0 || a.ListPage < 0 {
		t.Errorf("capabilities %+v, then %+v", a, b)
	}
	if _, has := p.(provider.FirewallGroups); p.Capabilities().HostBound && p.Capabilities().Grouped != has {
		t.Errorf("firewall groups: %t, but other members are told the contrary", has)
	}
}

func (r *run) network(t *testing.T, p provider.Provider) {
	first, err := p.EnsureNetwork(t.Context(), proto.CloneOf(r.Network))
	if err != nil {
		t.Fatal(err)
	}
	if wanted := r.Network.GetSpec().GetCidr(); wanted != "" && first.GetCidr() != wanted || first.GetCidr() == "" {
		t.Errorf("the range %q became %q", wanted, first.GetCidr())
	}
	if first.GetManaged() != r.Network.GetSpec().GetManaged() {
		t.Errorf("managed became %t", first.GetManaged())
	}
	completed := proto.CloneOf(r.Network)
	completed.Spec = first
	second, err := p.EnsureNetwork(t.Context(), completed)
	if err != nil || !proto.Equal(first, second) {
		t.Errorf("the second call gave %v, %v, the first %v", second, err, first)
	}
}

func (r *run) absent(t *testing.T, p provider.Provider) {
	id := "m-" + random(16)
	for range 2 {
		if err := p.Terminate(t.Context(), id, ""); err != nil {
			t.Errorf("Terminate of an absent machine: %v", err)
		}
	}
	_, err := p.Console(t.Context(), id, "")
	wants(t, "Console of an absent machine", err, provider.NotFound)
}

func (r *run) cancelled(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.Launch(ctx, request)
	wants(t, "Launch with a cancelled context, of whose outcome nothing is known", err, provider.Unknown)
	complete := true
	for _, err := range p.List(ctx) {
		if err != nil {
			complete = false
		}
	}
	if complete {
		t.Error("List with a cancelled context looks complete")
	}
	if err := p.Terminate(t.Context(), request.Request.GetMachineId(), ""); err != nil {
		t.Error(err)
	}
}

func (r *run) userDataLimit(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	const begin = "#cloud-config\n#"
	request.UserData = append([]byte(begin), bytes.Repeat([]byte("x"), p.Capabilities().UserDataLimit)...)
	_, err := p.Launch(t.Context(), request)
	wants(t, "Launch with too much user-data", err, provider.Invalid)
	if len(r.list(t, p)) != 0 {
		t.Error("something was made of an invalid launch")
	}
	request.UserData = request.UserData[:p.Capabilities().UserDataLimit]
	r.once(t, p, request)
}

// life is one machine from launch to end, with everything repeated and with a provider that was restarted.
func (r *run) life(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	first := r.launch(t, p, request)
	r.only(t, p, first)
	if again := r.launch(t, p, request); again.ProviderID != first.ProviderID {
		t.Errorf("a second launch made another machine: %v and %v", first, again)
	}
	restarted := r.New(t, r.cluster)
	if adopted := r.launch(t, restarted, request); adopted.ProviderID != first.ProviderID {
		t.Errorf("a restarted provider made another machine: %v and %v", first, adopted)
	}
	for range 3 {
		if all := r.list(t, restarted); len(all) != 1 || all[first.MachineID].ProviderID != first.ProviderID {
			t.Errorf("lists differ without a change: %v", all)
		}
	}
	if address := request.Request.GetAddress(); address != "" {
		if got := r.list(t, p)[first.MachineID].Address; got.IsValid() && got.String() != address {
			t.Errorf("the machine has address %s instead of %s", got, address)
		}
	} else {
		r.until(t, p, "the machine has an address", func(all map[string]provider.Instance) bool {
			return all[first.MachineID].Address.IsValid()
		})
	}
	if text, err := p.Console(t.Context(), first.MachineID, first.ProviderID); err != nil || len(text) > 64<<10 {
		t.Errorf("Console: %d bytes, %v", len(text), err)
	}
	r.terminate(t, restarted, first)
	if err := p.Terminate(t.Context(), first.MachineID, first.ProviderID); err != nil {
		t.Errorf("a second Terminate: %v", err)
	}
}

func (r *run) concurrent(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	const calls = 4
	ids := make([]string, calls)
	var wait sync.WaitGroup
	for n := range calls {
		// The even ones are by another server that took over.
		by := p
		if n%2 == 1 {
			by = r.New(t, r.cluster)
		}
		wait.Go(func() {
			i, err := by.Launch(t.Context(), clone(request))
			if err != nil {
				t.Errorf("concurrent Launch: %v", err)
			}
			ids[n] = i.ProviderID
		})
	}
	wait.Wait()
	if len(slices.Compact(slices.Clone(ids))) != 1 {
		t.Errorf("concurrent launches made %v", ids)
	}
	i := provider.Instance{MachineID: request.Request.GetMachineId(), ProviderID: ids[0]}
	r.only(t, p, i)
	r.terminate(t, p, i)
}

// cutOff cuts a launch off while it is at work: whatever it did, the next call must end in one machine.
func (r *run) cutOff(t *testing.T, p provider.Provider) {
	for _, after := range []time.Duration{time.Millisecond, 5 * time.Millisecond, 50 * time.Millisecond} {
		request := r.request(t, p)
		ctx, cancel := context.WithTimeout(t.Context(), after)
		_, err := p.Launch(ctx, clone(request))
		cancel()
		if err != nil {
			wants(t, "a launch that was cut off", err, provider.Unknown)
		}
		second := r.launch(t, p, request)
		r.only(t, p, second)
		r.terminate(t, p, second)
	}
}

func (r *run) isolation(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	mine := r.launch(t, p, request)
	r.only(t, p, mine)
	other := r.New(t, r.cluster+"x")
	if all := r.list(t, other); len(all) != 0 {
		t.Errorf("another cluster sees %v", all)
	}
	for _, id := range []string{mine.ProviderID, ""} {
		if err := other.Terminate(t.Context(), mine.MachineID, id); err != nil {
			t.Errorf("Terminate by another cluster: %v, want success as for an absent machine", err)
		}
	}
	if _, err := other.Console(t.Context(), mine.MachineID, mine.ProviderID); err == nil {
		t.Error("another cluster reads the machine's console")
	}
	// That of an absent one must not delete it either; whether it is an error is not said.
	_ = other.Prune(t.Context(), mine.MachineID, "none")
	if again := r.launch(t, p, request); again.ProviderID != mine.ProviderID {
		t.Errorf("another cluster terminated the machine: %v became %v", mine, again)
	}
	r.only(t, p, mine)
	r.terminate(t, p, mine)
}

// lateLaunch is what a leader that was deposed while it launched may still do.
func (r *run) lateLaunch(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	r.once(t, p, request)
	if i, err := p.Launch(t.Context(), clone(request)); err == nil && i.State != provider.Gone {
		t.Errorf("a launch after the machine's end made %v", i)
	}
	if all := r.list(t, p); len(all) != 0 {
		t.Errorf("a launch after the machine's end left %v", all)
	}
}

// pruneKeeps: there being no such instance to keep, none may be deleted.
func (r *run) pruneKeeps(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	i := r.launch(t, p, request)
	r.only(t, p, i)
	if err := p.Prune(t.Context(), i.MachineID, i.ProviderID); err != nil {
		t.Errorf("Prune without duplicates: %v", err)
	}
	// Whether this is an error is not said.
	_ = p.Prune(t.Context(), i.MachineID, i.ProviderID+"0")
	if again := r.launch(t, p, request); again.ProviderID != i.ProviderID {
		t.Errorf("Prune deleted the last instance: %v became %v", i, again)
	}
	r.only(t, p, i)
	r.terminate(t, p, i)
}

func (r *run) sendsChoice(t *testing.T, p provider.Provider) {
	w := r.wish(t, p, 1)
	if groups, ok := p.(provider.FirewallGroups); ok {
		r.ensure(t, groups, r.firewall(t, p, pool))
		defer r.deleteGroup(t, groups, pool)
	}
	for n, choice := range r.resolve(t, p, w) {
		request := r.request(t, p)
		request.Request.Choice = choice
		i := r.launch(t, p, request)
		sent := r.Cloud.Sent(t, i.MachineID)
		for _, field := range []struct {
			name      string
			want, got any
			compare   bool
		}{
			{"image", choice.GetImage(), sent.GetImage(), true},
			{"type", choice.GetType(), sent.GetType(), true},
			{"zone", choice.GetZone(), sent.GetZone(), choice.GetZone() != ""},
			{"network", choice.GetNetwork(), sent.GetNetwork(), choice.GetNetwork() != "" && sent.GetNetwork() != ""},
			{"subnet", choice.GetSubnet(), sent.GetSubnet(), choice.GetSubnet() != ""},
			{"spot", choice.GetSpot(), sent.GetSpot(), true},
		} {
			if field.compare && field.want != field.got {
				t.Errorf("choice %d: the %s sent is %v, that committed %v", n, field.name, field.got, field.want)
			}
		}
		wanted, got := slices.Sorted(slices.Values(choice.GetGroups())), slices.Sorted(slices.Values(sent.GetGroups()))
		if !slices.Equal(wanted, got) {
			t.Errorf("choice %d: the groups sent are %v, those committed %v", n, got, wanted)
		}
		if _, filters := p.(provider.FirewallGroups); filters && len(wanted) == 0 {
			t.Errorf("choice %d has no group of the pool, which exists", n)
		}
		r.only(t, p, i)
		r.terminate(t, p, i)
	}
}

// spot returns w for capacity that may be taken back.
func spot(w *provisionrv1.Wish, fallback bool) *provisionrv1.Wish {
	w = proto.CloneOf(w)
	w.Spot = &provisionrv1.Spot{Fallback: fallback}
	return w
}
