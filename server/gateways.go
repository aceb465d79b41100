package server

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/provisionr/provisionr/internal/spec"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// gatewayRetry is how long to wait before listening on a gateway again: its bridge is made with the network.
const gatewayRetry = time.Second

// gateways are the addresses that this host has on the networks which its own providers make, by network: the machines
// there reach this member, and its DNS, by them.
func (s *Server) gateways(snapshot *state.Snapshot) map[string]netip.Addr {
	all := map[string]netip.Addr{}
	for n := range snapshot.Networks() {
		if s.gatewayOwner(snapshot, n) != s.config.Name {
			continue
		}
		if gateway, err := netip.ParseAddr(n.GetSpec().GetGateway()); err == nil {
			all[n.GetMetadata().GetName()] = gateway
		} else if cidr, err := netip.ParsePrefix(n.GetSpec().GetCidr()); err == nil {
			all[n.GetMetadata().GetName()] = gatewayOf(cidr)
		}
	}
	return all
}

// gatewayOwner returns the member whose host is the gateway of a network, or "".
func (s *Server) gatewayOwner(snapshot *state.Snapshot, n *provisionrv1.Network) string {
	p := snapshot.Provider(n.GetSpec().GetProvider())
	if !builderOf(p).host {
		return ""
	}
	return spec.Owner(p)
}

// serveGateways follows the networks: it tells the others by which address machines reach this member, and listens there.
// Those of known are served already. A gateway that is gone costs nothing, and is listened on until the member stops.
func (s *Server) serveGateways(ctx context.Context, known []netip.Addr) error {
	served := slices.Clone(known)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for {
			changed := s.store.Watch(state.TableNetworks, state.TableProviders)
			var again <-chan time.Time
			wanted := s.gateways(s.store.Read())
			if s.current.Load() && !s.tell(ctx) {
				again = time.After(gatewayRetry)
			}
			for _, gateway := range wanted {
				switch {
				case slices.Contains(served, gateway):
				case s.serveGateway(ctx, group, gateway):
					served = append(served, gateway)
				default:
					again = time.After(gatewayRetry)
				}
			}
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			case <-again:
			}
		}
	})
	return group.Wait()
}

// tell brings this member's record up to date.
func (s *Server) tell(ctx context.Context) bool {
	if s.store.Read().Member(s.config.Name) == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, sayTimeout)
	defer cancel()
	err := s.putRecord(ctx)
	if err != nil && ctx.Err() == nil {
		s.config.Logger.Warn("cannot tell the others of a network", "err", err)
	}
	return err == nil
}

// serveGateway listens on a gateway; false says that the host has no such address yet.
func (s *Server) serveGateway(ctx context.Context, group *errgroup.Group, gateway netip.Addr) bool {
	var opened []net.Listener
	fail := func() bool {
		for _, l := range opened {
			l.Close()
		}
		return false
	}
	covered := len(s.config.Listen) == 0 || slices.ContainsFunc(s.config.Listen, func(l netip.Addr) bool { return l == gateway || l.IsUnspecified() })
	if covered {
		// The ports are open, and the address need not be there for that. DNS is never on wildcards: see dnsHosts.
		if !hasAddress(gateway) {
			return false
		}
	} else {
		for _, port := range []uint16{s.config.Ports.API, s.config.Ports.Agent} {
			l, err := net.Listen("tcp", net.JoinHostPort(gateway.String(), strconv.Itoa(int(port))))
			if err != nil {
				return fail()
			}
			opened = append(opened, l)
		}
	}
	// A port that another program has is no reason to end the member: machines answer each other's names themselves.
	names, dns := errgroup.WithContext(ctx)
	if err := s.names.listen(dns, names, []netip.Addr{gateway}); err != nil {
		s.config.Logger.Warn("cannot answer dns on a gateway", "gateway", gateway, "err", err)
		return fail()
	}
	group.Go(func() error {
		if err := names.Wait(); err != nil && ctx.Err() == nil {
			s.config.Logger.Error("dns on a gateway has ended", "gateway", gateway, "err", err)
		}
		return nil
	})
	if len(opened) == 2 {
		s.apiPort.add(opened[0])
		s.agentPort.add(opened[1])
	}
	s.config.Logger.Info("serving a network", "gateway", gateway)
	return true
}

// hasAddress reports whether the host has an address.
func hasAddress(a netip.Addr) bool {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(addresses, func(have net.Addr) bool {
		prefix, err := netip.ParsePrefix(have.String())
		return err == nil && prefix.Addr() == a
	})
}
