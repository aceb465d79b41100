package session

import (
	"bytes"
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

const (
	// maxSecrets and maxValues bound what one call for secrets asks for and gets, in numbers and octets: what is more is
	// asked for in several calls.
	maxSecrets = 256
	maxValues  = 3 << 20
	// maxHostKeys bounds the keys that one machine has certified at a time, maxKey one of them in octets.
	maxHostKeys = 8
	maxKey      = 16 << 10
	// hostCertTTL is how long a host certificate lasts; it is asked for anew at half of it.
	hostCertTTL = 30 * 24 * time.Hour
)

// calling returns the record of the machine that calls, which may speak now.
func (h *Hub) calling(ctx context.Context, call string) (*provisionrv1.Machine, error) {
	id, cert, err := h.identify(ctx)
	if err != nil {
		return nil, err
	}
	if !h.calls.allow(id) {
		return nil, errs.New(errs.Exhausted, "too many calls: ask again later")
	}
	m, err := h.admit(ctx, id, cert)
	if err == nil && pki.Expired(cert, time.Now()) {
		err = errs.New(errs.Unauthenticated, "the certificate of machine %s has ended: renew it", id)
	}
	if err != nil {
		h.refused(ctx, call, id, err)
		return nil, err
	}
	return m, nil
}

// Secrets answers the values that the machine's desired state refers to, and no others. They are neither logged nor kept.
func (h *Hub) Secrets(ctx context.Context, req *agentv1.SecretsRequest) (*agentv1.SecretsResponse, error) {
	if h.cfg.Secrets == nil {
		return nil, errs.New(errs.Unsupported, "this server keeps no secrets")
	}
	m, err := h.calling(ctx, "secrets")
	if err != nil {
		return nil, err
	}
	if n := len(req.GetSecrets()); n > maxSecrets {
		return nil, errs.New(errs.Exhausted, "%d secrets are too many for one call: ask for at most %d", n, maxSecrets)
	}
	id := m.GetMetadata().GetName()
	values, err := h.secrets(h.cfg.State.Read(), id, req.GetSecrets())
	if errs.Is(err, errs.Denied) || errs.Is(err, errs.Conflict) {
		// This member may lag behind the one that the machine has its desired state from.
		syncCtx, cancel := context.WithTimeout(ctx, commitTimeout)
		defer cancel()
		if h.cfg.Consensus.Sync(syncCtx, provisionrv1.Consistency_CONSISTENCY_LEADER) == nil {
			values, err = h.secrets(h.cfg.State.Read(), id, req.GetSecrets())
		}
	}
	if err != nil {
		h.refused(ctx, "secrets", id, err)
		return nil, err
	}
	return &agentv1.SecretsResponse{Values: values}, nil
}

func (h *Hub) secrets(s *state.Snapshot, machineID string, refs []*agentv1.SecretRef) ([][]byte, error) {
	compiled, err := h.compiler.Compile(s, machineID)
	if err != nil {
		return nil, err
	}
	allowed, err := compiled.secrets()
	if err != nil {
		return nil, err
	}
	values, size := make([][]byte, 0, len(refs)), 0
	for _, ref := range refs {
		name := clip(ref.GetName())
		revision, refers := allowed[ref.GetName()]
		if !refers {
			return nil, errs.New(errs.Denied, "the desired state of machine %s does not refer to the secret %q", machineID, name)
		}
		record := s.Secret(ref.GetName())
		if ref.GetRevision() != revision || record.GetRevision() != revision {
			return nil, errs.New(errs.Conflict, "the secret %q has revision %d now, not %d", name, record.GetRevision(), ref.GetRevision())
		}
		value, err := h.cfg.Secrets.OpenSecret(record)
		if err != nil {
			return nil, errs.New(errs.KindOf(err), "cannot open the secret %q: %w", name, err)
		}
		if size += len(value); size > maxValues {
			return nil, errs.New(errs.Exhausted, "the values of these secrets are larger than %d bytes together: ask for fewer at a time", maxValues)
		}
		values = append(values, value)
	}
	return values, nil
}

// secrets returns what the pool's component refers to: revisions by name.
func (c *Compiled) secrets() (map[string]uint64, error) {
	var pool agentv1.PoolComponent
	for _, p := range c.parts {
		if p.ref.Name == "pool" {
			if err := proto.Unmarshal(p.body, &pool); err != nil {
				return nil, errs.New(errs.Internal, "cannot read a component that was just compiled: %w", err)
			}
		}
	}
	revisions := make(map[string]uint64, len(pool.GetSecrets()))
	for _, ref := range pool.GetSecrets() {
		revisions[ref.GetName()] = ref.GetRevision()
	}
	return revisions, nil
}

// CertifyHost certifies the machine's SSH host keys for its slot, name and addresses.
func (h *Hub) CertifyHost(ctx context.Context, req *agentv1.CertifyHostRequest) (*agentv1.CertifyHostResponse, error) {
	if h.cfg.HostSigner == nil {
		return nil, errs.New(errs.Unsupported, "this server certifies no host keys")
	}
	m, err := h.calling(ctx, "certify host")
	if err != nil {
		return nil, err
	}
	if n := len(req.GetPublicKeys()); n > maxHostKeys {
		return nil, errs.New(errs.Invalid, "%d host keys are too many: a machine has at most %d certified", n, maxHostKeys)
	}
	principals := principalsOf(h.cfg.State.Read(), m)
	if len(principals) == 0 {
		return nil, errs.New(errs.Conflict, "%s has another machine by now: its host keys are not certified", m.GetSpec().GetSlot())
	}
	resp := &agentv1.CertifyHostResponse{RenewAt: timestamppb.New(time.Now().Add(hostCertTTL / 2))}
	for _, line := range req.GetPublicKeys() {
		if len(line) > maxKey {
			return nil, errs.New(errs.Invalid, "a host key is one line of authorized_keys(5) of at most %d bytes", maxKey)
		}
		certificate, err := h.cfg.HostSigner.SignHost([]byte(line), principals, hostCertTTL)
		if err != nil {
			h.refused(ctx, "certify host", m.GetMetadata().GetName(), err)
			return nil, err
		}
		resp.Certificates = append(resp.Certificates, string(bytes.TrimSpace(certificate)))
	}
	return resp, nil
}

// principalsOf are the names that a machine's host certificate is good for: those of its slot, as long as it holds it or is to
// take it over, and its addresses.
func principalsOf(s *state.Snapshot, m *provisionrv1.Machine) []string {
	var principals []string
	slot, id := s.Slot(m.GetSpec().GetSlot()), m.GetMetadata().GetName()
	if slot.GetHolder() == id || slot.GetHeir() == id {
		principals = append(principals, m.GetSpec().GetSlot())
		if fqdn := m.GetSpec().GetFqdn(); fqdn != "" {
			principals = append(principals, fqdn)
		}
	}
	for _, address := range []string{m.GetStatus().GetAddress(), m.GetStatus().GetAddress6()} {
		if address != "" {
			principals = append(principals, address)
		}
	}
	return principals
}
