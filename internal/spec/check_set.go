package spec

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// UnitName completes the name of a systemd unit: nginx is nginx.service.
func UnitName(name string) string {
	switch path.Ext(name) {
	case ".service", ".socket", ".timer", ".path", ".mount", ".target", ".automount", ".swap", ".slice":
		return name
	}
	return name + ".service"
}

func checkServices(d *document, spec *provisionrv1.PoolSpec) {
	services := spec.Services
	d.unique("spec.services", len(services), func(i int) (string, string) {
		if services[i].Name == "" {
			return "name", ""
		}
		return "name", UnitName(services[i].Name)
	})
	var files []string
	for _, f := range spec.Files {
		if !f.Absent {
			files = append(files, f.Path)
		}
	}
	for i, s := range services {
		p := at("spec.services", i)
		if UnitName(s.Name) == "provisionr-agent.service" {
			d.complain(join(p, "name"), "", "the agent is not a service of the pool")
		}
		d.unique(join(p, "restartOn"), len(s.RestartOn), func(j int) (string, string) { return "", s.RestartOn[j] })
		for j, file := range s.RestartOn {
			if !slices.Contains(files, file) {
				hint := near(file, files)
				if hint == "" {
					hint = "declare it in spec.files"
				}
				d.complain(at(join(p, "restartOn"), j), hint, "%s is not a file of this pool", show(file))
			}
		}
	}
}

// set is what a whole set of documents says.
type set struct {
	options Options
	// objects are the documents by KIND/NAME; names have who owns a DNS name, by ZONE/NAME.
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
	for _, d := range docs {
		if p := d.object.GetPool(); p != nil {
			s.claimNames(d, p)
		}
	}
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
		for i, r := range spec.GetFirewall().GetRules() {
			for j, from := range r.From {
				if name, ok := strings.CutPrefix(from, "pool:"); ok {
					refer("Pool", name, at(at("spec.firewall.rules", i)+".from", j))
				}
			}
		}
		for i, from := range spec.GetFirewall().GetSshFrom() {
			if name, ok := strings.CutPrefix(from, "pool:"); ok {
				refer("Pool", name, at("spec.firewall.sshFrom", i))
			}
		}
	case *provisionrv1.Object_Network:
		refer("Provider", o.Network.GetSpec().GetProvider(), "spec.provider")
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
	claim := func(path, label string) {
		key := zoneOf(p) + "/" + label
		if owner, ok := s.names[key]; ok && owner != name {
			d.complain(path, "names are unique within a zone", "%s is taken by pool %s", show(label), owner)
			return
		}
		s.names[key] = name
	}
	if name != "" && s.objects["Pool/"+name] == d {
		claim("metadata.name", name)
		for i, a := range p.GetSpec().GetAliases() {
			claim(at("spec.aliases", i), a)
		}
	}
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
