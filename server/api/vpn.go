package api

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/auth"
	"github.com/provisionr/provisionr/server/state"
)

type vpnService struct {
	provisionrv1.UnimplementedVpnServiceServer
	*base
}

// keepalive is how often, in seconds, a device shows itself to its peers: less than NAT forgets in.
const keepalive = 25

func (s *vpnService) ListVpns(ctx context.Context, req *provisionrv1.ListInfraRequest) (*provisionrv1.ListVpnsResponse, error) {
	snapshot, err := s.read(ctx, req.Consistency)
	if err != nil {
		return nil, err
	}
	return &provisionrv1.ListVpnsResponse{Vpns: slices.Collect(snapshot.Vpns()), Version: snapshot.Version()}, nil
}

func (s *vpnService) ListVpnPeers(ctx context.Context, req *provisionrv1.ListVpnPeersRequest) (*provisionrv1.ListVpnPeersResponse, error) {
	snapshot, err := s.read(ctx, req.Consistency)
	if err != nil {
		return nil, err
	}
	resp := &provisionrv1.ListVpnPeersResponse{Version: snapshot.Version()}
	for p := range snapshot.VpnPeers() {
		if req.Vpn == "" || p.GetSpec().GetVpn() == req.Vpn {
			resp.Peers = append(resp.Peers, p)
		}
	}
	return resp, nil
}

func (s *vpnService) DeleteVpn(ctx context.Context, req *provisionrv1.DeleteInfraRequest) (*provisionrv1.WriteResponse, error) {
	switch {
	case req.Kind == "vpn-peers":
	case req.Kind != "vpns":
		return nil, errs.New(errs.Invalid, "cannot delete %q: kind must be vpns or vpn-peers", req.Kind)
	case auth.CallerOf(ctx).GetRole() < provisionrv1.Role_ROLE_ADMIN:
		// Whoever cannot make it cannot delete it.
		return nil, errs.New(errs.Denied, "cannot delete vpn %q: it needs the role admin", req.Name)
	}
	return s.written(ctx, req.RequestId, deleteObject(req.Kind, req.Name))
}

func (s *vpnService) GetVpnPeerConfig(ctx context.Context, req *provisionrv1.GetVpnPeerConfigRequest) (*provisionrv1.GetVpnPeerConfigResponse, error) {
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	peer := snapshot.VpnPeer(req.Name)
	if peer == nil {
		return nil, notFound("vpn peer", req.Name)
	}
	vpn := snapshot.Vpn(peer.GetSpec().GetVpn())
	return &provisionrv1.GetVpnPeerConfigResponse{Config: peerConfig(vpn, peer, s.VpnNodes(snapshot, vpn.GetMetadata().GetName(), req.Name))}, nil
}

// peerConfig writes the file for wg-quick(8) of a device. Its peers are the machines that it can begin a connection to; each
// has, beside its own address and routes, those of the machines that are reached through it. Nothing is said of DNS: that the
// device has already.
func peerConfig(vpn *provisionrv1.Vpn, peer *provisionrv1.VpnPeer, nodes []*agentv1.VpnNode) string {
	var b strings.Builder
	cidr, _ := netip.ParsePrefix(vpn.GetSpec().GetCidr())
	fmt.Fprintf(&b, "# %s in vpn %s\n[Interface]\nPrivateKey = \nAddress = %s/%d\nMTU = %d\n", peer.GetMetadata().GetName(),
		vpn.GetMetadata().GetName(), peer.GetAddress(), cidr.Bits(), cmp.Or(vpn.GetSpec().GetMtu(), state.DefaultVpnMTU))
	for _, n := range nodes {
		if n.GetEndpoint() == "" || n.GetVia() != "" || n.GetPublicKey() == peer.GetSpec().GetPublicKey() {
			continue
		}
		allowed := ranges(n)
		for _, behind := range nodes {
			if n.GetMachineId() != "" && behind.GetVia() == n.GetMachineId() && behind.GetPublicKey() != peer.GetSpec().GetPublicKey() {
				allowed = append(allowed, ranges(behind)...)
			}
		}
		fmt.Fprintf(&b, "\n# %s\n[Peer]\nPublicKey = %s\nEndpoint = %s\nAllowedIPs = %s\nPersistentKeepalive = %d\n",
			n.GetName(), n.GetPublicKey(), n.GetEndpoint(), strings.Join(allowed, ", "), keepalive)
	}
	return b.String()
}

// ranges are what a node's packets may come from: its own address, then its routes.
func ranges(n *agentv1.VpnNode) []string {
	var all []string
	if addr, err := netip.ParseAddr(n.GetAddress()); err == nil {
		all = append(all, netip.PrefixFrom(addr, addr.BitLen()).String())
	}
	return append(all, n.GetRoutes()...)
}
