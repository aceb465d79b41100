package session

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

const (
	// RenewGrace is how long ago a certificate may have ended that is renewed.
	RenewGrace = 30 * 24 * time.Hour
	// maxID bounds what is logged of an id that a stranger names.
	maxID = 64
	// commitTimeout bounds the wait for a commit on behalf of an agent.
	commitTimeout = 10 * time.Second
)

// Join trades a machine's one-time token for a certificate.
func (h *Hub) Join(ctx context.Context, req *agentv1.JoinRequest) (*agentv1.JoinResponse, error) {
	resp, err := h.join(ctx, req)
	if err != nil {
		h.refused(ctx, "join", req.GetMachineId(), err)
		return nil, err
	}
	h.cfg.Logger.Info("machine joined", "machine", req.GetMachineId(), "attempt", req.GetAttempt(), "from", remote(ctx))
	return resp, nil
}

func (h *Hub) join(ctx context.Context, req *agentv1.JoinRequest) (*agentv1.JoinResponse, error) {
	if err := h.cfg.Tokens.CheckMachineToken(req.GetMachineId(), req.GetAttempt(), req.GetToken()); err != nil {
		if !errs.Is(err, errs.Unauthenticated) {
			return nil, err
		}
		return nil, errs.New(errs.Unauthenticated, "the join token is not the one of machine %q, attempt %d", clip(req.GetMachineId()), req.GetAttempt()).
			WithHint("the machine's user-data is of another cluster, machine or launch attempt")
	}
	key, fingerprint, err := keyOf(req.GetCsr())
	if err != nil {
		return nil, err
	}
	// The machine is one of ours, so that it may cost a look at the leader. What the state refuses for good is decided
	// by the command, which every member applies alike.
	m, err := h.record(ctx, req.GetMachineId(), func(m *provisionrv1.Machine) bool { return m.GetStatus().GetAttempt() >= req.GetAttempt() })
	if err != nil {
		return nil, err
	}
	s := m.GetStatus()
	if s.GetSessionSeen() && s.GetAttempt() == req.GetAttempt() && s.GetKeyFingerprint() == fingerprint {
		return nil, errs.New(errs.Denied, "the join token of %s (%s) is used", m.GetSpec().GetSlot(), req.GetMachineId()).
			WithHint("the agent has a certificate already, and renews it; a machine that lost it must be replaced")
	}
	return h.issue(ctx, m, req.GetAttempt(), key, fingerprint)
}

// Renew issues a new certificate for the same key. The old one may have ended less than RenewGrace ago.
func (h *Hub) Renew(ctx context.Context, req *agentv1.RenewRequest) (*agentv1.JoinResponse, error) {
	id, cert, err := h.identify(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := h.renew(ctx, id, cert, req)
	if err != nil {
		h.refused(ctx, "renew", id, err)
	}
	return resp, err
}

func (h *Hub) renew(ctx context.Context, id string, cert *x509.Certificate, req *agentv1.RenewRequest) (*agentv1.JoinResponse, error) {
	if pki.Expired(cert, time.Now().Add(-RenewGrace)) {
		return nil, errs.New(errs.Unauthenticated, "the certificate of machine %s ended more than %d days ago", id, int(RenewGrace.Hours()/24)).
			WithHint("replace the machine")
	}
	key, fingerprint, err := keyOf(req.GetCsr())
	if err != nil {
		return nil, err
	}
	m, err := h.admit(ctx, id, cert)
	if err != nil {
		return nil, err
	}
	if fingerprint != pki.CertFingerprint(cert) {
		return nil, errs.New(errs.Denied, "machine %s asks to renew its certificate with another key", id)
	}
	return h.issue(ctx, m, m.GetStatus().GetAttempt(), key, fingerprint)
}

// issue makes a certificate and hands it out only once the key is committed as the machine's.
func (h *Hub) issue(ctx context.Context, m *provisionrv1.Machine, attempt uint32, key any, fingerprint string) (*agentv1.JoinResponse, error) {
	id := m.GetMetadata().GetName()
	chain, err := h.cfg.Authority.Issue(pki.ID{Cluster: h.cfg.Cluster, Kind: pki.Agent, Name: id}, key, pki.AgentTTL)
	if err != nil {
		return nil, err
	}
	certs, err := pki.ParseCerts(chain)
	if err != nil {
		return nil, err
	}
	err = h.do(ctx, id, &raftlogv1.Command{Kind: &raftlogv1.Command_BindKey{BindKey: &raftlogv1.BindKey{
		Id: id, Attempt: attempt, KeyFingerprint: fingerprint, CertificateSerial: pki.Serial(certs[0]),
	}}})
	if err != nil {
		return nil, err
	}
	s := h.cfg.State.Read()
	return &agentv1.JoinResponse{Certificate: chain, ServerTime: timestamppb.Now(), Trust: h.trust(s, m.GetSpec().GetNetwork())}, nil
}

// do commits a command of a machine.
func (h *Hub) do(ctx context.Context, machineID string, c *raftlogv1.Command) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	_, err := h.cfg.Consensus.Do(ctx, caller(machineID), rand.Text(), c)
	return err
}

// identify returns the machine that a connection's certificate names. TLS has verified the certificate, but for its end.
func (h *Hub) identify(ctx context.Context) (machineID string, cert *x509.Certificate, err error) {
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return "", nil, errs.New(errs.Unauthenticated, "no connection")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		err := errs.New(errs.Unauthenticated, "this call needs the machine's certificate")
		h.refused(ctx, "connect", "", err)
		return "", nil, err
	}
	cert = info.State.PeerCertificates[0]
	id, err := pki.FromCert(cert)
	if err == nil && (id.Cluster != h.cfg.Cluster || id.Kind != pki.Agent) {
		err = errs.New(errs.Denied, "the certificate is not that of a machine of this cluster")
	}
	if err != nil {
		h.refused(ctx, "connect", id.Name, err)
		return "", nil, err
	}
	return id.Name, cert, nil
}

// admit returns the record of a machine that may speak with the key of its certificate.
func (h *Hub) admit(ctx context.Context, id string, cert *x509.Certificate) (*provisionrv1.Machine, error) {
	fingerprint := pki.CertFingerprint(cert)
	m, err := h.record(ctx, id, func(m *provisionrv1.Machine) bool { return m.GetStatus().GetKeyFingerprint() == fingerprint })
	if err != nil {
		return nil, err
	}
	if m.GetStatus().GetKeyFingerprint() != fingerprint {
		return nil, errs.New(errs.Denied, "machine %s is bound to another key", id)
	}
	return m, standing(m)
}

// standing refuses a machine that is not to be spoken with.
func standing(m *provisionrv1.Machine) error {
	id, slot := m.GetMetadata().GetName(), m.GetSpec().GetSlot()
	if why := m.GetStatus().GetQuarantined(); why != "" {
		return errs.New(errs.Denied, "%s (%s) is quarantined: %s", slot, id, why).WithHint("delete the machine; its pool replaces it")
	}
	switch m.GetStatus().GetPhase() {
	case provisionrv1.Phase_PHASE_TERMINATING, provisionrv1.Phase_PHASE_GONE:
		return errs.New(errs.Denied, "%s (%s) is being deleted", slot, id)
	}
	return nil
}

// record returns a machine's record; where the local one does not satisfy, it is read again as fresh as the leader's,
// for this member may lag behind the one that the machine spoke with before.
func (h *Hub) record(ctx context.Context, id string, satisfies func(*provisionrv1.Machine) bool) (*provisionrv1.Machine, error) {
	if m := h.cfg.State.Read().Machine(id); m != nil && satisfies(m) {
		return m, nil
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	if err := h.cfg.Consensus.Sync(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER); err != nil {
		return nil, err
	}
	if m := h.cfg.State.Read().Machine(id); m != nil {
		return m, nil
	}
	return nil, errs.New(errs.Denied, "machine %q is not known", clip(id))
}

// trust returns whom a machine in a network is to believe. Its version is the log position, which only ever grows.
func (h *Hub) trust(s *state.Snapshot, network string) *agentv1.Trust {
	v := s.Version()
	_, endpoints := s.Endpoints(network)
	return &agentv1.Trust{
		Version: v.GetIncarnation()<<48 | v.GetIndex()&(1<<48-1), Roots: h.cfg.Authority.RootsPEM(),
		Endpoints: endpoints, ClusterId: h.cfg.Cluster,
	}
}

// refused logs what was refused to whom. The agent is told the same.
func (h *Hub) refused(ctx context.Context, what, machineID string, err error) {
	h.cfg.Logger.Warn("agent refused", "call", what, "machine", clip(machineID), "from", remote(ctx), "kind", string(errs.KindOf(err)), "error", err)
}

func keyOf(csr []byte) (key any, fingerprint string, err error) {
	pub, err := pki.ParseCSR(csr)
	if err != nil {
		return nil, "", err
	}
	fingerprint, err = pki.Fingerprint(pub)
	return pub, fingerprint, err
}

func remote(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}

func clip(id string) string { return id[:min(len(id), maxID)] }
