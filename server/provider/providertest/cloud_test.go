package providertest_test

import (
	"testing"
	"testing/synctest"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
)

// without is what a cloud cannot be put to that asks nobody who they are.
func without() map[providertest.Case]string {
	const none = "a simulated cloud has no credentials"
	return map[providertest.Case]string{providertest.MissingCredentials: none, providertest.RefusedCredentials: none}
}

func conform(t *testing.T, cloud *providertest.Cloud, change func(*providertest.Config)) {
	t.Helper()
	c := providertest.Config{
		Name:  "sim",
		New:   func(_ *testing.T, cluster string) provider.Provider { return cloud.Provider(cluster) },
		Typos: providertest.SimTypos(), Cloud: providertest.SimControls(cloud), Without: without(),
	}
	if change != nil {
		change(&c)
	}
	providertest.Run(t, c)
}

func TestCloudConforms(t *testing.T) { conform(t, &providertest.Cloud{}, nil) }

// TestSlowCloudConforms cuts calls off in their middle, which an instant cloud never lets happen, lists late and in pages,
// and assigns the addresses itself.
func TestSlowCloudConforms(t *testing.T) {
	cloud := providertest.Cloud{Latency: 8 * time.Millisecond, Lag: 60 * time.Millisecond}
	cloud.Capabilities.ListPage = 100
	conform(t, &cloud, func(c *providertest.Config) {
		c.Network = &provisionrv1.Network{
			Metadata: &provisionrv1.Metadata{Name: "cloud", Generation: 1}, Spec: &provisionrv1.NetworkSpec{Provider: "sim"},
		}
	})
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cloud providertest.Cloud
		cloud.SetFault(func(op, _ string) error {
			if op == "lost-launch" {
				return provider.Errorf(provider.Unknown, "lost")
			}
			return nil
		})
		p := cloud.Provider("a")
		request := provider.LaunchRequest{Request: &provisionrv1.LaunchRequest{MachineId: "m-1"}}
		if _, err := p.Launch(t.Context(), request); provider.KindOf(err) != provider.Unknown || len(cloud.Instances()) != 1 {
			t.Errorf("a lost response gave %v and %d instances", err, len(cloud.Instances()))
		}
	})
}
