package host

import (
	"context"

	"github.com/provisionr/provisionr/agent/simulated"
	"github.com/provisionr/provisionr/internal/version"
	"github.com/provisionr/provisionr/server/provider/sim"
)

// simulate runs the real agent code for a machine of the provider sim: only here do server and agent meet.
func simulate(ctx context.Context, m sim.Machine) error {
	return simulated.Run(ctx, simulated.Machine{UserData: m.UserData, Version: version.Version})
}
