package fsm

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

// Bounds of one static record and of those of one owner. All of a record fits an answer.
const (
	maxRecords     = 10000
	maxPoolRecords = 1000
	maxEndpoints   = 32
	maxAddresses   = 64
	maxTexts       = 32
	maxText        = 1024
	maxServices    = 32
	maxCAA         = 16
	// maxFullName bounds a whole name without final dot (RFC 1035 section 2.3.4).
	maxFullName = 253
)

// validRecordName reports whether s is a name of labels as service names have them, too: with underscores (RFC 8552).
func validRecordName(s string) bool {
	if len(s) > maxFullName {
		return false
	}
	for label := range splitDomain(s) {
		if len(label) == 0 || len(label) > maxName || label[0] == '-' || label[len(label)-1] == '-' || !validName(strings.ReplaceAll(label, "_", "x")) {
			return false
		}
	}
	return true
}

// recordOwner is a zone or a pool with static records.
type recordOwner struct {
	// text names it in messages; domain is its zone's.
	text, domain string
	// apex allows a record of the domain itself.
	apex bool
	most int
}

func zoneOwner(z *provisionrv1.Zone) recordOwner {
	return recordOwner{"zone " + z.GetMetadata().GetName(), z.GetSpec().GetDomain(), true, maxRecords}
}

func (a *applier) poolOwner(p *provisionrv1.Pool) recordOwner {
	return recordOwner{"pool " + p.GetMetadata().GetName(), a.Zone(a.ZoneName(p)).GetSpec().GetDomain(), false, maxPoolRecords}
}

// checkZoneNames checks a zone's records, how it is signed, and that its domain is not one of addresses, whose names are made
// from networks.
func (a *applier) checkZoneNames(present, zone *provisionrv1.Zone) *errs.Error {
	name, spec := zone.GetMetadata().GetName(), zone.GetSpec()
	if !a.NamesLevel() {
		return checkPlainRecords(name, spec.GetRecords())
	}
	domain := spec.GetDomain()
	switch reverse := domain == "arpa" || strings.HasSuffix(domain, ".arpa"); {
	case reverse && (present == nil || present.GetSpec().GetDomain() != domain):
		return errs.New(errs.Invalid, "zone %s: the domain %s is for the names of addresses", name, domain).
			WithHint("the reverse zones of all networks are there by themselves")
	case !slices.Contains([]string{"", "off", "presigned", "online"}, spec.GetDnssec()):
		return errs.New(errs.Invalid, "zone %s: dnssec is off, presigned or online, not %q", name, clip(spec.GetDnssec(), maxName))
	case spec.GetDnssec() == "online" && spec.GetTransfer() != nil:
		return errs.New(errs.Invalid, "zone %s is signed online: it cannot be transferred", name).WithHint("set dnssec to presigned, or remove transfer")
	}
	if err := a.checkNesting(present, zone); err != nil {
		return err
	}
	return zoneOwner(zone).checkRecords(spec.GetRecords())
}

// checkNesting refuses a signed zone around or within another one: there are no delegations, so that a signed zone denies what
// is within it. What is so already is left.
func (a *applier) checkNesting(present, zone *provisionrv1.Zone) *errs.Error {
	domain, signed := zone.GetSpec().GetDomain(), isSigned(zone)
	was := present != nil && present.GetSpec().GetDomain() == domain
	for other := range a.Zones() {
		theirs := other.GetSpec().GetDomain()
		if other.GetMetadata().GetName() == zone.GetMetadata().GetName() || !signed && !isSigned(other) ||
			!strings.HasSuffix(domain, "."+theirs) && !strings.HasSuffix(theirs, "."+domain) ||
			was && (isSigned(present) || isSigned(other)) {
			continue
		}
		where := "around"
		if len(domain) > len(theirs) {
			where = "within"
		}
		return errs.New(errs.Conflict, "zone %s: its domain %s is %s %s of zone %s, and a signed zone denies all names of others within it",
			zone.GetMetadata().GetName(), domain, where, theirs, other.GetMetadata().GetName()).
			WithHint("choose domains beside each other, or set dnssec of both zones to off")
	}
	return nil
}

func isSigned(z *provisionrv1.Zone) bool {
	return z.GetSpec().GetDnssec() == "presigned" || z.GetSpec().GetDnssec() == "online"
}

// checkPlainRecords checks static records as members below [state.LevelNames] do.
func checkPlainRecords(zone string, records []*provisionrv1.StaticRecord) *errs.Error {
	if len(records) > maxRecords {
		return errs.New(errs.Invalid, "zone %s has %d records: the most is %d", zone, len(records), maxRecords)
	}
	seen := make(map[string]bool, len(records))
	for _, r := range records {
		if err := checkName("record", r.GetName()); err != nil {
			return err
		}
		if seen[r.GetName()] {
			return errs.New(errs.Invalid, "zone %s has two records %s", zone, r.GetName()).WithHint("give one record with all its addresses")
		}
		seen[r.GetName()] = true
		for _, address := range r.GetAddresses() {
			if addr, err := netip.ParseAddr(address); err != nil || addr.Zone() != "" {
				return errs.New(errs.Invalid, "record %s: %q is not an address", r.GetName(), clip(address, maxName))
			}
		}
	}
	return nil
}

// checkRecords checks the static records of one owner. Who else has their names is for the registry to say.
func (o recordOwner) checkRecords(records []*provisionrv1.StaticRecord) *errs.Error {
	if len(records) > o.most {
		return errs.New(errs.Invalid, "%s has %d records: the most is %d", o.text, len(records), o.most)
	}
	seen := make(map[string]bool, len(records))
	for _, r := range records {
		if seen[r.GetName()] {
			return errs.New(errs.Invalid, "%s has two records %s", o.text, clip(r.GetName(), maxName)).WithHint("give one record with all its data")
		}
		seen[r.GetName()] = true
		if err := o.checkRecord(r); err != nil {
			return err
		}
	}
	return nil
}

func (o recordOwner) checkRecord(r *provisionrv1.StaticRecord) *errs.Error {
	name, apex := r.GetName(), r.GetName() == "@"
	refuse := func(format string, args ...any) *errs.Error {
		return errs.New(errs.Invalid, "record %s of %s: %s", clip(name, maxName), o.text, fmt.Sprintf(format, args...))
	}
	switch {
	case apex && !o.apex:
		return refuse("what the domain itself has is for its zone to say")
	case !apex && (!validRecordName(name) || len(name)+1+len(o.domain) > maxFullName):
		return refuse("this is not a name").WithHint("a name is labels of a-z, 0-9, dashes and underscores with dots between")
	case strings.HasSuffix(name, ".role"):
		return refuse("names below role are those of roles")
	case apex && len(r.GetAddresses()) > 0, apex && r.GetCname() != "":
		return refuse("the domain itself has no addresses and is no alias")
	}
	others := len(r.GetAddresses()) + len(r.GetText()) + len(r.GetServices()) + len(r.GetCaa())
	switch cname := r.GetCname(); {
	case cname == "" && others == 0:
		return refuse("it says nothing").WithHint("give addresses, cname, text, services or caa")
	case cname != "" && others > 0:
		return refuse("an alias excludes everything else (RFC 1034 section 3.6.2)")
	case cname != "" && (!o.target(cname) || dnszone.Target(cname, o.domain) == name+"."+o.domain):
		return refuse("%q is not another name", clip(cname, maxName))
	}
	return o.checkData(r, refuse)
}

func (o recordOwner) checkData(r *provisionrv1.StaticRecord, refuse func(string, ...any) *errs.Error) *errs.Error {
	if len(r.GetAddresses()) > maxAddresses || len(r.GetText()) > maxTexts || len(r.GetServices()) > maxServices || len(r.GetCaa()) > maxCAA {
		return refuse("a name has at most %d addresses, %d texts, %d services and %d caa", maxAddresses, maxTexts, maxServices, maxCAA)
	}
	for _, address := range r.GetAddresses() {
		if addr, err := netip.ParseAddr(address); err != nil || addr.Zone() != "" {
			return refuse("%q is not an address", clip(address, maxName))
		}
	}
	for _, text := range r.GetText() {
		if len(text) == 0 || len(text) > maxText {
			return refuse("a text has 1 to %d bytes, not %d", maxText, len(text))
		}
	}
	for _, s := range r.GetServices() {
		if port := s.GetPort(); port == 0 || max(port, s.GetPriority(), s.GetWeight()) > 65535 || !o.target(s.GetTarget()) {
			return refuse("%d %d %d %q is not a service", s.GetPriority(), s.GetWeight(), port, clip(s.GetTarget(), maxName)).
				WithHint("give a port from 1 on, and a target that is a name")
		}
	}
	for _, caa := range r.GetCaa() {
		if _, _, _, ok := dnszone.ParseCAA(caa); !ok || len(caa) > maxFact {
			return refuse("%q is not a caa", clip(caa, maxName)).WithHint(`write it as 0 issue "ca.example.net"`)
		}
	}
	return nil
}

func (o recordOwner) target(name string) bool {
	return name != "" && validRecordName(dnszone.Target(name, o.domain))
}

// checkPoolNames checks what a pool says of names beyond aliases.
func (a *applier) checkPoolNames(p *provisionrv1.Pool) *errs.Error {
	owner := a.poolOwner(p)
	if err := owner.checkRecords(p.GetSpec().GetRecords()); err != nil {
		return err
	}
	if n := len(p.GetSpec().GetEndpoints()); n > maxEndpoints {
		return errs.New(errs.Invalid, "%s has %d endpoints: the most is %d", owner.text, n, maxEndpoints)
	}
	for _, e := range p.GetSpec().GetEndpoints() {
		name := state.EndpointName(p.GetMetadata().GetName(), e)
		switch protocol := e.GetProtocol(); {
		case !validName(e.GetService()) || len(e.GetService()) > 15 || protocol != "" && protocol != "tcp" && protocol != "udp" ||
			e.GetPort() == 0 || e.GetPort() > 65535:
			return errs.New(errs.Invalid, "endpoint %s of %s is none", clip(e.GetService(), maxName), owner.text).
				WithHint("an endpoint is a service name of at most 15 characters (RFC 6335), tcp or udp, and a port")
		case len(name)+1+len(owner.domain) > maxFullName:
			return errs.New(errs.Invalid, "endpoint %s of %s: its name would be too long", e.GetService(), owner.text)
		}
	}
	seen := map[string]bool{}
	for i, n := range slices.Collect(a.PoolNames(p)) {
		// Its own name and aliases come first; these may repeat each other.
		if seen[n.Name] && i > len(p.GetSpec().GetAliases()) {
			return errs.New(errs.Invalid, "%s has the name %s twice", owner.text, n.Name)
		}
		seen[n.Name] = true
	}
	return nil
}

// adoptNames looks at what pools and zones said of names before there was [state.LevelNames]: members of the version before
// took it without understanding it. What is not valid, or another's name, is dropped.
func (a *applier) adoptNames() {
	for _, named := range slices.Collect(a.Zones()) {
		z := a.WholeZone(named.GetMetadata().GetName())
		owner, records := zoneOwner(z), z.GetSpec().GetRecords()
		if !slices.ContainsFunc(records, func(r *provisionrv1.StaticRecord) bool { return owner.checkRecord(r) != nil }) {
			continue
		}
		z.Spec.Records = slices.DeleteFunc(records, func(r *provisionrv1.StaticRecord) bool {
			return owner.checkRecord(r) != nil
		})
		a.Put(z)
		a.dropped(owner, "")
	}
	for _, p := range slices.Collect(a.Pools()) {
		if len(p.GetSpec().GetRecords())+len(p.GetSpec().GetEndpoints()) == 0 {
			continue
		}
		if err := a.checkPoolNames(p); err == nil && !slices.ContainsFunc(slices.Collect(a.PoolNames(p)), func(n state.NameOwner) bool {
			held := a.NameOwner(n.Zone, n.Name)
			return held != nil && *held != n
		}) {
			for n := range a.PoolNames(p) {
				a.ClaimName(n)
			}
			continue
		}
		p = proto.CloneOf(p)
		p.Spec.Records, p.Spec.Endpoints = nil, nil
		a.Put(p)
		a.dropped(a.poolOwner(p), p.GetMetadata().GetName())
	}
}

func (a *applier) dropped(owner recordOwner, pool string) {
	a.event("RecordsDropped", owner.text+" had records that are not valid: apply it again", true, pool, nil)
}
