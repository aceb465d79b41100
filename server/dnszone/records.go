package dnszone

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// Records returns what the servers answer, in presentation form, sorted by zone, name, type and data. The Zone of a
// record is its origin without final dot.
func Records(s *state.Snapshot) []*provisionrv1.Record {
	var all []*provisionrv1.Record
	for _, c := range plan(s, Config{}) {
		all = append(all, records(c)...)
	}
	return all
}

func records(c zone.Config) []*provisionrv1.Record {
	var out []*provisionrv1.Record
	add := func(name, typ, data string) {
		out = append(out, &provisionrv1.Record{Name: absolute(name), Ttl: c.TTL, Type: typ, Data: data, Zone: strings.TrimSuffix(c.Origin, ".")})
	}
	add(c.Origin, "SOA", fmt.Sprintf("%s hostmaster.%s %d", absolute(c.NS[0].Name), absolute(c.Origin), c.Serial))
	for _, ns := range c.NS {
		add(c.Origin, "NS", absolute(ns.Name))
		if !strings.HasSuffix(ns.Name, "."+c.Origin) {
			continue
		}
		for _, addr := range ns.Addresses {
			add(ns.Name, addressType(addr), addr.String())
		}
	}
	for _, r := range c.Records {
		if r.Target != "" {
			add(r.Name, "PTR", absolute(r.Target))
		} else {
			add(r.Name, addressType(r.Address), r.Address.String())
		}
	}
	slices.SortFunc(out, func(a, b *provisionrv1.Record) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Data, b.Data))
	})
	return slices.CompactFunc(out, func(a, b *provisionrv1.Record) bool {
		return a.Name == b.Name && a.Type == b.Type && a.Data == b.Data
	})
}

func absolute(name string) string { return strings.TrimSuffix(name, ".") + "." }

func addressType(addr netip.Addr) string {
	if addr.Is4() {
		return "A"
	}
	return "AAAA"
}
