package dnszone

import (
	"slices"
	"strings"
	"time"

	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// SignedZone is a zone that is to be signed, whether it has a key yet or not.
type SignedZone struct {
	// Origin has no final dot.
	Origin string
	// Mode is [zone.Presigned] or [zone.Online].
	Mode zone.Signing
	// TTL is the largest of the zone.
	TTL time.Duration
}

// Signed returns the zones that are to be signed, in order of origin: those of zone objects that ask for it, and the reverse
// zones where the default zone does.
func Signed(s *state.Snapshot) []SignedZone {
	if s.Cluster() == nil || !anyWanted(s) {
		return nil
	}
	var out []SignedZone
	for _, z := range newLayout(s, Config{}).zones {
		if z.wanted != zone.Unsigned {
			out = append(out, SignedZone{Origin: z.name, Mode: z.wanted, TTL: time.Duration(z.ttl) * time.Second})
		}
	}
	slices.SortFunc(out, func(a, b SignedZone) int { return strings.Compare(a.Origin, b.Origin) })
	return out
}

// anyWanted spares the layout where no zone is signed.
func anyWanted(s *state.Snapshot) bool {
	return slices.ContainsFunc(slices.Collect(s.Zones()), func(z *provisionrv1.Zone) bool { return wanted(z) != zone.Unsigned })
}
