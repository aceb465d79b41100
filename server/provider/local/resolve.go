package local

import (
	"context"
	"runtime"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// Resolve implements provider.Provider: containers have the host's architecture and no types, images or prices.
func (p *Provider) Resolve(_ context.Context, w *provisionrv1.Wish) (*provisionrv1.Offer, error) {
	if a := w.GetHardware().GetArchitecture(); a != "" && a != runtime.GOARCH {
		return nil, provider.Errorf(provider.Invalid, "architecture %s: containers have this host's, which is %s", a, runtime.GOARCH)
	}
	name := w.GetOs().GetDistribution() + " " + w.GetOs().GetRelease()
	return &provisionrv1.Offer{Choices: []*provisionrv1.Choice{{
		ImageName: name + " system container", Architecture: runtime.GOARCH,
		Cpus: w.GetHardware().GetCpus(), MemoryMib: w.GetHardware().GetMemoryMib(), PriceClass: "this host",
	}}}, nil
}

// Prune implements provider.Provider: a machine has one directory, so there are no duplicates.
func (p *Provider) Prune(context.Context, string, string) error { return nil }
