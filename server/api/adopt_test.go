package api

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

func TestAdoptMachine(t *testing.T) {
	c := newCluster(t)
	metal := providerOf("metal", &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Static{Static: &provisionrv1.StaticProvider{}}})
	metal.GetProvider().ApiVersion, metal.GetProvider().Kind = "provisionr/v1", "Provider"
	c.commit(metal)
	c.commit(&provisionrv1.Object{Kind: &provisionrv1.Object_Network{Network: &provisionrv1.Network{
		ApiVersion: "provisionr/v1", Kind: "Network", Metadata: &provisionrv1.Metadata{Name: "dc"},
		Spec: &provisionrv1.NetworkSpec{Provider: "metal", Cidr: "192.0.2.0/24", Gateway: "192.0.2.1"},
	}}})
	c.commit(poolAt("db", 2, "metal"))
	c.commit(pool("web", 1))
	id, other := c.machine("db", 1), c.machine("db", 2)
	_ = c.machine("web", 1)
	api := provisionrv1.NewMachineServiceClient(c.as(admin))
	adopt := func(name, address string) (*provisionrv1.AdoptMachineResponse, error) {
		r, err := api.AdoptMachine(t.Context(), &provisionrv1.AdoptMachineRequest{Name: name, Address: address})
		return r, errs.FromRPC(err)
	}
	if _, err := adopt("db-1", "192.0.2.7"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("before it is launched: %v", err)
	}
	for _, m := range []string{id, other} {
		_, err := c.Do(t.Context(), nil, newID(), &raftlogv1.Command{Kind: &raftlogv1.Command_BeginLaunch{BeginLaunch: &raftlogv1.BeginLaunch{
			Launch: &provisionrv1.LaunchRequest{MachineId: m, Attempt: 1},
		}}})
		c.ok(err)
	}
	for _, tt := range []struct {
		name, machine, address string
		kind                   errs.Kind
		says                   string
	}{
		{"no address", "db-1", "", errs.Invalid, "its address is not known"},
		{"no address at all", "db-1", "db-1", errs.Invalid, "address"},
		{"another network's", "db-1", "198.51.100.7", errs.Invalid, "192.0.2.0/24"},
		{"the gateway's", "db-1", "192.0.2.1", errs.Invalid, "192.0.2.0/24"},
		{"the broadcast address", "db-1", "192.0.2.255", errs.Invalid, "192.0.2.0/24"},
		{"unknown machine", "db-9", "192.0.2.7", errs.NotFound, "db-9"},
		{"another provider's", "web-1", "192.0.2.7", errs.Unsupported, "of kind local"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := adopt(tt.machine, tt.address); !errs.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v", err)
			}
		})
	}
	r, err := adopt("db-1", "192.0.2.7")
	c.ok(err)
	want := "curl -fsS --insecure --pinnedpubkey 'sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' -H 'X-Provisionr-Token: token-1'" +
		" 'https://192.0.2.1:7443/boot/v1/adopt/" + id + "' | sudo sh"
	if diff := cmp.Diff(want, r.Command); diff != "" {
		t.Error(diff)
	}
	if a := c.store.Read().Machine(id).GetStatus().GetAddress(); a != "192.0.2.7" || r.Machine.GetStatus().GetAddress() != a {
		t.Errorf("its address is %q", a)
	}
	// Once more, by its id and without the address that it has by now: the line was lost.
	if again, err := adopt(id, ""); err != nil || again.GetCommand() != want {
		t.Errorf("%v %v", again, err)
	}
	if _, err := adopt("db-2", "192.0.2.7"); err == nil {
		t.Error("two machines have one address")
	}
	c.phase(id, provisionrv1.Phase_PHASE_LAUNCHING, provisionrv1.Phase_PHASE_TERMINATING)
	if _, err := adopt(id, ""); !errs.Is(err, errs.Conflict) {
		t.Errorf("one that is let go: %v", err)
	}
}

// Whatever is in a word, a shell takes it as it is.
func TestQuote(t *testing.T) {
	for _, word := range []string{"", "a b", "it's", "$(reboot)", "`reboot`", "a\nb", `\'";|&`} {
		out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", "printf %s "+quote(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("%q became %q, %v", word, out, err)
		}
	}
}
