package local

import (
	"errors"
	"io/fs"
	"net/netip"

	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/local/container"
)

// InitCommand is the hidden first argument with which the server's binary is re-executed; see [Init].
const InitCommand = container.Command

func initContainer(args []string) int { return container.Init(args) }

const consoleFile = "console.log"

// linkName is the name of the host's end of a machine's link. It fits into the 15 characters of an interface's name.
func (p *Provider) linkName(id string) string {
	return "pvm" + host.Digest("veth", p.config.ClusterID, id)
}

// providerID is the provider's own name of a machine.
func providerID(machine string) string { return "local/" + machine }

// instance reads the state of a machine from its directory. fs.ErrNotExist says that there is none.
func (p *Provider) instance(id string) (provider.Instance, error) {
	request, err := p.machines.Request(id)
	if err != nil {
		return provider.Instance{}, err
	}
	instance := provider.Instance{MachineID: id, ProviderID: providerID(id), State: provider.Stopped}
	if instance.Address, err = netip.ParseAddr(request.GetAddress()); err != nil {
		return instance, nil // a half state of Terminate: it is there, and has to go
	}
	alive, err := p.alive(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Not yet started, or its start was interrupted: Launch finishes it.
		instance.State = provider.Starting
	case err != nil:
		return provider.Instance{}, err
	case alive:
		instance.State = provider.Running
	}
	return instance, nil
}

// alive reports whether the machine's recorded init runs; fs.ErrNotExist says that none was started.
func (p *Provider) alive(id string) (bool, error) {
	init, err := container.Record(p.machineDir(id))
	if err != nil {
		return false, err
	}
	group, err := p.machineCgroup(id)
	if err != nil {
		return false, err
	}
	return init.Alive(group.payload())
}
