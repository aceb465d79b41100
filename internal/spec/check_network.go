package spec

import (
	"encoding/base64"
	"maps"
	"net/netip"
	"slices"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func checkNetworking(d *document, spec *provisionrv1.PoolSpec) {
	n := spec.GetNetworking()
	addresses := n.GetAddresses()
	d.unique("spec.networking.addresses", len(addresses), func(i int) (string, string) {
		prefix, err := netip.ParsePrefix(addresses[i])
		if err != nil {
			return "", ""
		}
		return "", prefix.Addr().String()
	})
	for i, text := range addresses {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			continue
		}
		a := prefix.Addr()
		if a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() || a.Is4In6() {
			d.complain(at("spec.networking.addresses", i), "", "%s is not an address that a machine can have", show(text))
		}
	}
	seen := map[string]int{}
	for i, r := range n.GetRoutes() {
		p := at("spec.networking.routes", i)
		to, errTo := netip.ParsePrefix(r.To)
		via, errVia := netip.ParseAddr(r.Via)
		if errTo != nil || errVia != nil {
			continue
		}
		switch first, twice := seen[r.To]; {
		case twice:
			d.complain(join(p, "to"), "", "%s is given twice, first in %s", show(r.To), at("spec.networking.routes", first))
		case via.Zone() != "" || via.IsLoopback() || via.IsUnspecified() || via.IsMulticast() || via.Is4In6():
			d.complain(join(p, "via"), "", "%s is not the address of a router", show(r.Via))
		case to.Addr().Is4() != via.Is4():
			d.complain(join(p, "via"), "", "%s is reached through a router of its own kind of address, not %s", r.To, r.Via)
		case to.Bits() == 0:
			d.complain(join(p, "to"), "route the ranges that are meant", "the default route is the provider's")
		default:
			seen[r.To] = i
		}
	}
	if v := spec.GetVpn(); v.GetRelay() && v.GetBehindNat() {
		d.complain("spec.vpn.relay", "remove relay or behindNat", "a relay must be reached by all others")
	}
}

// checkOffers checks what a network has for its machines beside addresses.
func checkOffers(d *document, n *provisionrv1.NetworkSpec) {
	for _, from := range slices.Sorted(maps.Keys(n.GetPackageMirrors())) {
		checkLine(d, under("spec.packageMirrors", from), from)
		checkLine(d, under("spec.packageMirrors", from), n.PackageMirrors[from])
	}
	if n.GetHttpProxy() == "" {
		if n.GetProxyEnvironment() {
			d.complain("spec.proxyEnvironment", "give httpProxy too", "there is no proxy to tell of")
		}
		if len(n.GetNoProxy()) > 0 {
			d.complain("spec.noProxy", "give httpProxy too", "there is no proxy to go without")
		}
	}
	d.unique("spec.noProxy", len(n.GetNoProxy()), func(i int) (string, string) { return "", n.NoProxy[i] })
}

func checkVpn(d *document, v *provisionrv1.VpnSpec) {
	prefix, err := netip.ParsePrefix(v.GetCidr())
	switch {
	case err != nil || prefix.Masked() != prefix:
		return // left to the annotated rule
	case prefix.Addr().Is4In6():
		d.complain("spec.cidr", "write it as an IPv4 range", "%s is an IPv4 range within IPv6", show(v.Cidr))
	case prefix.Addr().BitLen()-prefix.Bits() < 2:
		d.complain("spec.cidr", "as 10.90.0.0/16", "%s has no room for machines", show(v.Cidr))
	case prefix.Addr().IsLoopback() || prefix.Addr().IsMulticast() || prefix.Bits() == 0:
		d.complain("spec.cidr", "as 10.90.0.0/16", "%s is not a range for machines", show(v.Cidr))
	}
	checkRoutes(d, v.GetRoutes(), prefix, "the vpn's own range")
}

// checkRoutes complains about routes that a Vpn's own range makes pointless: one within it would take addresses from it.
func checkRoutes(d *document, routes []string, own netip.Prefix, what string) {
	for i, text := range routes {
		route, err := netip.ParsePrefix(text)
		if err != nil {
			continue
		}
		switch {
		case route.Addr().Is4In6():
			d.complain(at("spec.routes", i), "write it as an IPv4 range", "%s is an IPv4 range within IPv6", show(text))
		case own.IsValid() && route.Overlaps(own) && route.Bits() >= own.Bits():
			d.complain(at("spec.routes", i), "", "%s lies within %s %s", text, what, own)
		}
	}
}

func checkVpnPeer(d *document, p *provisionrv1.VpnPeerSpec) {
	checkRoutes(d, p.GetRoutes(), netip.Prefix{}, "")
	if key, err := base64.StdEncoding.DecodeString(p.GetPublicKey()); err == nil && len(key) == 32 && strings.Trim(string(key), "\x00") == "" {
		d.complain("spec.publicKey", "44 characters, as `wg pubkey` prints", "is no key: all of it is zero")
	}
}

// ranges checks that the ranges of the set's Vpns overlap neither with each other nor with Networks, and that no key is used
// twice.
func (s *set) ranges(docs []*document) {
	type owner struct {
		what   string
		prefix netip.Prefix
	}
	var owners []owner
	for _, d := range docs {
		if prefix, err := netip.ParsePrefix(d.object.GetNetwork().GetSpec().GetCidr()); err == nil {
			owners = append(owners, owner{"network " + Name(d.object), prefix})
		}
	}
	keys := map[string]string{}
	for _, d := range docs {
		if spec := d.object.GetVpn().GetSpec(); spec != nil {
			prefix, err := netip.ParsePrefix(spec.GetCidr())
			if err != nil {
				continue
			}
			for _, o := range owners {
				if o.prefix.Overlaps(prefix) {
					d.complain("spec.cidr", "use a range of its own", "%s overlaps with %s of %s", prefix, o.prefix, o.what)
					break
				}
			}
			owners = append(owners, owner{"vpn " + Name(d.object), prefix})
		}
		if spec := d.object.GetVpnPeer().GetSpec(); spec.GetPublicKey() != "" {
			if first, ok := keys[spec.PublicKey]; ok {
				d.complain("spec.publicKey", "every device has a key of its own", "is that of peer %s", first)
			}
			keys[spec.PublicKey] = Name(d.object)
			if vpn := s.objects["Vpn/"+spec.GetVpn()]; vpn != nil {
				if own, err := netip.ParsePrefix(vpn.object.GetVpn().GetSpec().GetCidr()); err == nil {
					checkRoutes(d, spec.GetRoutes(), own, "the range of vpn "+spec.GetVpn()+",")
				}
			}
		}
	}
}
