package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime/debug"

	"github.com/provisionr/provisionr/agent/confirm"
	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/facts"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/prove"
	"github.com/provisionr/provisionr/agent/resource/resolver"
	"github.com/provisionr/provisionr/agent/stub"
	"github.com/provisionr/provisionr/agent/watch"
)

// RealParts are the parts of an agent on a real machine.
func RealParts(h *host.Host, logger *slog.Logger) (Parts, error) {
	names, err := stub.New(stub.Config{Logger: logger, Upstreams: func() []netip.AddrPort {
		// The resolver's resource writes the file; before that there is nothing to forward to, and no program asks.
		list, err := h.ReadFile(resolver.UpstreamsPath)
		if err != nil {
			return nil
		}
		return stub.ParseUpstreams(string(list))
	}})
	if err != nil {
		return Parts{}, err
	}
	return Parts{
		Resources: Resources,
		Prover: func(last func(context.Context) (*converge.Run, error)) (Prover, error) {
			return prove.New(prove.Config{Host: h, Results: last})
		},
		Stub: names,
		Watcher: func(touch func(...converge.Trigger), lost func()) (Watcher, error) {
			return watch.New(watch.Config{Root: h.Root, Touch: touch, Lost: lost, Logger: logger})
		},
		Confirm: confirm.Listen, Timers: host.Timers{Host: h}, Facts: facts.Collect,
		// Nobody but the machine itself should ever reach it: peers prove their deny by it.
		Canary: func(ctx context.Context, address, machineID string) error {
			return confirm.Greet(ctx, address, prove.CanaryPort, machineID, func() {})
		},
		Commands: host.Processes{}, Settled: debug.FreeOSMemory,
	}, nil
}
