//go:build machine

package qemu

import (
	"context"
	"log/slog"
	"os"
	"testing"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/rootfs"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
)

func TestConformance(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "provisionr-test-")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]*Provider{}
	t.Cleanup(func() {
		for _, p := range known {
			if err := p.Cleanup(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	providertest.Run(t, providertest.Config{
		New: func(t *testing.T, cluster string) provider.Provider {
			p, err := New(Config{Site: host.Site{ClusterID: cluster, DataDir: dir + "/" + cluster, Logger: slog.New(slog.DiscardHandler)}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			known[cluster] = p
			return p
		},
		Network: &provisionrv1.Network{
			Metadata: &provisionrv1.Metadata{Name: "vms", Generation: 1},
			Spec:     &provisionrv1.NetworkSpec{Cidr: "10.216.200.0/24", Provider: "qemu", Managed: true},
		},
		// The suite needs processes, not what runs in them.
		Wish: &provisionrv1.Wish{Hardware: &provisionrv1.Hardware{Cpus: 1, MemoryMib: 128}},
		Typos: []providertest.Typo{
			{Name: "a release", Change: func(w *provisionrv1.Wish) { w.Os.Release = "21" }, Nearest: rootfs.Release},
			{Name: "an architecture", Change: func(w *provisionrv1.Wish) { w.Hardware.Architecture = "arm64" }, Nearest: architecture},
		},
		Without: without(map[string][]providertest.Case{
			"a virtual machine has no machine type, and capacity is the host's memory": {
				providertest.ResolveType, providertest.ResolveSpot, providertest.PartialBatch,
				providertest.QuotaTyped, providertest.ResolveQuota, providertest.SendsChoice,
			},
			"there is no API that could fail, throttle, page or be asked for credentials": {
				providertest.LostLaunch, providertest.LostTerminate, providertest.CancelAtEachCall, providertest.FailAtEachCall,
				providertest.Pagination, providertest.BrokenList, providertest.Throttling, providertest.NoCallUnlimited,
				providertest.MissingCredentials, providertest.RefusedCredentials,
			},
			"a machine is one directory: TestCrash and TestCleanup have the leftovers": {providertest.OrphanSweep, providertest.DuplicatesPruned},
			"the agent filters on the machine": {
				providertest.FirewallConverges, providertest.FirewallPlan, providertest.FirewallDelete, providertest.FirewallLost,
			},
		}),
	})
}

// without turns reasons with cases into cases with a reason.
func without(reasons map[string][]providertest.Case) map[providertest.Case]string {
	cases := map[providertest.Case]string{}
	for reason, of := range reasons {
		for _, c := range of {
			cases[c] = reason
		}
	}
	return cases
}
