package dnszone

import (
	"net/netip"

	"github.com/provisionr/provisionr/dnsserver/zone"
	"github.com/provisionr/provisionr/server/state"
)

// pointer returns the PTR record of an address under its name, or none: that to the machine which has claimed the address,
// the first by name where several have in different networks, else to the first static name.
func (v *view) pointer(addr netip.Addr, name string) []zone.Record {
	target := v.layout.statics.target(addr)
	if machine := v.claimedBy(addr); machine != "" {
		target = machine
	}
	if target == "" {
		return nil
	}
	r, err := zone.Named(name, zone.TypePTR, target)
	if err != nil {
		return nil
	}
	return []zone.Record{r}
}

// claimedBy returns the name of the machine that has an address, or "". An address lies in at most one network's range, but
// machines may have addresses beside those, and of providers without networks.
func (v *view) claimedBy(addr netip.Addr) string {
	slot, fqdn := "", ""
	look := func(domain string) {
		m := v.s.Machine(v.s.Claim(domain, addr.String()).GetMachine())
		if m == nil || len(Addresses(v.s, m)) == 0 {
			return
		}
		s := v.s.Slot(m.GetSpec().GetSlot())
		if s.GetHolder() != m.GetMetadata().GetName() || v.zoneOf(s) == nil {
			return
		}
		if name := s.GetMetadata().GetName(); slot == "" || name < slot {
			slot, fqdn = name, s.GetFqdn()
		}
	}
	for n := range v.s.Networks() {
		look(n.GetMetadata().GetName())
	}
	for p := range v.s.Providers() {
		look(state.ProviderDomain(p.GetMetadata().GetName()))
	}
	return fqdn
}
