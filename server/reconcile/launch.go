package reconcile

import (
	"maps"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/cloudinit"
	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// Tokens derives a machine's secrets; every member derives the same.
type Tokens interface {
	MachineToken(machineID string, attempt uint32) (string, error)
	BeaconToken(machineID string, attempt uint32) (string, error)
}

// launchRequest is the complete request for the machine's next attempt: all that a provider needs but secrets.
func launchRequest(s *state.Snapshot, m *provisionrv1.Machine, seed *provisionrv1.Seed, choice *provisionrv1.Choice) (*provisionrv1.LaunchRequest, error) {
	spec := m.GetSpec()
	request := &provisionrv1.LaunchRequest{
		MachineId: m.GetMetadata().GetName(), ClusterId: s.Cluster().GetId(), ClusterName: s.Cluster().GetName(),
		Attempt: m.GetStatus().GetAttempt() + 1, Pool: spec.GetPool(), Slot: spec.GetSlot(), Fqdn: spec.GetFqdn(),
		Os: clone(spec.GetOs()), Hardware: clone(spec.GetHardware()), Network: spec.GetNetwork(),
		Address: m.GetStatus().GetAddress(), Seed: clone(seed), Choice: clone(choice), Image: clone(spec.GetImage()),
		Placement: clone(spec.GetPlacement()), Spot: clone(spec.GetSpot()), Labels: maps.Clone(m.GetMetadata().GetLabels()),
	}
	network := s.Network(spec.GetNetwork()).GetSpec()
	if network == nil {
		return request, nil
	}
	request.DnsServers = slices.Clone(network.GetDnsServers())
	request.HttpProxy = network.GetHttpProxy()
	if network.GetCidr() == "" && !network.GetManaged() {
		return request, nil
	}
	cidr, err := netip.ParsePrefix(network.GetCidr())
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot launch in network %s: %w", spec.GetNetwork(), err)
	}
	request.PrefixLength = uint32(cidr.Bits())
	request.Gateway = network.GetGateway()
	if request.Gateway == "" {
		request.Gateway = cidr.Masked().Addr().Next().String()
	}
	return request, nil
}

func clone[T proto.Message](m T) T { return proto.CloneOf(m) }

// userData renders what the committed request says; any member renders the same bytes.
func userData(request *provisionrv1.LaunchRequest, tokens Tokens, limit int) ([]byte, error) {
	join, err := tokens.MachineToken(request.GetMachineId(), request.GetAttempt())
	if err != nil {
		return nil, errs.New(errs.Unavailable, "cannot derive the join token of %s: %w", request.GetMachineId(), err)
	}
	beacon, err := tokens.BeaconToken(request.GetMachineId(), request.GetAttempt())
	if err != nil {
		return nil, errs.New(errs.Unavailable, "cannot derive the beacon token of %s: %w", request.GetMachineId(), err)
	}
	seed := request.GetSeed()
	data, err := cloudinit.Render(cloudinit.Seed{
		ClusterID: request.GetClusterId(), MachineID: request.GetMachineId(), Attempt: request.GetAttempt(), JoinToken: join,
		BeaconToken: beacon, FQDN: request.GetFqdn(), CAPins: seed.GetCaPins(), APIEndpoints: seed.GetApiEndpoints(),
		AgentEndpoints: seed.GetAgentEndpoints(), AgentSHA256: seed.GetAgentSha256(),
	})
	if err != nil {
		return nil, provider.Errorf(provider.Invalid, "cannot launch %s: %w", request.GetMachineId(), err)
	}
	if limit > 0 && len(data) > limit {
		return nil, provider.Errorf(provider.Invalid, "cannot launch %s: its user-data has %d bytes, the provider takes %d",
			request.GetMachineId(), len(data), limit)
	}
	return data, nil
}
