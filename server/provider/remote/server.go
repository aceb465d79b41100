package remote

import (
	"context"

	"google.golang.org/grpc"

	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// Providers finds the providers that run on this member.
type Providers interface {
	Provider(name string) (provider.Provider, error)
}

// Server is the ProviderService of a member. It checks no caller: register it only where none but members can call.
type Server struct {
	memberv1.UnimplementedProviderServiceServer
	providers Providers
}

// NewServer returns the service for the providers that run on this member.
func NewServer(local Providers) *Server { return &Server{providers: local} }

// List streams the instances; the stream ends without an error only if the list is complete.
func (s *Server) List(r *memberv1.ListRequest, stream grpc.ServerStreamingServer[memberv1.Instance]) error {
	p, err := s.providers.Provider(r.GetProvider())
	if err != nil {
		return err
	}
	for instance, err := range p.List(stream.Context()) {
		if err != nil {
			return kinded(err)
		}
		if err := stream.Send(encode(instance)); err != nil {
			return err
		}
	}
	return nil
}

// Launch launches on this host.
func (s *Server) Launch(ctx context.Context, r *memberv1.LaunchRequest) (*memberv1.Instance, error) {
	p, err := s.providers.Provider(r.GetProvider())
	if err != nil {
		return nil, err
	}
	instance, err := p.Launch(ctx, provider.LaunchRequest{Request: r.GetRequest(), UserData: r.GetUserData()})
	if err != nil {
		return nil, kinded(err)
	}
	return encode(instance), nil
}

// Terminate terminates on this host.
func (s *Server) Terminate(ctx context.Context, r *memberv1.TerminateRequest) (*memberv1.TerminateResponse, error) {
	p, err := s.providers.Provider(r.GetProvider())
	if err != nil {
		return nil, err
	}
	if err := p.Terminate(ctx, r.GetMachineId(), r.GetProviderId()); err != nil {
		return nil, kinded(err)
	}
	return &memberv1.TerminateResponse{}, nil
}

// Resolve resolves a wish on this host.
func (s *Server) Resolve(ctx context.Context, r *memberv1.ResolveRequest) (*provisionrv1.Offer, error) {
	p, err := s.providers.Provider(r.GetProvider())
	if err != nil {
		return nil, err
	}
	offer, err := p.Resolve(ctx, r.GetWish())
	if err != nil {
		return nil, kinded(err)
	}
	return offer, nil
}

// Prune deletes duplicates on this host.
func (s *Server) Prune(ctx context.Context, r *memberv1.PruneRequest) (*memberv1.PruneResponse, error) {
	p, err := s.providers.Provider(r.GetProvider())
	if err != nil {
		return nil, err
	}
	if err := p.Prune(ctx, r.GetMachineId(), r.GetKeep()); err != nil {
		return nil, kinded(err)
	}
	return &memberv1.PruneResponse{}, nil
}

// Console reads the console on this host.
func (s *Server) Console(ctx context.Context, r *memberv1.ConsoleRequest) (*memberv1.ConsoleResponse, error) {
	p, err := s.providers.Provider(r.GetProvider())
	if err != nil {
		return nil, err
	}
	text, err := p.Console(ctx, r.GetMachineId(), r.GetProviderId())
	if err != nil {
		return nil, kinded(err)
	}
	return &memberv1.ConsoleResponse{Console: text}, nil
}

// EnsureNetwork makes a network usable on this host.
func (s *Server) EnsureNetwork(ctx context.Context, r *memberv1.EnsureNetworkRequest) (*provisionrv1.NetworkSpec, error) {
	p, err := s.providers.Provider(r.GetProvider())
	if err != nil {
		return nil, err
	}
	spec, err := p.EnsureNetwork(ctx, r.GetNetwork())
	if err != nil {
		return nil, kinded(err)
	}
	return spec, nil
}

// kinded gives every error a kind that crosses RPC.
func kinded(err error) error {
	return &provider.Error{Kind: provider.KindOf(err), Message: err.Error(), After: provider.AfterOf(err), Err: err}
}

func encode(i provider.Instance) *memberv1.Instance {
	out := &memberv1.Instance{MachineId: i.MachineID, ProviderId: i.ProviderID, State: string(i.State), Notice: i.Notice}
	if i.Address6.IsValid() {
		out.Address6 = i.Address6.String()
	}
	if i.Address.IsValid() {
		out.Address = i.Address.String()
	}
	return out
}
