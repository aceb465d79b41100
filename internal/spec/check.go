package spec

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Validate checks one object by every rule that needs no other object. The error is of kind Invalid and wraps Problems.
func Validate(o *provisionrv1.Object) error {
	return ValidateAll([]*provisionrv1.Object{o}, Options{})
}

// ValidateAll checks a set of objects, and their references to each other and to what options know.
func ValidateAll(objects []*provisionrv1.Object, options Options) error {
	docs := make([]*document, 0, len(objects))
	for _, o := range objects {
		d := &document{object: o, failed: map[string]bool{}}
		if Message(o) == nil || !Message(o).ProtoReflect().IsValid() {
			d.object = nil
			d.complain("", "one of "+list(Kinds()), "the object is of no kind")
		} else if instead, ok := notWritten(KindOf(o)); ok {
			d.complain("kind", instead, "%s cannot be written", KindOf(o))
		}
		docs = append(docs, d)
	}
	return check(docs, options).err()
}

// check runs the rules over decoded documents and returns all problems of all of them.
func check(docs []*document, options Options) Problems {
	var all Problems
	for _, d := range docs {
		if d.object != nil {
			annotated(d)
			own(d)
		}
	}
	checkSet(docs, options)
	for _, d := range docs {
		all = append(all, d.problems...)
	}
	return all
}

// own checks the rules of the object's kind that no annotation can express.
func own(d *document) {
	switch o := d.object.Kind.(type) {
	case *provisionrv1.Object_Pool:
		checkPool(d, o.Pool)
	case *provisionrv1.Object_Zone:
		checkZone(d, o.Zone.GetSpec())
	case *provisionrv1.Object_Network:
		checkNetwork(d, o.Network.GetSpec())
		checkOffers(d, o.Network.GetSpec())
	case *provisionrv1.Object_Vpn:
		checkVpn(d, o.Vpn.GetSpec())
	case *provisionrv1.Object_VpnPeer:
		checkVpnPeer(d, o.VpnPeer.GetSpec())
	case *provisionrv1.Object_Provider:
		checkProvider(d, o.Provider)
	}
}

// unique complains about every key that comes a second time. Empty keys are left to other rules.
func (d *document) unique(path string, n int, key func(int) (field, value string)) {
	first := map[string]int{}
	for i := range n {
		field, value := key(i)
		if value == "" {
			continue
		}
		if before, ok := first[value]; ok {
			p := at(path, i)
			if field != "" {
				p = join(p, field)
			}
			d.complain(p, "", "%s is given twice, first in %s", show(value), at(path, before))
			continue
		}
		first[value] = i
	}
}

func checkZone(d *document, z *provisionrv1.ZoneSpec) {
	domain := z.GetDomain()
	for _, label := range strings.Split(domain, ".") {
		if len(label) > 63 {
			d.complain("spec.domain", "", "has a label of %d characters, but at most 63 are allowed", len(label))
		}
	}
	if strings.HasSuffix(domain, ".arpa") {
		d.complain("spec.domain", "reverse zones follow from the networks", "must not be a reverse zone")
	}
	if strings.HasSuffix(domain, ".local") {
		d.complain("spec.domain", "as "+strings.TrimSuffix(domain, ".local")+".internal", "must not end in .local, which belongs to multicast DNS (RFC 6762)")
	}
	checkRecords(d, "spec.records", domain, true, z.GetRecords())
	checkTransfer(d, z)
}

func checkNetwork(d *document, n *provisionrv1.NetworkSpec) {
	switch {
	case n.GetCidr() != "":
	case n.GetManaged():
		d.complain("spec.cidr", "as cidr: 10.88.0.0/24", "is missing: Provisionr assigns the addresses of a managed network")
	case n.GetProvider() == "":
		d.complain("spec.cidr", "as cidr: 10.88.0.0/24, or name the provider that knows it", "is missing")
	case n.GetGateway() != "":
		d.complain("spec.gateway", "remove it, or give cidr too", "is given without the range that it is in")
	}
	checkLine(d, "spec.id", n.GetId())
	d.unique("spec.subnets", len(n.GetSubnets()), func(i int) (string, string) { return "", n.Subnets[i] })
	for i, subnet := range n.GetSubnets() {
		checkLine(d, at("spec.subnets", i), subnet)
	}
	prefix, err := netip.ParsePrefix(n.GetCidr())
	if err == nil {
		checkRange(d, n, prefix)
		checkReverse(d, n, prefix)
	}
	for i, s := range n.GetNtpServers() {
		if !isHost(s) {
			d.complain(at("spec.ntpServers", i), "", "%s is not a host name or address", show(s))
		}
	}
	for i, s := range n.GetDnsServers() {
		if _, err := netip.ParseAddr(s); err != nil {
			if _, err := netip.ParseAddrPort(s); err != nil {
				d.complain(at("spec.dnsServers", i), `as "10.88.0.1" or "10.88.0.1:53"`, "%s is not an address", show(s))
			}
		}
	}
	p := n.GetHttpProxy()
	if p != "" && !strings.HasPrefix(p, "http://") && !strings.HasPrefix(p, "https://") || strings.ContainsAny(p, " \";") || hasControl(p) {
		d.complain("spec.httpProxy", "as http://10.88.0.1:3142", "%s is not an http or https address", show(p))
	}
}

// hasControl reports what an agent would refuse in a text of one line, and with it the whole desired state.
func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }

func checkRange(d *document, n *provisionrv1.NetworkSpec, prefix netip.Prefix) {
	if masked := prefix.Masked(); masked != prefix {
		d.complain("spec.cidr", "as "+masked.String(), "%s has bits set after its prefix", show(n.Cidr))
		return
	}
	if room := prefix.Addr().BitLen() - prefix.Bits(); room < 2 {
		d.complain("spec.cidr", "use /30 or shorter", "%s has no room for machines", show(n.Cidr))
		return
	}
	gateway := n.GetGateway()
	if gateway == "" {
		return
	}
	address, err := netip.ParseAddr(gateway)
	switch {
	case err != nil:
		d.complain("spec.gateway", "", "%s is not an address", show(gateway))
	case !prefix.Contains(address):
		d.complain("spec.gateway", "", "%s is not in %s", gateway, prefix)
	case address == prefix.Addr():
		d.complain("spec.gateway", "as "+address.Next().String(), "%s is the address of the network itself", gateway)
	case address.Is4() && !prefix.Contains(address.Next()):
		d.complain("spec.gateway", "", "%s is the network's broadcast address", gateway)
	}
}

// isHost reports whether s is an address or a host name (RFC 1123 section 2.1).
func isHost(s string) bool {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Zone() == ""
	}
	name := strings.TrimSuffix(s, ".")
	if name == "" || len(name) > 253 {
		return false
	}
	for _, label := range strings.Split(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' {
				return false
			}
		}
	}
	// A name whose last label is all digits is an address gone wrong, as 10.88.0.256.
	last := name[strings.LastIndexByte(name, '.')+1:]
	return strings.Trim(last, "0123456789") != ""
}

// slotName is the name of a pool's machine.
func slotName(pool string, index uint32) string { return fmt.Sprintf("%s-%d", pool, index) }
