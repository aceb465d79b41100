package api

import (
	"context"
	"net/netip"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/boot"
	"github.com/provisionr/provisionr/server/state"
)

// Adoption is where a machine that exists gets the script that has it join.
type Adoption struct {
	// URL of the script at this server, as the machine's network reaches it.
	URL string
	// Pin is the base64 SHA-256 of the server's public key (RFC 7469 section 2.4).
	Pin string
	// Token is the machine's one-time join token.
	Token string
}

func (s *machineService) AdoptMachine(ctx context.Context, req *provisionrv1.AdoptMachineRequest) (*provisionrv1.AdoptMachineResponse, error) {
	m, err := s.find(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER, req.Name)
	if err != nil {
		return nil, err
	}
	snapshot := s.State.Read()
	if err := adoptable(snapshot, m); err != nil {
		return nil, err
	}
	if req.Address == "" && m.GetStatus().GetAddress() == "" {
		return nil, errs.New(errs.Invalid, "cannot adopt %s: its address is not known", m.GetSpec().GetSlot()).
			WithHint("give the machine's address in network %s, as --address 192.0.2.7", m.GetSpec().GetNetwork())
	}
	if req.Address != "" {
		if m, err = s.assign(ctx, snapshot, m, req); err != nil {
			return nil, err
		}
	}
	adoption, err := s.Adoption(s.State.Read(), m)
	if err != nil {
		return nil, err
	}
	return &provisionrv1.AdoptMachineResponse{Command: adoption.command(), Machine: m}, nil
}

// adoptable refuses machines that a person cannot have joined.
func adoptable(snapshot *state.Snapshot, m *provisionrv1.Machine) error {
	slot, status := m.GetSpec().GetSlot(), m.GetStatus()
	if kind := kindOf(snapshot, m); kind != "static" {
		return errs.New(errs.Unsupported, "cannot adopt %s: its provider %s is of kind %s", slot, m.GetSpec().GetProvider(), kind).
			WithHint("machines of a provider of kind static are adopted: see docs/providers.md")
	}
	if status.GetSessionSeen() {
		return errs.New(errs.Conflict, "cannot adopt %s: it has joined already", slot).
			WithHint("`provisionr delete machine %s` lets it go, and its slot waits for another", slot)
	}
	switch status.GetPhase() {
	case provisionrv1.Phase_PHASE_LAUNCHING, provisionrv1.Phase_PHASE_BOOTING, provisionrv1.Phase_PHASE_JOINING:
		if status.GetLaunch() != nil {
			return nil
		}
	case provisionrv1.Phase_PHASE_PENDING:
		return errs.New(errs.Unavailable, "cannot adopt %s yet: the servers have only just planned it", slot).WithHint("try again in a second")
	}
	return errs.New(errs.Conflict, "cannot adopt %s: it does not wait for a machine", slot).
		WithHint("`provisionr describe machine %s` says what it is at", slot)
}

// assign commits the machine's address.
func (s *machineService) assign(ctx context.Context, snapshot *state.Snapshot, m *provisionrv1.Machine, req *provisionrv1.AdoptMachineRequest) (*provisionrv1.Machine, error) {
	id, network := m.GetMetadata().GetName(), m.GetSpec().GetNetwork()
	address, err := netip.ParseAddr(req.Address)
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot adopt %s: %w", m.GetSpec().GetSlot(), err)
	}
	address = address.Unmap()
	n := snapshot.Network(network)
	if !inside(n.GetSpec(), address) {
		return nil, errs.New(errs.Invalid, "cannot adopt %s: %s is no machine's address of network %s, %s", m.GetSpec().GetSlot(), address, network, n.GetSpec().GetCidr()).
			WithHint("give the address that other machines of the network reach it by")
	}
	if address.String() == m.GetStatus().GetAddress() {
		return m, nil
	}
	if _, err := s.write(ctx, req.RequestId, &raftlogv1.Command{Kind: &raftlogv1.Command_AdoptMachine{
		AdoptMachine: &raftlogv1.AdoptMachine{Id: id, Address: address.String()},
	}}); err != nil {
		return nil, err
	}
	if m = s.State.Read().Machine(id); m == nil {
		return nil, notFound("machine", id)
	}
	return m, nil
}

// command is one line for a shell. The connection is proven by the server's key: --insecure leaves out the names and the
// authorities, which a machine that has not joined does not know.
func (a Adoption) command() string {
	return strings.Join([]string{
		"curl -fsS --insecure --pinnedpubkey", quote("sha256//" + a.Pin), "-H", quote(boot.TokenHeader + ": " + a.Token), quote(a.URL), "| sudo sh",
	}, " ")
}

// quote makes one word of a shell's (POSIX Shell Command Language, section 2.2.2).
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
