package api

import (
	"fmt"
	"strings"

	"github.com/provisionr/provisionr/cloudinit"
	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// Stand-ins of the length of the real ones: ids of machines, and tokens of 32 bytes in base64url without padding.
const (
	anyMachine = "m-aaaaaaaaaaaaaaaa"
	tokenBytes = 43
)

// userData checks that the user-data of the pool's machines is no larger than the provider takes. It differs from machine to
// machine by ids, names and tokens only, so one with the longest name stands for all.
func (q *inquiry) userData(network *provisionrv1.Network, c provider.Capabilities) {
	if c.Adopted || c.UserDataLimit == 0 || !q.grows {
		return
	}
	seed, err := q.base.Seed(q.snapshot, network)
	if err != nil {
		q.warn("the size of the user-data is unknown: %s", err)
		return
	}
	data, err := cloudinit.Render(seedOf(seed, q.snapshot, q.pool))
	switch {
	case err != nil:
		q.fail(errs.Invalid, "%s", err)
	case len(data) > c.UserDataLimit:
		q.fail(errs.Invalid, "the user-data has %d bytes, but the provider takes %d: name fewer servers", len(data), c.UserDataLimit)
	}
}

func seedOf(seed *provisionrv1.Seed, snapshot *state.Snapshot, pool *provisionrv1.Pool) cloudinit.Seed {
	domain := snapshot.Zone(snapshot.ZoneName(pool)).GetSpec().GetDomain()
	if domain == "" {
		domain = "provisionr.internal" // its zone is in the manifest; a few bytes do not matter
	}
	return cloudinit.Seed{
		ClusterID: snapshot.Cluster().GetId(), MachineID: anyMachine, Attempt: 1,
		JoinToken: strings.Repeat("j", tokenBytes), BeaconToken: strings.Repeat("b", tokenBytes),
		FQDN:   fmt.Sprintf("%s-%d.%s", pool.GetMetadata().GetName(), max(1, pool.GetSpec().GetSize()), domain),
		CAPins: seed.GetCaPins(), APIEndpoints: seed.GetApiEndpoints(), AgentEndpoints: seed.GetAgentEndpoints(),
		AgentSHA256: seed.GetAgentSha256(),
	}
}
