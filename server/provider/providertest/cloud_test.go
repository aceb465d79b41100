package providertest_test

import (
	"testing"
	"testing/synctest"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
)

func TestCloudConforms(t *testing.T) {
	var cloud providertest.Cloud
	providertest.Run(t, providertest.Config{New: func(_ *testing.T, cluster string) provider.Provider { return cloud.Provider(cluster) }})
}

// TestSlowCloudConforms cuts calls off in their middle, which an instant cloud never lets happen.
func TestSlowCloudConforms(t *testing.T) {
	cloud := providertest.Cloud{Latency: 80 * time.Millisecond}
	providertest.Run(t, providertest.Config{New: func(_ *testing.T, cluster string) provider.Provider { return cloud.Provider(cluster) }})
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
