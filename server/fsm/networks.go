package fsm

import (
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// addressing is a network's parsed range. A network that is not managed may have none until its provider has said which.
type addressing struct {
	prefix  netip.Prefix
	gateway netip.Addr
}

func parseNetwork(n *provisionrv1.Network) (addressing, *errs.Error) {
	name, spec := n.GetMetadata().GetName(), n.GetSpec()
	if spec.GetCidr() == "" && !spec.GetManaged() && spec.GetProvider() != "" {
		return addressing{}, nil
	}
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

// overlaps reports whether two ranges have an address in common. A range that is not known yet overlaps nothing.
func (n addressing) overlaps(other addressing) bool {
	return n.prefix.IsValid() && other.prefix.IsValid() && n.prefix.Overlaps(other.prefix)
}

// usable reports whether a machine may have the address: not the network's own, the broadcast or the gateway's. Every
// address may be one of a range that is not known yet.
func (n addressing) usable(addr netip.Addr) bool {
	if !n.prefix.IsValid() {
		return addr.IsValid()
	}
	if !addr.IsValid() || !n.prefix.Contains(addr) || addr == n.prefix.Addr() || addr == n.gateway {
		return false
	}
	last := !n.prefix.Contains(addr.Next())
	return !(addr.Is4() && last && n.prefix.Bits() < 31)
}

func (a *applier) applyNetwork(wanted *provisionrv1.Network, uid string) *errs.Error {
	name := wanted.GetMetadata().GetName()
	present := a.Network(name)
	wanted = a.remember(present, wanted)
	what, m, err := a.merge("network", wanted.GetMetadata(), present.GetMetadata(), uid, sameNetwork(wanted, present))
	if err != nil || what == unchanged {
		return err
	}
	parsed, err := parseNetwork(wanted)
	if err != nil {
		return err
	}
	if !parsed.prefix.IsValid() && a.level() < 2 {
		return errs.New(errs.Invalid, "network %s: %q is not a range", name, "").WithHint("give a range as 10.88.0.0/24")
	}
	if err := a.checkReverse(wanted, parsed); err != nil {
		return err
	}
	for other := range a.Networks() {
		if theirs, err := parseNetwork(other); err == nil && other.GetMetadata().GetName() != name && theirs.overlaps(parsed) {
			return errs.New(errs.Conflict, "network %s (%s) overlaps network %s (%s)", name, parsed.prefix, other.GetMetadata().GetName(), theirs.prefix)
		}
	}
	for v := range a.Vpns() {
		if theirs, err := parseVpn(v); err == nil && parsed.overlaps(addressing{prefix: theirs}) {
			return errs.New(errs.Conflict, "network %s (%s) overlaps vpn %s (%s)", name, parsed.prefix, v.GetMetadata().GetName(), theirs)
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
	a.Put(&provisionrv1.Network{
		ApiVersion: wanted.GetApiVersion(), Kind: wanted.GetKind(), Metadata: m, Spec: wanted.GetSpec(), Written: wanted.GetWritten(),
	})
	a.names = true
	a.changed(what, "Network", name, "")
	return nil
}

// checkReverse checks which reverse zones a network asks for. A range that the provider says fits all: it may come later,
// and where it is too large for classless zones it has whole ones.
func (a *applier) checkReverse(n *provisionrv1.Network, parsed addressing) *errs.Error {
	reverse, name := n.GetSpec().GetReverse(), n.GetMetadata().GetName()
	switch {
	case !a.NamesLevel() || reverse == "" || reverse == "octet":
		return nil
	case reverse != "classless":
		return errs.New(errs.Invalid, "network %s: reverse is octet or classless, not %q", name, clip(reverse, maxName))
	case n.GetWritten().GetCidr() != "" && parsed.prefix.IsValid() && (!parsed.prefix.Addr().Is4() || parsed.prefix.Bits() <= 24):
		return errs.New(errs.Invalid, "network %s: %s has whole reverse zones", name, parsed.prefix).
			WithHint("classless reverse zones (RFC 2317) are for IPv4 ranges longer than 24 bits")
	}
	return nil
}

// remember returns a network as it is to be recorded: with what the user wrote, and completed by what the provider had added
// to that before, so that nothing that machines use goes away until the provider has completed it anew. What says what was
// written is such a completion already. Level 1 took all for written.
func (a *applier) remember(present, wanted *provisionrv1.Network) *provisionrv1.Network {
	out := proto.CloneOf(wanted)
	switch {
	case a.level() < 2 || out.GetSpec() == nil:
		out.Written = nil
	case out.GetWritten() == nil:
		out.Written = proto.CloneOf(out.GetSpec())
		carryOver(present, out.GetSpec())
	}
	return out
}

// carryOver fills in what the provider had added to the same network. Where the range or the gateway change, what was derived
// from them does not hold.
func carryOver(present *provisionrv1.Network, is *provisionrv1.NetworkSpec) {
	was, wrote := present.GetSpec(), present.GetWritten()
	if is.GetProvider() == "" || was.GetProvider() != is.GetProvider() || was.GetId() != is.GetId() || !slices.Equal(was.GetSubnets(), is.GetSubnets()) {
		return
	}
	if is.GetCidr() == "" && wrote.GetCidr() == "" && !is.GetManaged() && !was.GetManaged() {
		is.Cidr = was.GetCidr()
	}
	if wrote == nil || is.GetCidr() != was.GetCidr() {
		return
	}
	if !wrote.GetManaged() {
		is.Managed = is.GetManaged() || was.GetManaged()
	}
	if is.GetGateway() == "" && wrote.GetGateway() == "" {
		is.Gateway = was.GetGateway()
	}
	if is.GetGateway() != was.GetGateway() {
		return
	}
	if len(is.GetNtpServers()) == 0 && len(wrote.GetNtpServers()) == 0 {
		is.NtpServers = slices.Clone(was.GetNtpServers())
	}
	if len(is.GetDnsServers()) == 0 && len(wrote.GetDnsServers()) == 0 {
		is.DnsServers = slices.Clone(was.GetDnsServers())
	}
	if is.GetHttpProxy() == "" && wrote.GetHttpProxy() == "" {
		is.HttpProxy = was.GetHttpProxy()
	}
}

// sameNetwork compares specifications, and what was written where that is known.
func sameNetwork(a, b *provisionrv1.Network) bool {
	return proto.Equal(a.GetSpec(), b.GetSpec()) && (a.GetWritten() == nil || b.GetWritten() == nil || proto.Equal(a.GetWritten(), b.GetWritten()))
}

// keepsAddresses refuses a change that would take an address from a machine, and forgets free ones that fall away.
func (a *applier) keepsAddresses(present, wanted *provisionrv1.Network, parsed addressing) *errs.Error {
	name := present.GetMetadata().GetName()
	for _, claim := range slices.Collect(a.Claims(name)) {
		addr, err := netip.ParseAddr(claim.GetAddress())
		// An IPv6 address beside an IPv4 one is none of the range's.
		if err == nil && (parsed.usable(addr) || a.level() >= 2 && addr.Is6() && parsed.prefix.Addr().Is4()) {
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
		if parsed.usable(next) && a.elsewhere(name, next.String(), machine) == "" {
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
		if parsed.usable(addr) && a.Claim(name, addr.String()) == nil && a.elsewhere(name, addr.String(), machine) == "" {
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
	if other := a.elsewhere(network, address, machine); other != "" {
		return "", errs.New(errs.Conflict, "address %s is machine %s's in another network: it can have one name only", address, other).
			WithHint("networks that have addresses in common cannot be in one cluster")
	}
	m := &provisionrv1.Metadata{Name: network + "/" + address, Generation: 1, Version: a.version, Created: a.now}
	if present != nil {
		m.Created = present.GetMetadata().GetCreated()
	}
	a.Put(&provisionrv1.AddressClaim{Metadata: m, Network: network, Address: address, Machine: machine})
	a.names = true
	return address, nil
}

// elsewhere returns the machine that has an address in another routing domain, if there is one but the machine itself. A
// provider may report an address outside the range of its network, which another network's machine has; yet an address has
// one pointer. Level 1 did not look.
func (a *applier) elsewhere(network, address, machine string) string {
	if a.level() < 2 {
		return ""
	}
	domains := func(yield func(string) bool) {
		for n := range a.Networks() {
			if !yield(n.GetMetadata().GetName()) {
				return
			}
		}
		for p := range a.Providers() {
			if !yield(state.ProviderDomain(p.GetMetadata().GetName())) {
				return
			}
		}
	}
	for domain := range domains {
		if holder := a.Claim(domain, address).GetMachine(); domain != network && holder != "" && holder != machine {
			return holder
		}
	}
	return ""
}

// releaseAddresses takes all addresses from a machine. The claims of a managed network stay, to be reused last; where the
// provider assigns addresses they would only pile up.
func (a *applier) releaseAddresses(machine string) {
	for _, claim := range slices.Collect(a.ClaimsOf(machine)) {
		a.releaseAddress(claim, machine)
	}
}

// releaseAddress takes one address from a machine, if the claim is the machine's.
func (a *applier) releaseAddress(claim *provisionrv1.AddressClaim, machine string) {
	if claim.GetMachine() != machine {
		return
	}
	a.names = true
	if !a.Network(claim.GetNetwork()).GetSpec().GetManaged() {
		a.Delete(claim)
		return
	}
	free := proto.CloneOf(claim)
	free.Machine, free.Released, free.Metadata.Version = "", a.version.GetIndex(), a.version
	a.Put(free)
}
