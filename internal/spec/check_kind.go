package spec

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// kindRules say what a kind of provider has to offer. What it has not is refused before anybody asks it.
type kindRules struct {
	// images are the selectors of images that it knows.
	images []string
	// types, disks and spot: machine types, disks beside the root disk's size, capacity that is taken back.
	types, disks, spot bool
	// placement are the fields of Placement that mean something to it.
	placement []string
	// network says how its networks get their addresses.
	network networkRule
	// sharedKernel says that its machines are containers of one host.
	sharedKernel bool
}

type networkRule int

const (
	// cloudNetwork exists at the provider, which assigns the addresses and knows the range.
	cloudNetwork networkRule = iota
	// eitherNetwork exists at the provider; Provisionr may assign the addresses.
	eitherNetwork
	// hostNetwork is made on the owner's host, with the range and the addresses that Provisionr gives.
	hostNetwork
	// foreignNetwork is what a person says it is.
	foreignNetwork
)

// rulesOf returns the rules of a kind; false for one that has none.
func rulesOf(kind string) (kindRules, bool) {
	all := []string{"zones", "group", "publicAddress", "ipv6", "keyPair", "identity", "publicNetwork"}
	r, ok := map[string]kindRules{
		"local":  {network: hostNetwork, sharedKernel: true},
		"static": {network: foreignNetwork},
		"qemu":   {images: []string{"url"}, disks: true, network: hostNetwork},
		"aws": {images: []string{"id", "parameter", "name"}, types: true, disks: true, spot: true,
			placement: []string{"zones", "group", "publicAddress", "ipv6", "keyPair", "identity"}},
		"gce": {images: []string{"id", "family", "name"}, types: true, disks: true, spot: true,
			placement: []string{"zones", "group", "publicAddress", "ipv6", "identity"}},
		"openstack": {images: []string{"id", "name"}, types: true, disks: true,
			placement: []string{"zones", "group", "publicAddress", "ipv6", "keyPair", "publicNetwork"}, network: eitherNetwork},
		"sim": {images: []string{"id", "parameter", "family", "url", "name"}, types: true, disks: true, spot: true,
			placement: all, network: eitherNetwork},
	}[kind]
	return r, ok
}

// Cloud reports whether a kind of provider has networks, images and machine types of its own.
func Cloud(kind string) bool {
	r, ok := rulesOf(kind)
	return ok && (r.network == cloudNetwork || r.network == eitherNetwork)
}

// provider returns the provider of that name, of the set or of what options know; nil if there is none.
func (s *set) provider(name string) *provisionrv1.Provider {
	if d := s.objects["Provider/"+name]; d != nil {
		return d.object.GetProvider()
	}
	if s.options.Provider != nil {
		return s.options.Provider(name)
	}
	return nil
}

// poolOfKind checks what a pool wants against what its provider's kind has.
func (s *set) poolOfKind(d *document, spec *provisionrv1.PoolSpec) {
	name := or(spec.GetProvider(), LocalName)
	p := s.provider(name)
	kind := ProviderKind(p)
	if p == nil && name == LocalName {
		kind = LocalName
	}
	rules, ok := rulesOf(kind)
	if !ok {
		return
	}
	no := func(path, what string) {
		d.complain(path, "remove it, or use another provider", "a provider of kind %s has no %s", kind, what)
	}
	h := spec.GetHardware()
	if len(h.GetTypes()) > 0 && !rules.types {
		no("spec.hardware.types", "machine types")
	}
	if len(h.GetDisks()) > 0 && !rules.disks {
		no("spec.hardware.disks", "further disks")
	}
	if h.GetRootDisk() != nil && !rules.disks {
		no("spec.hardware.rootDisk", "choice of disks")
	}
	if spec.GetSpot() != nil && !rules.spot {
		no("spec.spot", "spot capacity")
	}
	if rules.sharedKernel {
		hostGlobal(d, spec, kind)
	}
	for _, given := range selectors(spec.GetImage()) {
		switch {
		case slices.Contains(rules.images, given.name):
		case len(rules.images) == 0:
			no("spec.image", "choice of images")
		default:
			d.complain("spec.image."+given.name, "give "+oneOf(rules.images), "a provider of kind %s knows no image by %s", kind, given.name)
		}
	}
	if i := spec.GetImage(); kind == "aws" && i.GetName() != "" && i.GetOwner() == "" {
		d.complain("spec.image.owner", "self, amazon, or the number of the account", "is missing: anybody may publish an image under any name")
	}
	placement(d, spec.GetPlacement(), kind, rules)
	for i, z := range spec.GetPlacement().GetZones() {
		if region := p.GetSpec().GetAws().GetRegion(); region != "" && p.GetSpec().GetAws().GetEc2().GetUrl() == "" && !strings.HasPrefix(z, region) {
			d.complain(at("spec.placement.zones", i), "as "+region+"a", "%s is not in the provider's region %s", show(z), region)
		}
		if region := p.GetSpec().GetGce().GetRegion(); region != "" && p.GetSpec().GetGce().GetCompute().GetUrl() == "" && !strings.HasPrefix(z, region+"-") {
			d.complain(at("spec.placement.zones", i), "as "+region+"-a", "%s is not in the provider's region %s", show(z), region)
		}
	}
}

// hostGlobal complains about what belongs to the host that the machines of a pool share.
func hostGlobal(d *document, spec *provisionrv1.PoolSpec, kind string) {
	shared := func(given bool, path, what string) {
		if given {
			d.complain(path, "use a provider of kind qemu, or a cloud", "machines of a provider of kind %s share %s with their host", kind, what)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spec.GetSysctl())) {
		shared(!strings.HasPrefix(sysctlPath(name), "net/"), under("spec.sysctl", name), "this kernel parameter")
	}
	shared(len(spec.GetModules()) > 0, "spec.modules", "the kernel's modules")
	shared(spec.GetSwap() != nil, "spec.swap", "swap")
	shared(len(spec.GetFilesystems()) > 0, "spec.filesystems", "the disks")
	shared(spec.GetOsPolicy().GetSelinux() != "", "spec.osPolicy.selinux", "SELinux")
	shared(spec.GetOsPolicy().GetApparmor() != "", "spec.osPolicy.apparmor", "AppArmor")
}

func placement(d *document, p *provisionrv1.Placement, kind string, rules kindRules) {
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"zones", len(p.GetZones()) > 0}, {"group", p.GetGroup() != ""}, {"publicAddress", p.GetPublicAddress()}, {"ipv6", p.GetIpv6()},
		{"keyPair", p.GetKeyPair() != ""}, {"identity", p.GetIdentity() != ""}, {"publicNetwork", p.GetPublicNetwork() != ""},
	} {
		if f.given && !slices.Contains(rules.placement, f.name) {
			d.complain("spec.placement."+f.name, "remove it, or use another provider", "it means nothing to a provider of kind %s", kind)
		}
	}
}

// networkOfKind checks a network against what its provider's kind does with networks.
func (s *set) networkOfKind(d *document, n *provisionrv1.NetworkSpec) {
	p := s.provider(n.GetProvider())
	kind := ProviderKind(p)
	rules, ok := rulesOf(kind)
	if !ok {
		return
	}
	own := rules.network == hostNetwork || rules.network == foreignNetwork
	if n.GetCidr() == "" && own {
		d.complain("spec.cidr", "as cidr: 10.89.0.0/24", "is missing: only a cloud can say it")
	}
	switch rules.network {
	case cloudNetwork:
		if n.GetManaged() {
			d.complain("spec.managed", "remove it", "a provider of kind %s assigns the addresses itself", kind)
		}
	case hostNetwork:
		if !n.GetManaged() {
			d.complain("spec.managed", "as managed: true", "a provider of kind %s takes the addresses that Provisionr assigns", kind)
		}
		if prefix, err := netip.ParsePrefix(n.GetCidr()); err == nil && prefix.Addr().Is6() {
			d.complain("spec.cidr", "as 10.89.0.0/24", "a provider of kind %s has IPv4 networks only", kind)
		}
	case foreignNetwork:
		if n.GetManaged() {
			d.complain("spec.managed", "remove it", "machines that are adopted have their addresses already")
		}
	}
	if own && n.GetId() != "" {
		d.complain("spec.id", "remove it", "a provider of kind %s has no networks of its own", kind)
	}
	if own && len(n.GetSubnets()) > 0 {
		d.complain("spec.subnets", "remove it", "a provider of kind %s has no subnets", kind)
	}
}
