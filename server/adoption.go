package server

import (
	"crypto/x509"
	"net"
	"strconv"

	"github.com/provisionr/provisionr/cloudinit"
	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	"github.com/provisionr/provisionr/internal/spec"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/api"
	"github.com/provisionr/provisionr/server/boot"
	"github.com/provisionr/provisionr/server/state"
)

// adoption says where a machine gets the script that has it join: at this member, whose key the caller's command pins.
func (s *Server) adoption(snapshot *state.Snapshot, m *provisionrv1.Machine) (api.Adoption, error) {
	id := m.GetMetadata().GetName()
	token, err := s.ca.MachineToken(id, m.GetStatus().GetAttempt())
	if err != nil {
		return api.Adoption{}, err
	}
	certificate, err := s.id.store.Certificate()
	if err != nil {
		return api.Adoption{}, err
	}
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		return api.Adoption{}, errs.New(errs.Internal, "cannot read this member's certificate: %w", err)
	}
	host := snapshot.Member(s.config.Name).GetNetworkHosts()[m.GetSpec().GetNetwork()]
	if host == "" {
		host = s.config.Advertise
	}
	url := "https://" + net.JoinHostPort(host, strconv.Itoa(int(s.config.Ports.API))) + boot.AdoptPath + id
	return api.Adoption{URL: url, Pin: pki.SPKIPin(leaf), Token: token}, nil
}

// adoptScript renders the script from the committed launch request.
func (s *Server) adoptScript(m *provisionrv1.Machine) ([]byte, error) {
	p := s.store.Read().Provider(m.GetSpec().GetProvider())
	if spec.ProviderKind(p) != "static" {
		return nil, errs.New(errs.Unsupported, "machine %s is not one that is adopted", m.GetMetadata().GetName())
	}
	request := m.GetStatus().GetLaunch()
	if request == nil {
		return nil, errs.New(errs.Unavailable, "machine %s is not waited for yet", m.GetMetadata().GetName())
	}
	join, err := s.ca.MachineToken(request.GetMachineId(), request.GetAttempt())
	if err != nil {
		return nil, err
	}
	beacon, err := s.ca.BeaconToken(request.GetMachineId(), request.GetAttempt())
	if err != nil {
		return nil, err
	}
	seed := request.GetSeed()
	return cloudinit.Adopt(cloudinit.Seed{
		ClusterID: request.GetClusterId(), MachineID: request.GetMachineId(), Attempt: request.GetAttempt(), JoinToken: join,
		BeaconToken: beacon, FQDN: request.GetFqdn(), CAPins: seed.GetCaPins(), APIEndpoints: seed.GetApiEndpoints(),
		AgentEndpoints: seed.GetAgentEndpoints(), AgentSHA256: seed.GetAgentSha256(),
	})
}
