package api

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// fakeClouds are providers by name; one that is not there does not answer.
type fakeClouds struct {
	mu     sync.Mutex
	byName map[string]*fakeCloud
	tried  []*provisionrv1.Provider
}

func (f *fakeClouds) Provider(name string) (provider.Provider, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.byName[name]; c != nil {
		return c, nil
	}
	if name == "local" {
		return &fakeCloud{offer: &provisionrv1.Offer{Choices: []*provisionrv1.Choice{{ImageName: "container"}}}}, nil
	}
	return nil, provider.Errorf(provider.Unknown, "provider %q does not run on this server", name)
}

func (f *fakeClouds) Trial(p *provisionrv1.Provider) (provider.Provider, error) {
	if p.GetSpec().GetQemu() != nil {
		return nil, errs.New(errs.Unsupported, "made where it is applied")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tried = append(f.tried, p)
	return f.byName["trial"], nil
}

func (f *fakeClouds) set(name string, c *fakeCloud) *fakeCloud {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byName == nil {
		f.byName = map[string]*fakeCloud{}
	}
	f.byName[name] = c
	return c
}

// fakeCloud answers what it is told to.
type fakeCloud struct {
	provider.Provider
	caps      provider.Capabilities
	offer     *provisionrv1.Offer
	err       error
	network   error
	lines     []string
	instances []provider.Instance
	listErr   error
	wish      *provisionrv1.Wish
	planned   provider.Firewall
}

func (c *fakeCloud) Capabilities() provider.Capabilities { return c.caps }

func (c *fakeCloud) EnsureNetwork(_ context.Context, n *provisionrv1.Network) (*provisionrv1.NetworkSpec, error) {
	if c.network != nil {
		return nil, c.network
	}
	s := proto.CloneOf(n.GetSpec())
	s.Id = "vpc-1"
	return s, nil
}

func (c *fakeCloud) Resolve(ctx context.Context, w *provisionrv1.Wish) (*provisionrv1.Offer, error) {
	c.wish = w
	if c.err == nil && c.offer == nil {
		<-ctx.Done()
		return nil, provider.Errorf(provider.Unknown, "the call was cut off: %w", ctx.Err())
	}
	return c.offer, c.err
}

func (c *fakeCloud) List(context.Context) iter.Seq2[provider.Instance, error] {
	return func(yield func(provider.Instance, error) bool) {
		for _, i := range c.instances {
			if !yield(i, nil) {
				return
			}
		}
		if c.listErr != nil {
			yield(provider.Instance{}, c.listErr)
		}
	}
}

func (c *fakeCloud) EnsureFirewall(context.Context, provider.Firewall) error { return nil }
func (c *fakeCloud) PlanFirewall(_ context.Context, f provider.Firewall) ([]string, error) {
	c.planned = f
	return c.lines, nil
}
func (c *fakeCloud) Firewalls(context.Context) ([]string, error)  { return nil, nil }
func (c *fakeCloud) DeleteFirewall(context.Context, string) error { return nil }

func anySeed(_ *state.Snapshot, n *provisionrv1.Network) (*provisionrv1.Seed, error) {
	if n.GetMetadata().GetName() == "" {
		return nil, errs.New(errs.Internal, "a seed for no network")
	}
	return &provisionrv1.Seed{
		CaPins: []string{"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}, ApiEndpoints: []string{"10.88.0.1:7443"},
		AgentEndpoints: []string{"10.88.0.1:7444"}, AgentSha256: map[string]string{"amd64": strings.Repeat("0a", 32)},
	}, nil
}

func anyAdoption(_ *state.Snapshot, m *provisionrv1.Machine) (Adoption, error) {
	return Adoption{
		URL: "https://192.0.2.1:7443/boot/v1/adopt/" + m.GetMetadata().GetName(), Pin: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
		Token: fmt.Sprintf("token-%d", m.GetStatus().GetAttempt()),
	}, nil
}

func anyFirewall(_ *state.Snapshot, p *provisionrv1.Pool, n *provisionrv1.Network) provider.Firewall {
	return provider.Firewall{Pool: p.GetMetadata().GetName(), Network: n}
}

// cloud commits a provider of a cloud with a network, and has it answer by c.
func (c *cluster) cloud(name string, answers *fakeCloud) *fakeCloud {
	c.t.Helper()
	for _, o := range cloudObjects(name) {
		c.commit(o)
	}
	return c.clouds.set(name, answers)
}

// cloudObjects are the manifest of a provider and its network.
func cloudObjects(name string) []*provisionrv1.Object {
	return []*provisionrv1.Object{
		{Kind: &provisionrv1.Object_Provider{Provider: &provisionrv1.Provider{
			ApiVersion: "provisionr/v1", Kind: "Provider", Metadata: &provisionrv1.Metadata{Name: name},
			Spec: &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Aws{Aws: &provisionrv1.AwsProvider{Region: "eu-central-1"}}},
		}}},
		{Kind: &provisionrv1.Object_Network{Network: &provisionrv1.Network{
			ApiVersion: "provisionr/v1", Kind: "Network", Metadata: &provisionrv1.Metadata{Name: name},
			Spec: &provisionrv1.NetworkSpec{Provider: name, Cidr: "172.31.0.0/16"},
		}}},
	}
}

func poolAt(name string, size uint32, at string) *provisionrv1.Object {
	o := pool(name, size)
	o.GetPool().Spec.Provider = at
	return o
}

// member commits the record of a further member.
func (c *cluster) member(name string) {
	c.t.Helper()
	_, err := c.Do(c.t.Context(), nil, newID(), &raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{
		Member: &provisionrv1.Member{Metadata: &provisionrv1.Metadata{Name: name}, RaftAddress: "127.0.0.2:7445", FeatureLevel: fsm.Level},
	}}})
	c.ok(err)
}
