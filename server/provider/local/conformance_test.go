//go:build machine

package local

import (
	"context"
	"log/slog"
	"os"
	"testing"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
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
			p, err := New(Config{ClusterID: cluster, DataDir: dir + "/" + cluster, Logger: slog.New(slog.DiscardHandler)})
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
			Metadata: &provisionrv1.Metadata{Name: "local", Generation: 1},
			Spec:     &provisionrv1.NetworkSpec{Cidr: "10.213.200.0/24", Provider: "local", Managed: true},
		},
	})
}
