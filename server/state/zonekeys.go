package state

import (
	"fmt"
	"iter"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// The states of a DNSSEC key, in the order in which a key has them.
const (
	KeyPublished = "published"
	KeyActive    = "active"
	KeyRetired   = "retired"
)

// ZoneKeyName returns the name of an origin's DNSSEC key.
func ZoneKeyName(origin string, tag uint32) string { return fmt.Sprintf("%s/%d", origin, tag) }

// ZoneKey returns the DNSSEC key, whose private part is encrypted, or nil. Its name is ORIGIN/TAG.
func (s *Snapshot) ZoneKey(name string) *provisionrv1.ZoneKey {
	return get[*provisionrv1.ZoneKey](s, TableZoneKeys, key(name))
}

// ZoneKeys yields the DNSSEC keys of all origins by name.
func (s *Snapshot) ZoneKeys() iter.Seq[*provisionrv1.ZoneKey] {
	return scan[*provisionrv1.ZoneKey](s, TableZoneKeys, idIndex, nil)
}

// ZoneKeysOf yields the DNSSEC keys of an origin, which has no final dot, by name.
func (s *Snapshot) ZoneKeysOf(origin string) iter.Seq[*provisionrv1.ZoneKey] {
	return scan[*provisionrv1.ZoneKey](s, TableZoneKeys, "origin", key(origin))
}

// ActiveZoneKey returns the key that signs an origin's records, or nil.
func (s *Snapshot) ActiveZoneKey(origin string) *provisionrv1.ZoneKey {
	for k := range s.ZoneKeysOf(origin) {
		if k.GetState() == KeyActive {
			return k
		}
	}
	return nil
}

// ZonesWithSecret yields the zones whose transfer keys refer to a secret, by name.
func (s *Snapshot) ZonesWithSecret(name string) iter.Seq[*provisionrv1.Zone] {
	return func(yield func(*provisionrv1.Zone) bool) {
		for z := range s.Zones() {
			for _, k := range z.GetSpec().GetTransfer().GetKeys() {
				if k.GetSecret() == name {
					if !yield(z) {
						return
					}
					break
				}
			}
		}
	}
}
