package fsm

import (
	"fmt"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// parseVpn returns the range of a Vpn. It has room for two addresses at least, beside its first and its last.
func parseVpn(v *provisionrv1.Vpn) (netip.Prefix, *errs.Error) {
	name, cidr := v.GetMetadata().GetName(), v.GetSpec().GetCidr()
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil || prefix.Addr().Is4In6() {
		return netip.Prefix{}, errs.New(errs.Invalid, "vpn %s: %q is not a range", name, clip(cidr, maxName)).WithHint("give a range as 10.90.0.0/16")
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, errs.New(errs.Invalid, "vpn %s: %s is not the first address of its range", name, prefix).WithHint("write %s", prefix.Masked())
	}
	if prefix.Addr().BitLen()-prefix.Bits() < 2 {
		return netip.Prefix{}, errs.New(errs.Invalid, "vpn %s: %s has no room for machines", name, prefix).WithHint("give a larger range, as 10.90.0.0/16")
	}
	return prefix, nil
}

// checkRoutes parses ranges that are reached through a Vpn. One that lies within the Vpn's own range would take addresses from
// it; a wider one is only used for what is outside.
func checkRoutes(what string, own netip.Prefix, routes []string) *errs.Error {
	for _, text := range routes {
		route, err := netip.ParsePrefix(text)
		if err != nil || route.Addr().Is4In6() || route != route.Masked() {
			return errs.New(errs.Invalid, "%s: the route %q is not a range", what, clip(text, maxName)).WithHint("give a range as 10.20.0.0/16")
		}
		if route.Overlaps(own) && route.Bits() >= own.Bits() {
			return errs.New(errs.Invalid, "%s: the route %s lies within the vpn's own range %s", what, route, own)
		}
	}
	return nil
}

func (a *applier) applyVpn(wanted *provisionrv1.Vpn, uid string) *errs.Error {
	if err := a.least(3, "a vpn"); err != nil {
		return err
	}
	name := wanted.GetMetadata().GetName()
	present := a.Vpn(name)
	what, m, err := a.merge("vpn", wanted.GetMetadata(), present.GetMetadata(), uid, proto.Equal(wanted.GetSpec(), present.GetSpec()))
	if err != nil || what == unchanged {
		return err
	}
	prefix, err := parseVpn(wanted)
	if err != nil {
		return err
	}
	if err := checkRoutes("vpn "+name, prefix, wanted.GetSpec().GetRoutes()); err != nil {
		return err
	}
	if err := a.apart("vpn", name, prefix); err != nil {
		return err
	}
	if present == nil && count(a.Vpns(), maxObjects) >= maxObjects {
		return full("vpns")
	}
	if err := a.keepsVpnAddresses(present, prefix); err != nil {
		return err
	}
	a.Put(&provisionrv1.Vpn{ApiVersion: wanted.GetApiVersion(), Kind: wanted.GetKind(), Metadata: m, Spec: wanted.GetSpec()})
	a.changed(what, "Vpn", name, "")
	a.admitWaiting(name)
	return nil
}

// apart refuses a range that has addresses in common with a network or a vpn, but for the one that it is of itself.
func (a *applier) apart(kind, name string, prefix netip.Prefix) *errs.Error {
	conflict := func(otherKind, other string, theirs netip.Prefix) *errs.Error {
		if kind == otherKind && name == other || !theirs.IsValid() || !prefix.IsValid() || !theirs.Overlaps(prefix) {
			return nil
		}
		return errs.New(errs.Conflict, "%s %s (%s) overlaps %s %s (%s)", kind, name, prefix, otherKind, other, theirs)
	}
	for n := range a.Networks() {
		if parsed, err := parseNetwork(n); err == nil {
			if err := conflict("network", n.GetMetadata().GetName(), parsed.prefix); err != nil {
				return err
			}
		}
	}
	for v := range a.Vpns() {
		if theirs, err := parseVpn(v); err == nil {
			if err := conflict("vpn", v.GetMetadata().GetName(), theirs); err != nil {
				return err
			}
		}
	}
	return nil
}

// keepsVpnAddresses refuses another range while addresses are in use; one that the present one is a part of may follow.
func (a *applier) keepsVpnAddresses(present *provisionrv1.Vpn, prefix netip.Prefix) *errs.Error {
	was, err := netip.ParsePrefix(present.GetSpec().GetCidr())
	if err != nil || prefix.Bits() <= was.Bits() && prefix.Contains(was.Addr()) {
		return nil
	}
	name := present.GetMetadata().GetName()
	if used := a.vpnAddresses(name); len(used) > 0 {
		return errs.New(errs.Conflict, "vpn %s: its range %s cannot become %s while %d of its addresses are in use", name, was, prefix, len(used)).
			WithHint("make another vpn, or a larger range that has the present one within")
	}
	return nil
}

// vpnAddresses returns the addresses of machines and peers.
func (a *applier) vpnAddresses(vpn string) []netip.Addr {
	var used []netip.Addr
	add := func(address string) {
		if addr, err := netip.ParseAddr(address); err == nil {
			used = append(used, addr)
		}
	}
	for m := range a.VpnMachines(vpn) {
		add(m.GetStatus().GetVpnAddress())
	}
	for p := range a.VpnPeersOf(vpn) {
		add(p.GetAddress())
	}
	return used
}

// vpnRoom hands out the free addresses of a Vpn, the lowest first, the first and the last of the range left out. It does not
// see what is given back after it was made.
type vpnRoom struct {
	vpn    string
	prefix netip.Prefix
	used   map[netip.Addr]bool
	next   netip.Addr
}

func (a *applier) vpnRoom(v *provisionrv1.Vpn) (*vpnRoom, *errs.Error) {
	prefix, err := parseVpn(v)
	if err != nil {
		return nil, err
	}
	r := &vpnRoom{vpn: v.GetMetadata().GetName(), prefix: prefix, used: map[netip.Addr]bool{}, next: prefix.Addr().Next()}
	for _, address := range a.vpnAddresses(r.vpn) {
		r.used[address] = true
	}
	return r, nil
}

func (r *vpnRoom) take() (string, *errs.Error) {
	for r.used[r.next] {
		r.next = r.next.Next()
	}
	if !r.prefix.Contains(r.next) || !r.prefix.Contains(r.next.Next()) {
		return "", errs.New(errs.Exhausted, "vpn %s (%s) has no free address", r.vpn, r.prefix).
			WithHint("apply a larger range that has the present one within, or delete peers")
	}
	r.used[r.next] = true
	return r.next.String(), nil
}

func (a *applier) freeVpnAddress(v *provisionrv1.Vpn) (string, *errs.Error) {
	room, err := a.vpnRoom(v)
	if err != nil {
		return "", err
	}
	return room.take()
}

func (a *applier) applyVpnPeer(wanted *provisionrv1.VpnPeer, uid string) *errs.Error {
	if err := a.least(3, "a vpn peer"); err != nil {
		return err
	}
	name, spec := wanted.GetMetadata().GetName(), wanted.GetSpec()
	present := a.VpnPeer(name)
	what, m, err := a.merge("vpn peer", wanted.GetMetadata(), present.GetMetadata(), uid, proto.Equal(spec, present.GetSpec()))
	if err != nil || what == unchanged {
		return err
	}
	vpn := a.Vpn(spec.GetVpn())
	if vpn == nil {
		return errs.New(errs.Invalid, "vpn peer %s names vpn %s, which does not exist", name, clip(spec.GetVpn(), maxName))
	}
	prefix, err := parseVpn(vpn)
	if err != nil {
		return err
	}
	if err := checkRoutes("vpn peer "+name, prefix, spec.GetRoutes()); err != nil {
		return err
	}
	if err := a.peerIsApart(name, spec); err != nil {
		return err
	}
	if present == nil && count(a.VpnPeers(), maxObjects) >= maxObjects {
		return full("vpn peers")
	}
	address := present.GetAddress()
	if present.GetSpec().GetVpn() != spec.GetVpn() {
		if address, err = a.freeVpnAddress(vpn); err != nil {
			return err
		}
	}
	a.Put(&provisionrv1.VpnPeer{ApiVersion: wanted.GetApiVersion(), Kind: wanted.GetKind(), Metadata: m, Spec: spec, Address: address})
	a.changed(what, "VpnPeer", name, "")
	return nil
}

// peerIsApart refuses a key or a route that another end of the Vpn has: WireGuard knows ends by their key, and a range leads to
// one of them.
func (a *applier) peerIsApart(name string, spec *provisionrv1.VpnPeerSpec) *errs.Error {
	if !validVpnKey(spec.GetPublicKey()) {
		return errs.New(errs.Invalid, "vpn peer %s: %q is not a public key", name, clip(spec.GetPublicKey(), maxName)).
			WithHint("a key is 32 bytes in base64, as `wg pubkey` prints them")
	}
	for p := range a.VpnPeersOf(spec.GetVpn()) {
		other := p.GetMetadata().GetName()
		if other == name {
			continue
		}
		if p.GetSpec().GetPublicKey() == spec.GetPublicKey() {
			return errs.New(errs.Conflict, "vpn peer %s has the public key of peer %s", name, other).WithHint("make a key of its own for each device")
		}
		for _, route := range spec.GetRoutes() {
			if slices.Contains(p.GetSpec().GetRoutes(), route) {
				return errs.New(errs.Conflict, "vpn peer %s has the route %s of peer %s", name, route, other)
			}
		}
	}
	for m := range a.MachinesWithVpnKey(spec.GetPublicKey()) {
		if m.GetStatus().GetVpn() == spec.GetVpn() {
			return errs.New(errs.Conflict, "vpn peer %s has the public key of machine %s", name, m.GetSpec().GetSlot())
		}
	}
	return nil
}

func (a *applier) deleteVpn(name string) *errs.Error {
	vpn := a.Vpn(name)
	if vpn == nil {
		return notFound("vpn", name)
	}
	if pool := a.poolOf(func(p *provisionrv1.Pool) bool { return p.GetSpec().GetVpn().GetName() == name }); pool != "" {
		return inUse("vpn", name, "pool "+pool)
	}
	for p := range a.VpnPeersOf(name) {
		return inUse("vpn", name, "peer "+p.GetMetadata().GetName())
	}
	a.Delete(vpn)
	return nil
}

func (a *applier) deleteVpnPeer(name string) *errs.Error {
	peer := a.VpnPeer(name)
	if peer == nil {
		return notFound("vpn peer", name)
	}
	a.Delete(peer)
	a.admitWaiting(peer.GetSpec().GetVpn())
	return nil
}

// joinVpn gives a machine, which the caller writes, an address of its pool's Vpn once its key is known, and takes back one of a
// Vpn that the pool is not in. Where no address is free the machine does without: what it reports must not be lost for that. It
// gets one with a later report, or when the Vpn grows or loses a peer.
func (a *applier) joinVpn(pool *provisionrv1.Pool, m *provisionrv1.Machine) {
	slot := m.GetSpec().GetSlot()
	switch joined, err := a.enterVpn(pool, m, nil); {
	case err != nil:
		a.event("VpnAddressMissing", fmt.Sprintf("%s gets no address: %s", slot, err.Message), true, "", m)
	case joined:
		a.event("VpnAddressAssigned", fmt.Sprintf("%s has the address %s in vpn %s", slot, m.Status.GetVpnAddress(), m.Status.GetVpn()), false, "", m)
	}
}

// enterVpn is joinVpn without events. The room is that of the pool's Vpn, or nil.
func (a *applier) enterVpn(pool *provisionrv1.Pool, m *provisionrv1.Machine, room *vpnRoom) (joined bool, err *errs.Error) {
	s, vpn := m.Status, a.Vpn(pool.GetSpec().GetVpn().GetName())
	if s.GetVpn() != "" && s.GetVpn() != vpn.GetMetadata().GetName() {
		s.Vpn, s.VpnAddress = "", ""
	}
	if vpn == nil || s.GetVpn() != "" || s.GetFacts().GetVpnPublicKey() == "" || s.GetPhase() == provisionrv1.Phase_PHASE_GONE {
		return false, nil
	}
	for p := range a.VpnPeersOf(vpn.GetMetadata().GetName()) {
		if p.GetSpec().GetPublicKey() == s.GetFacts().GetVpnPublicKey() {
			return false, errs.New(errs.Conflict, "vpn peer %s has its public key", p.GetMetadata().GetName())
		}
	}
	if room == nil {
		if room, err = a.vpnRoom(vpn); err != nil {
			return false, err
		}
	}
	address, err := room.take()
	if err != nil {
		return false, err
	}
	s.Vpn, s.VpnAddress = vpn.GetMetadata().GetName(), address
	return true, nil
}

// waitsForVpn says that a machine could have an address and has none.
func waitsForVpn(m *provisionrv1.Machine) bool {
	s := m.GetStatus()
	return s.GetVpn() == "" && s.GetFacts().GetVpnPublicKey() != "" && s.GetPhase() != provisionrv1.Phase_PHASE_GONE
}

// admitWaiting gives addresses to the machines that found none free.
func (a *applier) admitWaiting(vpn string) {
	for _, pool := range slices.Collect(a.Pools()) {
		if pool.GetSpec().GetVpn().GetName() == vpn {
			a.enterAll(pool, waitsForVpn)
		}
	}
}

// fitVpn moves the machines of a pool to the Vpn that it is attached to now.
func (a *applier) fitVpn(present, pool *provisionrv1.Pool) {
	if present == nil || present.GetSpec().GetVpn().GetName() == pool.GetSpec().GetVpn().GetName() {
		return
	}
	a.enterAll(pool, func(m *provisionrv1.Machine) bool { return m.GetStatus().GetPhase() != provisionrv1.Phase_PHASE_GONE })
}

// enterAll has machines of a pool enter its Vpn. One event tells of all: there may be thousands.
func (a *applier) enterAll(pool *provisionrv1.Pool, which func(*provisionrv1.Machine) bool) {
	name, vpn := pool.GetMetadata().GetName(), a.Vpn(pool.GetSpec().GetVpn().GetName())
	var room *vpnRoom
	if vpn != nil {
		room, _ = a.vpnRoom(vpn) // without one each machine meets the error itself
	}
	given, missing, why := 0, 0, ""
	for _, row := range slices.Collect(a.MachinesOf(name)) {
		if !which(row) {
			continue
		}
		m, err := a.machine(row.GetMetadata().GetName())
		if err != nil {
			continue
		}
		joined, err := a.enterVpn(pool, m, room)
		switch {
		case err != nil:
			missing++
			why = err.Message
		case joined:
			given++
		}
		if m.GetStatus().GetVpn() != row.GetStatus().GetVpn() {
			a.Put(m)
		}
	}
	if given > 0 {
		a.event("VpnAddressAssigned", fmt.Sprintf("%d machines of pool %s have got addresses in vpn %s", given, name, vpn.GetMetadata().GetName()), false, name, nil)
	}
	if missing > 0 {
		a.event("VpnAddressMissing", fmt.Sprintf("%d machines of pool %s get no address: %s", missing, name, why), true, name, nil)
	}
}
