package remote_test

import (
	"context"
	"errors"
	"iter"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
	"github.com/provisionr/provisionr/server/provider/remote"
)

// owner is member s2 with a provider named local, reached through memory.
type owner struct {
	conn     *grpc.ClientConn
	server   *grpc.Server
	registry provider.Registry
}

func newOwner(t *testing.T) *owner {
	t.Helper()
	o := &owner{server: grpc.NewServer()}
	memberv1.RegisterProviderServiceServer(o.server, remote.NewServer(&o.registry))
	listener := bufconn.Listen(1 << 20)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = o.server.Serve(listener)
	}()
	conn, err := grpc.NewClient("passthrough:///s2", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	o.conn = conn
	t.Cleanup(func() {
		_ = conn.Close()
		o.server.Stop()
		<-done
	})
	return o
}

func (o *owner) Conn(_ context.Context, member string) (*grpc.ClientConn, error) {
	if member != "s2" {
		return nil, errors.New("no such member")
	}
	return o.conn, nil
}

// leader is member s1, for which "local" is owned by s2 and "lost" by a member that does not answer.
func (o *owner) leader(t *testing.T, local *provider.Registry) *remote.Directory {
	t.Helper()
	d, err := remote.NewDirectory(remote.Config{
		Self: "s1", Local: local, Conns: o,
		Owner: func(name string) string { return map[string]string{"local": "s2", "lost": "s3", "own": "s1"}[name] },
		Capabilities: func(string) provider.Capabilities {
			return provider.Capabilities{UserDataLimit: 16 << 10, HostBound: true, Grouped: true}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRemoteConforms(t *testing.T) {
	o := newOwner(t)
	cloud := providertest.Cloud{Latency: 5 * time.Millisecond}
	controls := providertest.SimControls(&cloud)
	controls.Limited = func(provider.Provider) uint64 { return cloud.Provider("any").Limiter().Calls() }
	directory := o.leader(t, &provider.Registry{})
	const credentials = "the cloud behind it has none"
	providertest.Run(t, providertest.Config{
		New: func(t *testing.T, cluster string) provider.Provider {
			// One cluster at a time is what a member has: the provider is found anew at each call.
			p, err := directory.Provider("local")
			if err != nil {
				t.Fatal(err)
			}
			groups, ok := p.(provider.FirewallGroups)
			if !ok {
				t.Fatal("the provider lost its firewall groups on the way")
			}
			return &switched{Provider: p, groups: groups, set: func() { o.registry.Set("local", cloud.Provider(cluster)) }}
		},
		Typos: providertest.SimTypos(), Cloud: controls,
		Without: map[providertest.Case]string{providertest.MissingCredentials: credentials, providertest.RefusedCredentials: credentials},
	})
}

// switched gives the owner the provider of the right cluster before each call.
type switched struct {
	provider.Provider
	groups provider.FirewallGroups
	set    func()
}

func (s *switched) List(ctx context.Context) iter.Seq2[provider.Instance, error] {
	s.set()
	return s.Provider.List(ctx)
}

func (s *switched) Launch(ctx context.Context, r provider.LaunchRequest) (provider.Instance, error) {
	s.set()
	return s.Provider.Launch(ctx, r)
}

func (s *switched) Terminate(ctx context.Context, machineID, providerID string) error {
	s.set()
	return s.Provider.Terminate(ctx, machineID, providerID)
}

func (s *switched) Resolve(ctx context.Context, w *provisionrv1.Wish) (*provisionrv1.Offer, error) {
	s.set()
	return s.Provider.Resolve(ctx, w)
}

func (s *switched) EnsureNetwork(ctx context.Context, n *provisionrv1.Network) (*provisionrv1.NetworkSpec, error) {
	s.set()
	return s.Provider.EnsureNetwork(ctx, n)
}

func (s *switched) Prune(ctx context.Context, machineID, keep string) error {
	s.set()
	return s.Provider.Prune(ctx, machineID, keep)
}

func (s *switched) Console(ctx context.Context, machineID, providerID string) (string, error) {
	s.set()
	return s.Provider.Console(ctx, machineID, providerID)
}

func (s *switched) EnsureFirewall(ctx context.Context, f provider.Firewall) error {
	s.set()
	return s.groups.EnsureFirewall(ctx, f)
}

func (s *switched) PlanFirewall(ctx context.Context, f provider.Firewall) ([]string, error) {
	s.set()
	return s.groups.PlanFirewall(ctx, f)
}

func (s *switched) Firewalls(ctx context.Context) ([]string, error) {
	s.set()
	return s.groups.Firewalls(ctx)
}

func (s *switched) DeleteFirewall(ctx context.Context, pool string) error {
	s.set()
	return s.groups.DeleteFirewall(ctx, pool)
}

func TestUnreachableOwnerIsUnknown(t *testing.T) {
	o := newOwner(t)
	directory := o.leader(t, &provider.Registry{})
	check := func(name, what string, err error) {
		t.Helper()
		if err == nil || provider.KindOf(err) != provider.Unknown {
			t.Errorf("%s at %s: %v, want unknown", what, name, err)
		}
	}
	all := func(name string) {
		p, err := directory.Provider(name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Launch(t.Context(), provider.LaunchRequest{Request: &provisionrv1.LaunchRequest{MachineId: "m-1"}})
		check(name, "Launch", err)
		check(name, "Terminate", p.Terminate(t.Context(), "m-1", ""))
		_, err = p.Console(t.Context(), "m-1", "")
		check(name, "Console", err)
		_, err = p.EnsureNetwork(t.Context(), &provisionrv1.Network{})
		check(name, "EnsureNetwork", err)
		_, err = p.Resolve(t.Context(), &provisionrv1.Wish{})
		check(name, "Resolve", err)
		check(name, "Prune", p.Prune(t.Context(), "m-1", "i-1"))
		groups, ok := p.(provider.FirewallGroups)
		if !ok {
			t.Fatalf("%s has no firewall groups", name)
		}
		check(name, "EnsureFirewall", groups.EnsureFirewall(t.Context(), provider.Firewall{}))
		_, err = groups.PlanFirewall(t.Context(), provider.Firewall{})
		check(name, "PlanFirewall", err)
		_, err = groups.Firewalls(t.Context())
		check(name, "Firewalls", err)
		check(name, "DeleteFirewall", groups.DeleteFirewall(t.Context(), "web"))
		err = nil
		for _, e := range p.List(t.Context()) {
			err = e
		}
		check(name, "List", err)
	}
	all("lost")
	// The owner answers, but its provider is not up yet.
	all("local")
	o.server.Stop()
	all("local")
}

// broken yields one instance, then an error.
type broken struct{ provider.Provider }

func (broken) List(context.Context) iter.Seq2[provider.Instance, error] {
	return func(yield func(provider.Instance, error) bool) {
		if yield(provider.Instance{MachineID: "m-1", State: provider.Running}, nil) {
			yield(provider.Instance{}, errors.New("connection reset"))
		}
	}
}

func (broken) Launch(context.Context, provider.LaunchRequest) (provider.Instance, error) {
	err := provider.Errorf(provider.RateLimited, "slow down")
	err.After = 7 * time.Second
	return provider.Instance{}, err
}

func TestErrorsKeepTheirKind(t *testing.T) {
	o := newOwner(t)
	o.registry.Set("local", broken{})
	p, err := o.leader(t, &provider.Registry{}).Provider("local")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Launch(t.Context(), provider.LaunchRequest{}); provider.KindOf(err) != provider.RateLimited || provider.AfterOf(err) != 7*time.Second {
		t.Errorf("Launch: %v (%s)", err, provider.KindOf(err))
	}
	// One without groups is no reason to believe that there are none to care for.
	if _, err := p.(provider.FirewallGroups).Firewalls(t.Context()); provider.KindOf(err) != provider.Invalid {
		t.Errorf("the groups of a provider without any: %v", err)
	}
	var last error
	n := 0
	for _, err := range p.List(t.Context()) {
		n++
		last = err
	}
	if n != 2 || provider.KindOf(last) != provider.Unknown {
		t.Errorf("a list that broke off gave %d results, the last with %v", n, last)
	}
}

func TestDirectoryPrefersThisMember(t *testing.T) {
	o := newOwner(t)
	var local provider.Registry
	var cloud providertest.Cloud
	own := cloud.Provider("a")
	local.Set("own", own)
	local.Set("anywhere", own)
	directory := o.leader(t, &local)
	for _, name := range []string{"own", "anywhere"} {
		if p, err := directory.Provider(name); err != nil || p != own {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
	if _, err := directory.Provider("nowhere"); provider.KindOf(err) != provider.Unknown {
		t.Errorf("a provider that is nowhere: %v", err)
	}
}
