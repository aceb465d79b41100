package fsm

import (
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// addressing is a network's parsed range.
type addressing struct {
	prefix  netip.Prefix
	gateway netip.Addr
}

func parseNetwork(n *provisionrv1.Network) (addressing, *errs.Error) {
	name, spec := n.GetMetadata().GetName(), n.GetSpec()
	prefix, err := netip.ParsePrefix(spec.GetCidr())
	if err != nil || prefix.Addr().Is4In6() {
		return addressing{}, errs.New(errs.Invalid, "network %s: %q is not a range", name, clip(spec.GetCidr(), maxName)).
			WithHint("give a range as 10.88.0.0/24")
	}
	if prefix != prefix.Masked() {
		return addressing{}, errs.New(errs.Invalid, "network %s: %s is not the first address of its range", name, prefix).
			WithHint("write %s", prefix.Masked())
	}
	a := addressing{prefix: prefix, gateway: prefix.Addr().Next()}
	if g := spec.GetGateway(); g != "" {
		gateway, err := netip.ParseAddr(g)
		if err != nil || !prefix.Contains(gateway) {
			return addressing{}, errs.New(errs.Invalid, "network %s: gateway %q is not an address of %s", name, clip(g, maxName), prefix)
		}
		a.gateway = gateway
	}
	return a, nil
}

// usable reports whether a machine may have the address: not the network's own, the broadcast or the gateway's.
func (n addressing) usable(addr netip.Addr) bool {
	if !addr.IsValid() || !n.prefix.Contains(addr) || addr == n.prefix.Addr() || addr == n.gateway {
		return false
	}
	last := !n.prefix.Contains(addr.Next())
	return !(addr.Is4() && last && n.prefix.Bits() < 31)
}

func (a *applier) applyNetwork(wanted *provisionrv1.Network, uid string) *errs.Error {
	name := wanted.GetMetadata().GetName()
	present := a.Network(name)
	what, m, err := a.merge("network", wanted.GetMetadata(), present.GetMetadata(), uid, proto.Equal(wanted.GetSpec(), present.GetSpec()))
	if err != nil || what == unchanged {
		return err
	}
	parsed, err := parseNetwork(wanted)
	if err != nil {
		return err
	}
	for other := range a.Networks() {
		if theirs, err := parseNetwork(other); err == nil && other.GetMetadata().GetName() != name && theirs.prefix.Overlaps(parsed.prefix) {
			return errs.New(errs.Conflict, "network %s (%s) overlaps network %s (%s)", name, parsed.prefix, other.GetMetadata().GetName(), theirs.prefix)
		}
	}
	if present == nil && count(a.Networks(), maxObjects) >= maxObjects {
		return full("networks")
	}
	if present != nil {
		if err := a.keepsAddresses(present, wanted, parsed); err != nil {
			return err
		}
	}
	a.Put(&provisionrv1.Network{ApiVersion: wanted.GetApiVersion(), Kind: wanted.GetKind(), Metadata: m, Spec: wanted.GetSpec()})
	a.names = true
	a.changed(what, "Network", name, "")
	return nil
}

// keepsAddresses refuses a change that would take an address from a machine, and forgets free ones that fall away.
func (a *applier) keepsAddresses(present, wanted *provisionrv1.Network, parsed addressing) *errs.Error {
	name := present.GetMetadata().GetName()
	for _, claim := range slices.Collect(a.Claims(name)) {
		addr, err := netip.ParseAddr(claim.GetAddress())
		if err == nil && parsed.usable(addr) {
			continue
		}
		if claim.GetMachine() != "" {
			return errs.New(errs.Conflict, "network %s: machine %s has the address %s", name, claim.GetMachine(), claim.GetAddress()).
				WithHint("the range and gateway of a network with machines cannot change so that an address falls out of use")
		}
		a.Delete(claim)
	}
	if present.GetSpec().GetProvider() != wanted.GetSpec().GetProvider() {
		if pool := a.poolOf(func(p *provisionrv1.Pool) bool { return a.NetworkOf(p).GetMetadata().GetName() == name }); pool != "" {
			return inUse("network", name, "pool "+pool).WithHint("its provider cannot change while a pool uses it")
		}
	}
	return nil
}

func (a *applier) deleteNetwork(name string) *errs.Error {
	network := a.Network(name)
	if network == nil {
		return notFound("network", name)
	}
	if pool := a.poolOf(func(p *provisionrv1.Pool) bool { return a.NetworkOf(p).GetMetadata().GetName() == name }); pool != "" {
		return inUse("network", name, "pool "+pool)
	}
	for _, claim := range slices.Collect(a.Claims(name)) {
		if claim.GetMachine() != "" {
			return inUse("network", name, "machine "+claim.GetMachine())
		}
		a.Delete(claim)
	}
	a.Delete(network)
	a.names = true
	return nil
}

// maxHoles bounds the search for a hole between claims.
const maxHoles = 1 << 20

// assignAddress claims an address of a managed network: the lowest that was never used, else the one that has been free
// for longest, so that an address rests as long as possible between two machines.
func (a *applier) assignAddress(network *provisionrv1.Network, machine string) (string, *errs.Error) {
	name := network.GetMetadata().GetName()
	parsed, err := parseNetwork(network)
	if err != nil {
		return "", err
	}
	// Claims are kept when released, so that the used addresses are all those up to the highest claim.
	next := parsed.prefix.Addr()
	if last := a.LastClaim(name); last != nil {
		if addr, err := netip.ParseAddr(last.GetAddress()); err == nil {
			next = addr
		}
	}
	for next = next.Next(); parsed.prefix.Contains(next); next = next.Next() {
		if parsed.usable(next) {
			return a.claimAddress(name, next, machine)
		}
	}
	if free := a.LeastRecentlyReleased(name); free != nil {
		if addr, err := netip.ParseAddr(free.GetAddress()); err == nil {
			return a.claimAddress(name, addr, machine)
		}
	}
	// A network that was not always managed may have holes below its highest claim: one is among so many addresses.
	tries := count(a.Claims(name), maxHoles) + 4
	for addr := parsed.prefix.Addr(); parsed.prefix.Contains(addr) && tries > 0; addr, tries = addr.Next(), tries-1 {
		if parsed.usable(addr) && a.Claim(name, addr.String()) == nil {
			return a.claimAddress(name, addr, machine)
		}
	}
	return "", errs.New(errs.Exhausted, "network %s (%s) has no free address", name, parsed.prefix).
		WithHint("make a larger network, or wait until machines that are going are gone")
}

// claimAddress gives the address to the machine, unless another has it.
func (a *applier) claimAddress(network string, addr netip.Addr, machine string) (string, *errs.Error) {
	address := addr.String()
	present := a.Claim(network, address)
	switch holder := present.GetMachine(); {
	case holder == machine:
		return address, nil
	case holder != "":
		return "", errs.New(errs.Conflict, "address %s of network %s is machine %s's", address, network, holder).
			WithHint("an address is free when its last machine is gone")
	}
	m := &provisionrv1.Metadata{Name: network + "/" + address, Generation: 1, Version: a.version, Created: a.now}
	if present != nil {
		m.Created = present.GetMetadata().GetCreated()
	}
	a.Put(&provisionrv1.AddressClaim{Metadata: m, Network: network, Address: address, Machine: machine})
	a.names = true
	return address, nil
}

// releaseAddresses takes all addresses from a machine. The claims of a managed network stay, to be reused last; where the
// provider assigns addresses they would only pile up.
func (a *applier) releaseAddresses(machine string) {
	for _, claim := range slices.Collect(a.ClaimsOf(machine)) {
		a.names = true
		if !a.Network(claim.GetNetwork()).GetSpec().GetManaged() {
			a.Delete(claim)
			continue
		}
		free := proto.CloneOf(claim)
		free.Machine, free.Released, free.Metadata.Version = "", a.version.GetIndex(), a.version
		a.Put(free)
	}
}
