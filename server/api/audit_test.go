package api

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

func TestAudit(t *testing.T) {
	c := newCluster(t)
	cloud := c.cloud("amazon", &fakeCloud{})
	c.commit(poolAt("web", 5, "amazon"))
	c.commit(pool("other", 1))
	runs, missing, ends, waits, foreign := c.running("web", 1), c.running("web", 2), c.running("web", 3), c.machine("web", 4), c.running("other", 1)
	c.phase(ends, provisionrv1.Phase_PHASE_CONVERGING, provisionrv1.Phase_PHASE_TERMINATING)
	cloud.instances = []provider.Instance{
		{MachineID: runs, ProviderID: "i-1", State: provider.Running, Address: netip.MustParseAddr("10.0.0.7")},
		{MachineID: runs, ProviderID: "i-2", State: provider.Running},
		{MachineID: ends, ProviderID: "i-3", State: provider.Stopped},
		{MachineID: "m-unknown", ProviderID: "i-4", State: provider.Running},
		{MachineID: foreign, ProviderID: "i-5", State: provider.Running},
		{MachineID: "m-long-gone", ProviderID: "i-6", State: provider.Gone},
	}
	api := provisionrv1.NewInfraServiceClient(c.as(viewer))
	r, err := api.AuditProvider(t.Context(), &provisionrv1.AuditProviderRequest{Name: "amazon"})
	c.ok(err)
	var got []string
	for _, e := range r.Entries {
		got = append(got, strings.Join([]string{e.Machine, e.Slot, e.ProviderId, e.State, e.Verdict}, " "))
	}
	want := []string{
		runs + " web-1 i-1 running matched", runs + " web-1 i-2 running orphan", ends + " web-3 i-3 stopped expected",
		"m-unknown  i-4 running orphan", foreign + "  i-5 running orphan", "m-long-gone  i-6 gone expected",
	}
	rest := map[string]bool{missing + " web-2   missing": true, waits + " web-4   expected": true}
	if diff := cmp.Diff(want, got[:len(want)]); diff != "" || len(got) != len(want)+2 || !rest[got[6]] || !rest[got[7]] {
		t.Errorf("%s\n%v", diff, got)
	}

	// A list that is not complete is no ledger.
	cloud.listErr = provider.Errorf(provider.Unknown, "cut off")
	if _, err := api.AuditProvider(t.Context(), &provisionrv1.AuditProviderRequest{Name: "amazon"}); !errs.Is(errs.FromRPC(err), errs.Unavailable) {
		t.Errorf("%v", err)
	}
	if _, err := api.AuditProvider(t.Context(), &provisionrv1.AuditProviderRequest{Name: "none"}); !errs.Is(errs.FromRPC(err), errs.NotFound) {
		t.Errorf("%v", err)
	}
}
