package spec

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// apexName stands for the domain itself.
const apexName = "@"

// maxFullName bounds a whole name without final dot (RFC 1035 section 2.3.4), in bytes.
const maxFullName = 253

// checkRecords checks static records as far as their owner shows them. The domain is empty where it is not known; the apex is
// for zones only.
func checkRecords(d *document, path, domain string, apex bool, records []*provisionrv1.StaticRecord) {
	d.unique(path, len(records), func(i int) (string, string) { return "name", records[i].Name })
	for i, r := range records {
		p := at(path, i)
		checkRecordName(d, p, domain, apex, r)
		checkRecordData(d, p, domain, r)
	}
	checkLoops(d, path, domain, records)
}

func checkRecordName(d *document, path, domain string, apex bool, r *provisionrv1.StaticRecord) {
	switch {
	case r.GetName() != apexName:
	case !apex:
		d.complain(path+".name", "write it into the Zone", "what the domain itself has is for its zone to say")
		return
	case len(r.GetAddresses()) > 0:
		d.complain(path+".addresses", "", "the domain itself has no addresses")
	case r.GetCname() != "":
		d.complain(path+".cname", "", "the domain itself cannot be an alias")
	}
	name := r.GetName()
	switch {
	case strings.HasSuffix(name, ".role"):
		d.complain(path+".name", "names below role are those of spec.roles of pools", "%s is reserved", show(name))
	case len(name)+1+len(domain) > maxFullName && domain != "":
		d.complain(path+".name", "", "is too long: with the domain it has %d characters, but at most %d are allowed", len(name)+1+len(domain), maxFullName)
	}
}

func checkRecordData(d *document, path, domain string, r *provisionrv1.StaticRecord) {
	others := len(r.GetAddresses()) + len(r.GetText()) + len(r.GetServices()) + len(r.GetCaa())
	switch {
	case r.GetCname() == "" && others == 0:
		d.complain(path, "give addresses, cname, text, services or caa", "says nothing of its name")
	case r.GetCname() != "" && others > 0:
		d.complain(path+".cname", "an alias has no other data (RFC 1034 section 3.6.2): remove it, or all else", "stands beside other data")
	case r.GetCname() != "":
		checkTarget(d, path+".cname", r.GetCname(), domain)
	}
	d.unique(path+".addresses", len(r.GetAddresses()), func(i int) (string, string) { return "", r.Addresses[i] })
	for i, a := range r.GetAddresses() {
		if addr, err := netip.ParseAddr(a); err == nil && (addr.Zone() != "" || addr.Is4In6()) {
			d.complain(at(path+".addresses", i), "", "%s is not an address that a name can have", show(a))
		}
	}
	d.unique(path+".text", len(r.GetText()), func(i int) (string, string) { return "", r.Text[i] })
	for i, s := range r.GetServices() {
		checkTarget(d, at(path+".services", i)+".target", s.GetTarget(), domain)
	}
	for i, c := range r.GetCaa() {
		if !isCAA(c) {
			d.complain(at(path+".caa", i), `as 0 issue "ca.example.net"`, "%s is not a CAA record (RFC 8659)", show(c))
		}
	}
}

// checkTarget checks the name that a record refers to.
func checkTarget(d *document, path, target, domain string) {
	if target == "" {
		return // left to the annotated rule
	}
	full := absolute(target, domain)
	if domain != "" && strings.HasSuffix(target, "."+domain) {
		d.complain(path, "as "+strings.TrimSuffix(target, "."+domain)+", or "+target+".", "%s is relative to the domain: it would be %s", show(target), full)
		return
	}
	for label := range strings.SplitSeq(full, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			d.complain(path, "relative to the domain as db, or with a final dot as db.example.org.", "%s is not a name", show(target))
			return
		}
	}
	if len(full) > maxFullName {
		d.complain(path, "", "is too long: the whole name has %d characters, but at most %d are allowed", len(full), maxFullName)
	}
}

// absolute returns the whole name, without final dot, of one that is relative to a domain unless it has a final dot.
func absolute(name, domain string) string {
	if full, ok := strings.CutSuffix(name, "."); ok || domain == "" {
		return full
	}
	return name + "." + domain
}

// checkLoops complains about aliases of each other.
func checkLoops(d *document, path, domain string, records []*provisionrv1.StaticRecord) {
	targets := map[string]string{}
	for _, r := range records {
		if r.GetCname() != "" {
			targets[absolute(r.GetName(), domain)] = absolute(r.GetCname(), domain)
		}
	}
	for i, r := range records {
		start := absolute(r.GetName(), domain)
		name := start
		for range len(targets) {
			if name = targets[name]; name == "" {
				break
			}
			if name == start {
				d.complain(at(path, i)+".cname", "an alias leads to a name with data", "%s is an alias of itself", show(r.GetName()))
				break
			}
		}
	}
}

// isCAA reports whether a text is the data of a CAA record (RFC 8659 section 4.1.1), with a value without escapes.
func isCAA(text string) bool {
	flags, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	tag, value, found := strings.Cut(strings.TrimSpace(rest), " ")
	value = strings.TrimSpace(value)
	if _, err := strconv.ParseUint(flags, 10, 8); err != nil || !found || len(tag) == 0 || len(tag) > 15 {
		return false
	}
	if inner, quoted := strings.CutPrefix(value, `"`); quoted {
		if value, found = strings.CutSuffix(inner, `"`); !found {
			return false
		}
	} else if strings.ContainsAny(value, " \t") {
		return false
	}
	foreign := func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }
	odd := func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') }
	return !strings.ContainsFunc(value, foreign) && !strings.ContainsFunc(tag, odd)
}

// checkTransfer checks who may have copies of a zone.
func checkTransfer(d *document, z *provisionrv1.ZoneSpec) {
	t := z.GetTransfer()
	if t == nil {
		return
	}
	if z.GetDnssec() == "online" {
		d.complain("spec.transfer", "set dnssec to presigned, or remove transfer", "a zone that is signed online cannot be transferred: its copies could not sign")
		return
	}
	d.unique("spec.transfer.keys", len(t.Keys), func(i int) (string, string) { return "name", t.Keys[i].Name })
	names := make([]string, 0, len(t.Keys))
	for i, k := range t.Keys {
		p := at("spec.transfer.keys", i)
		names = append(names, k.Name)
		for label := range strings.SplitSeq(k.Name, ".") {
			if k.Name != "" && (label == "" || len(label) > 63) {
				d.complain(p+".name", "as ns2.example.org", "%s is not the name of a key", show(k.Name))
				break
			}
		}
		if k.Secret != "" {
			checkLabel(d, p+".secret", k.Secret, "secret")
		}
	}
	d.unique("spec.transfer.secondaries", len(t.Secondaries), func(i int) (string, string) { return "address", t.Secondaries[i].Address })
	for i, s := range t.Secondaries {
		p := at("spec.transfer.secondaries", i)
		if s.Address != "" && !isSecondary(s.Address) {
			d.complain(p+".address", `as "192.0.2.53" or "192.0.2.53:5353"`, "%s is not the address of a server", show(s.Address))
		}
		if s.Key != "" && !slices.Contains(names, s.Key) {
			hint := near(s.Key, names)
			if hint == "" && len(names) > 0 {
				hint = oneOf(names)
			}
			d.complain(p+".key", hint, "there is no key %s in spec.transfer.keys", show(s.Key))
		}
	}
}

// isSecondary reports whether a text is IP or IP:PORT of another server.
func isSecondary(text string) bool {
	address, err := netip.ParseAddr(text)
	if err != nil {
		both, err := netip.ParseAddrPort(text)
		if err != nil || both.Port() == 0 {
			return false
		}
		address = both.Addr()
	}
	return address.Zone() == "" && !address.IsUnspecified() && !address.IsMulticast() && !address.Is4In6()
}

// checkEndpoints checks what the machines of a pool offer.
func checkEndpoints(d *document, endpoints []*provisionrv1.PoolEndpoint) {
	d.unique("spec.endpoints", len(endpoints), func(i int) (string, string) {
		if endpoints[i].Service == "" {
			return "", ""
		}
		return "service", endpoints[i].Service + "/" + or(endpoints[i].Protocol, "tcp")
	})
}

// checkReverse checks how the reverse zones of a network are cut.
func checkReverse(d *document, n *provisionrv1.NetworkSpec, prefix netip.Prefix) {
	switch {
	case n.GetReverse() != "classless":
	case prefix.Addr().Is6():
		d.complain("spec.reverse", "remove it", "classless reverse zones are of IPv4 ranges")
	case prefix.Bits() <= 24:
		d.complain("spec.reverse", "remove it", "%s has whole reverse zones: classless ones are of ranges longer than /24 (RFC 2317)", prefix)
	}
}

// recordNames registers the static records and endpoints of the set. A name of a machine is complained about where the record
// is: machines come by themselves.
func (s *set) recordNames(docs []*document) {
	for _, d := range docs {
		if d.object == nil || s.objects[KindOf(d.object)+"/"+Name(d.object)] != d {
			continue
		}
		var zone, owner string
		var records []*provisionrv1.StaticRecord
		switch o := d.object.GetKind().(type) {
		case *provisionrv1.Object_Zone:
			zone = o.Zone.GetMetadata().GetName()
			owner, records = "zone "+zone, o.Zone.GetSpec().GetRecords()
		case *provisionrv1.Object_Pool:
			zone, owner, records = zoneOf(o.Pool), "pool "+Name(d.object), o.Pool.GetSpec().GetRecords()
			for i, e := range o.Pool.GetSpec().GetEndpoints() {
				s.claim(d, zone, owner, at("spec.endpoints", i), "_"+e.GetService()+"._"+or(e.GetProtocol(), "tcp")+"."+Name(d.object))
			}
		}
		for i, r := range records {
			path := at("spec.records", i) + ".name"
			if pool, index := poolOfSlot(r.GetName()); index > 0 {
				if other := s.objects["Pool/"+pool].poolSpec(); other != nil && or(other.GetZone(), defaultName) == zone && index <= uint64(other.GetSize()) {
					d.complain(path, "use another name", "%s is the name of a machine of pool %s", show(r.GetName()), pool)
					continue
				}
			}
			s.claim(d, zone, owner, path, r.GetName())
			s.fits(d, path, zone, r.GetName())
		}
	}
}

// fits checks the length of a pool's record where the set has its zone.
func (s *set) fits(d *document, path, zone, name string) {
	if other := s.objects["Zone/"+zone]; other != nil && other != d {
		if n := len(name) + 1 + len(other.object.GetZone().GetSpec().GetDomain()); n > maxFullName {
			d.complain(path, "", "is too long: with the domain it has %d characters, but at most %d are allowed", n, maxFullName)
		}
	}
}

// poolSpec returns what a document says of a pool; nil for none.
func (d *document) poolSpec() *provisionrv1.PoolSpec {
	if d == nil {
		return nil
	}
	return d.object.GetPool().GetSpec()
}
