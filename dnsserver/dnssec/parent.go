package dnssec

import "github.com/provisionr/provisionr/dnsserver/zone"

// keyRecords returns what the origin of a zone says of its keys: all of them to resolvers (DNSKEY), and to a parent that looks
// for it (RFC 7344, RFC 8078) those whose DS records it should have, in both forms (RFC 7344 section 3).
//
// A published key's is asked for at once: beside the active one's it does no harm, and the key can sign as soon as the parent has
// it. A retired key's is not: the parent has that of the active one by then.
func keyRecords(keys []KeyState) []zone.Record {
	var records []zone.Record
	for _, k := range keys {
		records = append(records, k.Key.DNSKEY())
		if k.State == Retired {
			continue
		}
		cds, cdnskey := k.Key.DS(), k.Key.DNSKEY()
		cds.Type, cdnskey.Type = zone.TypeCDS, zone.TypeCDNSKEY
		records = append(records, cds, cdnskey)
	}
	return records
}

// isOfKeys reports whether a type is one of those of keyRecords. Each key signs their sets: a parent takes CDS and CDNSKEY
// records only from a key whose DS record it has (RFC 7344 section 4.1), which may be any of them.
func isOfKeys(typ zone.Type) bool {
	return typ == zone.TypeDNSKEY || typ == zone.TypeCDS || typ == zone.TypeCDNSKEY
}
