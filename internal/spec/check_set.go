package spec

import (
	"fmt"
	"strconv"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// set is what a whole set of documents says.
type set struct {
	options Options
	// objects are the documents by KIND/NAME; names have who owns a DNS name, as pool web, by ZONE/NAME.
	objects map[string]*document
	names   map[string]string
}

// checkSet checks rules across documents.
func checkSet(docs []*document, options Options) {
	s := &set{options: options, objects: map[string]*document{}, names: map[string]string{}}
	for _, d := range docs {
		name := Name(d.object)
		if d.object == nil || name == "" {
			continue
		}
		id := KindOf(d.object) + "/" + name
		if first, ok := s.objects[id]; ok {
			where := ""
			if p := first.find("metadata.name"); p.line > 0 {
				where = fmt.Sprintf(", first at %s:%d", first.file, p.line)
			}
			d.complain("metadata.name", "names are unique within a kind", "%s %s is given twice%s", KindOf(d.object), name, where)
			continue
		}
		s.objects[id] = d
	}
	for _, d := range docs {
		if d.object != nil {
			s.references(d)
		}
		if p := d.object.GetPool().GetSpec(); p != nil {
			s.poolOfKind(d, p)
		}
		if n := d.object.GetNetwork().GetSpec(); n != nil {
			s.networkOfKind(d, n)
		}
	}
	s.ranges(docs)
	for _, d := range docs {
		if p := d.object.GetPool(); p != nil {
			s.claimNames(d, p)
		}
	}
	s.recordNames(docs)
	for _, d := range docs {
		if p := d.object.GetPool(); p != nil {
			s.slotNames(d, p)
		}
	}
}

// references checks that what an object names exists, as far as that is known.
func (s *set) references(d *document) {
	refer := func(kind, name, path string) {
		if name == "" || s.options.Known == nil || s.objects[kind+"/"+name] != nil || s.options.Known(kind, name) {
			return
		}
		d.complain(path, "apply it first, or in the same manifest", "there is no %s %s", kind, show(name))
	}
	switch o := d.object.Kind.(type) {
	case *provisionrv1.Object_Pool:
		spec := o.Pool.GetSpec()
		refer("Provider", spec.GetProvider(), "spec.provider")
		refer("Zone", spec.GetZone(), "spec.zone")
		refer("Network", spec.GetNetwork(), "spec.network")
		refer("Vpn", spec.GetVpn().GetName(), "spec.vpn.name")
		firewallEnds(spec.GetFirewall(), func(end, path string) {
			kind, name, _ := strings.Cut(end, ":")
			switch kind {
			case "pool":
				refer("Pool", name, path)
			case "machine":
				pool, index := poolOfSlot(name)
				refer("Pool", pool, path)
				if other := s.objects["Pool/"+pool]; other != nil && other != d && index > uint64(other.object.GetPool().GetSpec().GetSize()) {
					d.complain(path, "", "%s does not exist: pool %s has size %d", name, pool, other.object.GetPool().GetSpec().GetSize())
				}
			}
		})
	case *provisionrv1.Object_VpnPeer:
		refer("Vpn", o.VpnPeer.GetSpec().GetVpn(), "spec.vpn")
	case *provisionrv1.Object_Network:
		refer("Provider", o.Network.GetSpec().GetProvider(), "spec.provider")
	}
}

// firewallEnds calls f with every source and destination of a firewall's rules.
func firewallEnds(firewall *provisionrv1.Firewall, f func(end, path string)) {
	for i, r := range firewall.GetRules() {
		for j, from := range r.From {
			f(from, at(at("spec.firewall.rules", i)+".from", j))
		}
	}
	for i, from := range firewall.GetSshFrom() {
		f(from, at("spec.firewall.sshFrom", i))
	}
	for i, r := range firewall.GetEgress() {
		for j, to := range r.To {
			f(to, at(at("spec.firewall.egress", i)+".to", j))
		}
	}
}

func zoneOf(p *provisionrv1.Pool) string {
	if z := p.GetSpec().GetZone(); z != "" {
		return z
	}
	return defaultName
}

// claimNames registers the pool's own name and its aliases.
func (s *set) claimNames(d *document, p *provisionrv1.Pool) {
	name := p.GetMetadata().GetName()
	if name != "" && s.objects["Pool/"+name] == d {
		s.claim(d, zoneOf(p), "pool "+name, "metadata.name", name)
		for i, a := range p.GetSpec().GetAliases() {
			s.claim(d, zoneOf(p), "pool "+name, at("spec.aliases", i), a)
		}
	}
}

// claim registers a name of a zone, and complains where it is taken.
func (s *set) claim(d *document, zone, owner, path, name string) {
	if name == "" {
		return
	}
	key := zone + "/" + name
	if first, ok := s.names[key]; ok {
		d.complain(path, "names are unique within a zone", "%s is taken by %s", show(name), first)
		return
	}
	s.names[key] = owner
}

// slotNames checks that no pool is named like a machine of another pool of its zone.
func (s *set) slotNames(d *document, p *provisionrv1.Pool) {
	name := p.GetMetadata().GetName()
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return
	}
	index, err := strconv.ParseUint(name[i+1:], 10, 32)
	other := s.objects["Pool/"+name[:i]]
	if err != nil || other == nil || zoneOf(other.object.GetPool()) != zoneOf(p) {
		return
	}
	if index >= 1 && uint32(index) <= other.object.GetPool().GetSpec().GetSize() {
		d.complain("metadata.name", "use another name", "%s is the name of a machine of pool %s", show(name), name[:i])
	}
}
