package reconcile_test

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
	"github.com/provisionr/provisionr/server/reconcile/reconciletest"
	"github.com/provisionr/provisionr/server/state"
)

// hosting completes networks as providers of a host do: whatever was there.
type hosting struct{ provider.Provider }

func (hosting) EnsureNetwork(_ context.Context, n *provisionrv1.Network) (*provisionrv1.NetworkSpec, error) {
	spec := proto.CloneOf(n.GetSpec())
	spec.Gateway, spec.Managed, spec.NtpServers, spec.HttpProxy = "10.88.0.1", true, []string{"10.88.0.1"}, "http://10.88.0.1:3142"
	return spec, nil
}

// TestCompletedNetwork has a provider complete a network: the same manifest changes nothing then, and what a user writes wins
// until it is withdrawn.
func TestCompletedNetwork(t *testing.T) {
	cloud := &providertest.Cloud{}
	lan := func(ntp ...string) *provisionrv1.Object {
		o := reconciletest.NetworkObject("local", "local", "10.88.0.0/24", false)
		o.GetNetwork().Spec.NtpServers = ntp
		return o
	}
	reconciletest.Run(t, reconciletest.Config{
		Providers: map[string]provider.Provider{"local": hosting{cloud.Provider(reconciletest.ClusterID)}},
		Objects:   []*provisionrv1.Object{reconciletest.ProviderObject("local"), lan()},
	}, func(ctx context.Context, w *reconciletest.World) {
		w.Start(ctx, nil)
		complete := func(ntp string) func(*state.Snapshot) bool {
			return func(s *state.Snapshot) bool {
				n := s.Network("local").GetSpec()
				return n.GetManaged() && n.GetHttpProxy() != "" && slices.Equal(n.GetNtpServers(), []string{ntp})
			}
		}
		w.Until("the network is complete", complete("10.88.0.1"))
		before := w.Read().Network("local")
		w.Apply(lan())
		if !proto.Equal(w.Read().Network("local"), before) {
			t.Errorf("the same manifest made it %v", w.Read().Network("local"))
		}
		w.Apply(lan("192.0.2.1"))
		w.Pool("web", 1)
		w.Until("a machine is ready", w.Ready("web", 1))
		if !complete("192.0.2.1")(w.Read()) {
			t.Errorf("the user's own made it %v", w.Read().Network("local"))
		}
		w.Apply(lan())
		w.Until("the provider's value is back", complete("10.88.0.1"))
	})
}
