package qemu

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"path/filepath"

	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/cgroup"
	"github.com/provisionr/provisionr/server/host/files"
	"github.com/provisionr/provisionr/server/host/process"
	"github.com/provisionr/provisionr/server/provider"
)

const recordFile = "vm.json"

// record is the content of vm.json.
type record struct {
	Process process.Process
	// Started says that the machine was told to run. It may do so without.
	Started bool
}

// stage is how far a launch has come.
type stage int

const (
	// absent: nothing has run, or nothing that matters: it can be made anew.
	absent stage = iota
	// paused: QEMU is there and recorded, and may not have been told to run.
	paused
	// started: the machine runs.
	started
	// ended: the machine has run.
	ended
)

// linkName is the name of a machine's tap. It fits into the 15 characters of an interface's name.
func (p *Provider) linkName(id string) string {
	return "pvt" + host.Digest("tap", p.config.ClusterID, p.config.Name, id)
}

// providerID is the provider's own name of a machine.
func (p *Provider) providerID(machine string) string { return p.config.Name + "/" + machine }

func (p *Provider) group(id string) (cgroup.Group, error) { return cgroup.Of(p.scope, id) }

// instance reads the state of a machine from its directory. fs.ErrNotExist says that there is none.
func (p *Provider) instance(ctx context.Context, id string) (provider.Instance, error) {
	request, err := p.machines.Request(id)
	if err != nil {
		return provider.Instance{}, err
	}
	instance := provider.Instance{MachineID: id, ProviderID: p.providerID(id), State: provider.Stopped}
	if instance.Address, err = netip.ParseAddr(request.GetAddress()); err != nil {
		return instance, nil // a half state of Terminate: it is there, and has to go
	}
	at, err := p.stage(id)
	if err != nil {
		return provider.Instance{}, err
	}
	switch at {
	case absent, paused:
		instance.State = provider.Starting // Launch finishes it
	case started:
		if instance.State = provider.Running; p.crashed(ctx, id) {
			instance.State = provider.Stopped
		}
	}
	return instance, nil
}

// stage reads how far the launch of a machine has come.
func (p *Provider) stage(id string) (stage, error) {
	var r record
	err := files.ReadJSON(filepath.Join(p.machines.Path(id), recordFile), &r)
	if errors.Is(err, fs.ErrNotExist) {
		return absent, nil
	}
	if err != nil {
		return absent, err
	}
	group, err := p.group(id)
	if err != nil {
		return absent, err
	}
	alive, err := r.Process.Alive(group.Dir)
	switch {
	case err != nil:
		return absent, err
	case r.Started && alive:
		return started, nil
	case alive:
		return paused, nil
	default:
		// Without the mark it may have run all the same: its token may be used up.
		return ended, nil
	}
}

// crashed asks QEMU whether the machine has come to an end that it does not leave by itself. Not to get an answer says
// nothing: the process is there.
func (p *Provider) crashed(ctx context.Context, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	status, err := ask(ctx, p.machines.Path(id), (*monitor).status)
	return err == nil && deadStatus(status)
}

// deadStatus reports whether a machine in that run state never runs again (QEMU QMP reference manual, RunState).
func deadStatus(status string) bool {
	switch status {
	case "internal-error", "guest-panicked", "shutdown":
		return true
	}
	return false
}
