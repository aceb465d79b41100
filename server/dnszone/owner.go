package dnszone

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

const (
	// apexName is the name of a static record of the domain itself.
	apexName = "@"
	// roleSuffix ends the names of roles.
	roleSuffix = ".role"
	// maxName bounds a whole name in text, without final dot (RFC 1035 section 2.3.4).
	maxName = 253
)

// roleKey is a role within a zone object.
type roleKey struct{ zone, role string }

// view makes the records of single names from a snapshot. Whoever builds zones anew or in part asks it for the same names
// and gets the same records.
type view struct {
	cfg    Config
	s      *state.Snapshot
	layout *layout
	pools  map[string]*group
	roles  map[roleKey]*group
	// static caches the static records of a pool by name.
	static map[*provisionrv1.Pool]map[string]*provisionrv1.StaticRecord
}

func absoluteName(name, domain string) string {
	if name == apexName {
		return domain
	}
	return name + "." + domain
}

// Target returns the absolute name, without final dot, of a name in a zone object: one without final dot is relative to the
// domain.
func Target(name, domain string) string {
	if absolute, ok := strings.CutSuffix(name, "."); ok {
		return absolute
	}
	return name + "." + domain
}

// records returns the records of a name within a zone that has an object; none where the name is nobody's.
func (v *view) records(z *origin, rel string) []zone.Record {
	if rel == apexName {
		return v.apex(z)
	}
	if role, ok := strings.CutSuffix(rel, roleSuffix); ok {
		return v.role(z, role)
	}
	owner := v.s.NameOwner(z.object, rel)
	if owner == nil {
		return nil
	}
	switch owner.Kind {
	case state.OwnerSlot:
		return v.appendSlot(nil, v.s.Slot(rel))
	case state.OwnerPool:
		return v.pool(z, v.s.Pool(owner.Owner), rel)
	case state.OwnerZone:
		return staticData(z.name, v.s.Records(owner.Owner).Named(rel))
	}
	return nil
}

// apex returns what an origin itself has beside SOA and NS. A domain has the zone's record of it, and says that nobody may
// certify its names unless that says who may (RFC 8659 section 4.2).
func (v *view) apex(z *origin) []zone.Record {
	var records []zone.Record
	if z.object != "" {
		records = staticData(z.name, v.s.Records(z.object).Named(apexName))
		if !slices.ContainsFunc(records, func(r zone.Record) bool { return r.Type == zone.TypeCAA }) {
			records = append(records, zone.CAA(z.name, 0, "issue", ";"))
		}
	}
	if z.signing == zone.Online {
		records = append(records, v.cfg.Signing.Keys(v.s, z.name)...)
	}
	return records
}

// appendSlot appends what the name of a machine has from the claim of its first address on.
func (v *view) appendSlot(records []zone.Record, slot *provisionrv1.Slot) []zone.Record {
	m := v.s.Machine(slot.GetHolder())
	addrs := Addresses(v.s, m)
	for _, addr := range addrs {
		records = append(records, zone.Address(slot.GetFqdn(), addr))
	}
	if len(addrs) == 0 || !v.layout.mark.names {
		return records
	}
	return appendFacts(records, slot.GetFqdn(), v.s.Pool(slot.GetPool()), m)
}

// pool returns what a name of a pool has: the addresses or services of its ready machines, or what the pool says itself.
func (v *view) pool(z *origin, pool *provisionrv1.Pool, rel string) []zone.Record {
	name := pool.GetMetadata().GetName()
	if rel == name || slices.Contains(pool.GetSpec().GetAliases(), rel) {
		return v.addresses(absoluteName(rel, z.name), v.pools[name])
	}
	for _, e := range pool.GetSpec().GetEndpoints() {
		if state.EndpointName(name, e) == rel {
			return v.services(absoluteName(rel, z.name), v.pools[name], e.GetPort())
		}
	}
	return staticData(z.name, v.staticRecord(pool, rel))
}

// role returns the addresses of the ready machines of a role. Where its name would be too long it has none.
func (v *view) role(z *origin, role string) []zone.Record {
	name := absoluteName(role+roleSuffix, z.name)
	if len(name) > maxName {
		return nil
	}
	return v.addresses(name, v.roles[roleKey{z.object, role}])
}

// addresses returns those of the machines that share a name, as the stub of each machine does.
func (v *view) addresses(name string, g *group) []zone.Record {
	return zone.Shared(name, func(yield func([]netip.Addr) bool) {
		for _, share := range g.shared() {
			if !yield(Addresses(v.s, v.s.Machine(v.s.Slot(share.slot).GetHolder()))) {
				return
			}
		}
	})
}

// services returns a service at each of the machines that share a name, all alike to clients (RFC 2782), as far as they fit
// the smallest answer, as addresses do.
func (v *view) services(name string, g *group, port uint32) []zone.Record {
	const fixed, cookie, owner = 12 + 4, 11 + 28, 12
	room := zone.MinUDP - fixed - cookie - (len(name) + 2)
	var records []zone.Record
	for _, share := range g.shared() {
		if port > math.MaxUint16 {
			break
		}
		r, err := zone.Service(name, 0, 1, uint16(port), v.s.Slot(share.slot).GetFqdn())
		if err != nil {
			continue
		}
		if room -= owner + len(r.Data); room < 0 {
			break
		}
		records = append(records, r)
	}
	return records
}

// staticRecord finds a static record of a pool.
func (v *view) staticRecord(pool *provisionrv1.Pool, rel string) *provisionrv1.StaticRecord {
	byName, ok := v.static[pool]
	if !ok {
		byName = make(map[string]*provisionrv1.StaticRecord, len(pool.GetSpec().GetRecords()))
		for _, r := range pool.GetSpec().GetRecords() {
			byName[r.GetName()] = r
		}
		v.static[pool] = byName
	}
	return byName[rel]
}

// staticData returns what a static record says. Admission has checked it; what is wrong all the same is left out, so that it
// keeps no zone from being built.
func staticData(domain string, r *provisionrv1.StaticRecord) []zone.Record {
	if r == nil {
		return nil
	}
	var records []zone.Record
	add := func(r zone.Record, err error) {
		if err == nil {
			records = append(records, r)
		}
	}
	name := absoluteName(r.GetName(), domain)
	if r.GetCname() != "" {
		add(zone.Named(name, zone.TypeCNAME, Target(r.GetCname(), domain)))
		return records
	}
	for _, address := range r.GetAddresses() {
		if addr, err := netip.ParseAddr(address); err == nil {
			add(zone.Address(name, addr), nil)
		}
	}
	for _, text := range r.GetText() {
		add(zone.Text(name, text), nil)
	}
	for _, s := range r.GetServices() {
		if max(s.GetPriority(), s.GetWeight(), s.GetPort()) <= math.MaxUint16 {
			add(zone.Service(name, uint16(s.GetPriority()), uint16(s.GetWeight()), uint16(s.GetPort()), Target(s.GetTarget(), domain)))
		}
	}
	for _, text := range r.GetCaa() {
		if flags, tag, value, ok := ParseCAA(text); ok {
			add(zone.CAA(name, flags, tag, value), nil)
		}
	}
	return records
}

// ParseCAA parses the presentation form of a CAA record's data (RFC 8659 section 4.1.1), as 0 issue "ca.example.net". The
// quotes are optional around a value without blanks; a value has no escapes.
func ParseCAA(text string) (flags uint8, tag, value string, ok bool) {
	first, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	number, err := strconv.ParseUint(first, 10, 8)
	tag, value, found := strings.Cut(strings.TrimSpace(rest), " ")
	if err != nil || !found || len(tag) == 0 || len(tag) > 15 {
		return 0, "", "", false
	}
	tag = strings.ToLower(tag)
	for i := range len(tag) {
		if c := tag[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return 0, "", "", false
		}
	}
	value = strings.TrimSpace(value)
	if inner, quoted := strings.CutPrefix(value, `"`); quoted {
		if value, ok = strings.CutSuffix(inner, `"`); !ok {
			return 0, "", "", false
		}
	} else if strings.ContainsAny(value, " \t") {
		return 0, "", "", false
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return 0, "", "", false
		}
	}
	return uint8(number), tag, value, true
}
