package server

import (
	"context"
	"iter"
	"log/slog"
	"path/filepath"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/spec"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/aws"
	"github.com/provisionr/provisionr/server/provider/gce"
	"github.com/provisionr/provisionr/server/provider/local"
	"github.com/provisionr/provisionr/server/provider/openstack"
	"github.com/provisionr/provisionr/server/provider/qemu"
	"github.com/provisionr/provisionr/server/provider/sim"
	"github.com/provisionr/provisionr/server/provider/static"
)

// builder makes the providers of one kind.
type builder struct {
	// build makes the provider of an object. It calls nobody's API.
	build func(*Server, *provisionrv1.Provider) (provider.Provider, error)
	// bound says that it runs on its owner alone; then capabilities tell the other members what they must know of it.
	bound        bool
	capabilities func(*provisionrv1.Provider) provider.Capabilities
	// host says that building changes the host, and that machines see the owner as the gateway of their network.
	host bool
}

// builders are all kinds of providers, by the name of their field in a manifest: here, and nowhere else, a new one is added.
func builders() map[string]builder {
	return map[string]builder{
		"local":     {build: (*Server).buildLocal, bound: true, host: true, capabilities: constant(new(local.Provider).Capabilities())},
		"qemu":      {build: (*Server).buildQemu, bound: true, host: true, capabilities: constant(new(qemu.Provider).Capabilities())},
		"sim":       {build: (*Server).buildSim, bound: true, capabilities: simCapabilities},
		"static":    {build: (*Server).buildStatic},
		"aws":       {build: (*Server).buildAws},
		"gce":       {build: (*Server).buildGce},
		"openstack": {build: (*Server).buildOpenstack},
	}
}

func constant(c provider.Capabilities) func(*provisionrv1.Provider) provider.Capabilities {
	return func(*provisionrv1.Provider) provider.Capabilities { return c }
}

func builderOf(p *provisionrv1.Provider) builder { return builders()[spec.ProviderKind(p)] }

// buildLocal returns the one that runs since the start.
func (s *Server) buildLocal(*provisionrv1.Provider) (provider.Provider, error) {
	if s.local == nil {
		return nil, provider.Errorf(provider.Invalid, "member %s runs no system containers: start it with --local", s.config.Name)
	}
	return startedBefore{s.local}, nil
}

// startedBefore hides that a provider could be run: it is running.
type startedBefore struct{ provider.Provider }

func (s *Server) buildSim(p *provisionrv1.Provider) (provider.Provider, error) {
	return sim.New(sim.Config{
		ClusterID: s.cluster(), Spec: p.GetSpec().GetSim(), CallsPerSecond: p.GetSpec().GetCallsPerSecond(), Boot: s.config.Simulate,
	})
}

func simCapabilities(p *provisionrv1.Provider) provider.Capabilities {
	return sim.Capabilities(p.GetSpec().GetSim())
}

func (s *Server) buildAws(p *provisionrv1.Provider) (provider.Provider, error) {
	return aws.New(aws.Config{
		ClusterID: s.cluster(), Spec: p.GetSpec().GetAws(), CallsPerSecond: p.GetSpec().GetCallsPerSecond(), Logger: s.providerLog(p),
	})
}

func (s *Server) buildGce(p *provisionrv1.Provider) (provider.Provider, error) {
	return gce.New(gce.Config{
		ClusterID: s.cluster(), Spec: p.GetSpec().GetGce(), CallsPerSecond: p.GetSpec().GetCallsPerSecond(), Logger: s.providerLog(p),
	})
}

func (s *Server) buildQemu(p *provisionrv1.Provider) (provider.Provider, error) {
	name := p.GetMetadata().GetName()
	return qemu.New(qemu.Config{
		Site: s.site(name, filepath.Join(QemuDir(s.config.DataDir), name), s.providerLog(p)), Spec: p.GetSpec().GetQemu(),
	})
}

func (s *Server) buildOpenstack(p *provisionrv1.Provider) (provider.Provider, error) {
	return openstack.New(openstack.Config{
		ClusterID: s.cluster(), Spec: p.GetSpec().GetOpenstack(), CallsPerSecond: p.GetSpec().GetCallsPerSecond(), Logger: s.providerLog(p),
	})
}

func (s *Server) providerLog(p *provisionrv1.Provider) *slog.Logger {
	return s.config.Logger.With("part", spec.ProviderKind(p), "provider", p.GetMetadata().GetName())
}

func (s *Server) buildStatic(p *provisionrv1.Provider) (provider.Provider, error) {
	return static.New(static.Config{
		Name:     p.GetMetadata().GetName(),
		Machines: func() iter.Seq[*provisionrv1.Machine] { return s.store.Read().Machines() },
	})
}

// trials make providers of objects that are not applied, for plans.
type trials struct {
	*Server
}

// Provider returns the one that runs, here or at its owner.
func (t trials) Provider(name string) (provider.Provider, error) { return t.directory.Provider(name) }

// Trial returns what the object would make.
func (t trials) Trial(p *provisionrv1.Provider) (provider.Provider, error) {
	b := builderOf(p)
	if b.build == nil || b.host {
		return nil, errs.New(errs.Unsupported, "a provider of kind %s is made where it is applied", spec.ProviderKind(p))
	}
	return b.build(t.Server, p)
}

// broken is a provider that could not be made: every call says why, and that nothing is known of machines.
type broken struct {
	err  error
	caps provider.Capabilities
}

func (b broken) unknown() error { return provider.Errorf(provider.Unknown, "%w", b.err) }

func (b broken) List(context.Context) iter.Seq2[provider.Instance, error] {
	return func(yield func(provider.Instance, error) bool) { yield(provider.Instance{}, b.unknown()) }
}

func (b broken) Resolve(context.Context, *provisionrv1.Wish) (*provisionrv1.Offer, error) {
	return nil, provider.Errorf(provider.Invalid, "%w", b.err)
}

func (b broken) Launch(context.Context, provider.LaunchRequest) (provider.Instance, error) {
	return provider.Instance{}, b.unknown()
}

func (b broken) Terminate(context.Context, string, string) error { return b.unknown() }
func (b broken) Prune(context.Context, string, string) error     { return b.unknown() }

func (b broken) EnsureNetwork(context.Context, *provisionrv1.Network) (*provisionrv1.NetworkSpec, error) {
	return nil, b.unknown()
}

func (b broken) Console(context.Context, string, string) (string, error) { return "", b.unknown() }
func (b broken) Capabilities() provider.Capabilities                     { return b.caps }
