package dnszone

import (
	"context"

	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// Signing knows the DNSSEC keys of zones. What it says follows from the snapshot alone, so that all servers sign alike; a
// change of it must come with a change of names, else it waits for the next one. Origins have no final dot.
type Signing interface {
	// Mode says how a zone is signed whose object asks for wanted: as long as it has no active key it is not.
	Mode(s *state.Snapshot, origin string, wanted zone.Signing) zone.Signing
	// Signer returns what signs a zone of mode [zone.Presigned].
	Signer(s *state.Snapshot, origin string) (Signer, error)
	// Keys returns the records of the keys of a zone of mode [zone.Online].
	Keys(s *state.Snapshot, origin string) []zone.Record
}

// Signer completes the versions of one zone by signatures: dnssec.Signer does.
type Signer interface {
	// Sign returns the changes that make the next version of a signed zone out of the plain ones.
	Sign(ctx context.Context, base *zone.Zone, serial uint32, changes []zone.Change) ([]zone.Change, error)
	// SignAll returns the changes that sign a zone. Former is the version before, or nil.
	SignAll(ctx context.Context, plain, former *zone.Zone) ([]zone.Change, error)
}

// wanted is the way of signing that a zone object asks for.
func wanted(z *provisionrv1.Zone) zone.Signing {
	switch z.GetSpec().GetDnssec() {
	case "presigned":
		return zone.Presigned
	case "online":
		return zone.Online
	}
	return zone.Unsigned
}

// mode is the way in which a zone is signed.
func (c Config) mode(s *state.Snapshot, origin string, wanted zone.Signing) zone.Signing {
	if c.Signing == nil || wanted == zone.Unsigned {
		return zone.Unsigned
	}
	return c.Signing.Mode(s, origin, wanted)
}
