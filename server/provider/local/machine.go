package local

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protojson"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/local/container"
)

// InitCommand is the hidden first argument with which the server's binary is re-executed; see [Init].
const InitCommand = container.Command

func initContainer(args []string) int { return container.Init(args) }

const (
	requestFile = "request.json"
	consoleFile = "console.log"
)

// commit makes the machine's directory with the request, all at once: a directory with a temporary name is renamed. The
// name has a dot, which no machine id has.
func (p *Provider) commit(request *provisionrv1.LaunchRequest) error {
	data, err := protojson.Marshal(request)
	if err != nil {
		return err
	}
	dir := p.machineDir(request.GetMachineId())
	temp := dir + ".tmp"
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	if err := os.Mkdir(temp, 0o700); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(temp, requestFile), data); err != nil {
		return err
	}
	if err := os.Rename(temp, dir); err != nil {
		return err
	}
	return syncDir(p.machinesDir())
}

// instance reads the state of a machine from its directory. fs.ErrNotExist says that there is none.
func (p *Provider) instance(id string) (provider.Instance, error) {
	if _, err := os.Stat(p.machineDir(id)); err != nil {
		return provider.Instance{}, err
	}
	instance := provider.Instance{MachineID: id, ProviderID: providerID(id), State: provider.Stopped}
	// A directory without a readable request is a half state of Terminate: it is there, and has to go.
	var request provisionrv1.LaunchRequest
	data, err := os.ReadFile(filepath.Join(p.machineDir(id), requestFile))
	if err == nil {
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, &request)
	}
	if err == nil {
		instance.Address, err = netip.ParseAddr(request.GetAddress())
	}
	if err != nil {
		return instance, nil
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
	return init.Alive(group.payload()), nil
}
