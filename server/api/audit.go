package api

import (
	"context"
	"strings"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// auditTimeout bounds the list of a provider.
const auditTimeout = 60 * time.Second

// The verdicts of an audit.
const (
	verdictMatched  = "matched"
	verdictOrphan   = "orphan"
	verdictMissing  = "missing"
	verdictExpected = "expected"
)

func (s *infraService) AuditProvider(ctx context.Context, req *provisionrv1.AuditProviderRequest) (*provisionrv1.AuditProviderResponse, error) {
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	if snapshot.Provider(req.Name) == nil {
		return nil, notFound("provider", req.Name)
	}
	p, err := s.Providers.Provider(req.Name)
	if err != nil {
		return nil, unlisted(req.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	var instances []provider.Instance
	for i, err := range p.List(ctx) {
		if err != nil {
			return nil, unlisted(req.Name, err)
		}
		instances = append(instances, i)
	}
	// The records are read again: what was launched before the list ended is in them by now.
	if snapshot, err = s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER); err != nil {
		return nil, err
	}
	return &provisionrv1.AuditProviderResponse{Entries: ledger(snapshot, req.Name, instances), Version: snapshot.Version()}, nil
}

// unlisted is the error of an audit without a complete list: it would take what was not listed for missing.
func unlisted(name string, err error) error {
	kind := errs.Unavailable
	if k := provider.KindOf(err); k == provider.Unauthorized || k == provider.Invalid {
		kind = errs.Conflict
	}
	return errs.New(kind, "cannot audit provider %s: it gave no complete list: %w", name, err).
		WithHint("nothing is known of its machines now, which is not the same as their absence")
}

// ledger lines up what a provider has with the records: first the instances, as they were listed, then what has none.
func ledger(snapshot *state.Snapshot, name string, instances []provider.Instance) []*provisionrv1.AuditEntry {
	var entries []*provisionrv1.AuditEntry
	listed := map[string]bool{}
	for _, i := range instances {
		m := snapshot.Machine(i.MachineID)
		if m.GetSpec().GetProvider() != name {
			m = nil
		}
		e := entry(m)
		e.Machine, e.ProviderId, e.State = i.MachineID, i.ProviderID, string(i.State)
		if i.Address.IsValid() {
			e.Address = i.Address.String()
		}
		e.Verdict = verdictOf(m, i, listed[i.MachineID])
		if i.State != provider.Gone {
			listed[i.MachineID] = true
		}
		entries = append(entries, e)
	}
	for m := range snapshot.Machines() {
		if m.GetSpec().GetProvider() != name || listed[m.GetMetadata().GetName()] || m.GetStatus().GetPhase() == provisionrv1.Phase_PHASE_GONE {
			continue
		}
		e := entry(m)
		e.Verdict = verdictMissing
		switch m.GetStatus().GetPhase() {
		case provisionrv1.Phase_PHASE_PENDING, provisionrv1.Phase_PHASE_LAUNCHING, provisionrv1.Phase_PHASE_TERMINATING, provisionrv1.Phase_PHASE_FAILED:
			e.Verdict = verdictExpected
		}
		entries = append(entries, e)
	}
	return entries
}

func entry(m *provisionrv1.Machine) *provisionrv1.AuditEntry {
	return &provisionrv1.AuditEntry{
		Machine: m.GetMetadata().GetName(), Slot: m.GetSpec().GetSlot(), ProviderId: m.GetStatus().GetProviderId(),
		Address: m.GetStatus().GetAddress(), Phase: m.GetStatus().GetPhase(),
	}
}

func verdictOf(m *provisionrv1.Machine, i provider.Instance, again bool) string {
	phase := m.GetStatus().GetPhase()
	switch {
	case i.State == provider.Gone, m != nil && phase == provisionrv1.Phase_PHASE_TERMINATING:
		return verdictExpected
	case m == nil, phase == provisionrv1.Phase_PHASE_GONE, again, phase == provisionrv1.Phase_PHASE_PENDING:
		return verdictOrphan
	case !strings.EqualFold(m.GetStatus().GetProviderId(), i.ProviderID) && m.GetStatus().GetProviderId() != "":
		// A duplicate: Prune deletes it.
		return verdictOrphan
	}
	return verdictMatched
}
