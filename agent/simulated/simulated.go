package simulated

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/provisionr/provisionr/agent"
	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/facts"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/cloudinit"
	"github.com/provisionr/provisionr/internal/errs"
)

// maxUserData bounds user-data in bytes: more than any provider takes.
const maxUserData = 1 << 20

// Machine to run.
type Machine struct {
	// UserData as the provider was given it: the #cloud-config that package cloudinit renders. Required.
	UserData []byte
	// Dir is where the machine's directory is made; it is removed at the end. Default: that of temporary files.
	Dir string
	// Version of the agent that it says it has.
	Version string
	// Logger of its agent. Default: none, as a thousand of them say much.
	Logger *slog.Logger
}

// Run boots the machine and runs its agent until ctx ends; it returns nil then.
func Run(ctx context.Context, m Machine) (err error) {
	bootstrap, err := bootstrapOf(m.UserData)
	if err != nil {
		return err
	}
	root, err := os.MkdirTemp(m.Dir, "provisionr-simulated-")
	if err != nil {
		return errs.New(errs.Internal, "cannot make the directory of a simulated machine: %w", err)
	}
	defer func() {
		if removed := os.RemoveAll(root); removed != nil {
			err = errors.Join(err, errs.New(errs.Internal, "cannot remove the directory of a simulated machine: %w", removed))
		}
	}()
	h := &host.Host{Root: root, Commands: none{}, Units: none{}}
	if err := install(h, bootstrap); err != nil {
		return errs.New(errs.Internal, "cannot install a simulated machine: %w", err)
	}
	logger := m.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	kept := &memory{host: h, done: map[string][32]byte{}}
	a, err := agent.New(agent.Config{Host: h, Version: m.Version, Logger: logger, Parts: agent.Parts{
		Resources: kept.resources,
		Prover: func(last func(context.Context) (*converge.Run, error)) (agent.Prover, error) {
			return NewProver(last), nil
		},
		Facts: facts.Collect,
	}})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// bootstrapOf returns the agent's bootstrap file from the user-data. Errors hold none of it: there is a token in it.
func bootstrapOf(userData []byte) ([]byte, error) {
	var config struct {
		Files []struct {
			Path    string `yaml:"path"`
			Content string `yaml:"content"`
		} `yaml:"write_files"`
	}
	const header = "#cloud-config\n"
	if len(userData) > maxUserData || !bytes.HasPrefix(userData, []byte(header)) || yaml.Unmarshal(userData, &config) != nil {
		return nil, errs.New(errs.Invalid, "cannot boot a simulated machine: its user-data is no cloud-config")
	}
	for _, f := range config.Files {
		if f.Path == cloudinit.BootstrapPath {
			return []byte(f.Content), nil
		}
	}
	return nil, errs.New(errs.Invalid, "cannot boot a simulated machine: its user-data has no %s", cloudinit.BootstrapPath)
}

// install makes what cloud-init and the distribution leave of a first boot.
func install(h *host.Host, bootstrap []byte) error {
	for _, dir := range []string{filepath.Dir(cloudinit.BootstrapPath), "/run", "/var/lib", "/proc/sys/kernel/random"} {
		if err := h.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		path, content string
		mode          os.FileMode
	}{
		{cloudinit.BootstrapPath, string(bootstrap), 0o600},
		{"/proc/sys/kernel/random/boot_id", rand.Text() + "\n", 0o644},
		{"/proc/sys/kernel/hostname", "localhost\n", 0o644},
		{"/etc/hosts", "127.0.0.1 localhost\n", 0o644},
	} {
		if err := write(h, f.path, f.content, f.mode); err != nil {
			return err
		}
	}
	return accounts(h, &desired.State{})
}

// write writes a file of the machine as it came with it: nobody asks that it outlives a crash, so that nothing is synced.
func write(h *host.Host, path, content string, mode os.FileMode) error {
	root, err := h.Open()
	if err != nil {
		return err
	}
	defer root.Close()
	return root.WriteFile(strings.TrimPrefix(path, "/"), []byte(content), mode)
}

// none is a machine without programs and without systemd.
type none struct{}

func nothing(what string) error {
	return errs.New(errs.Unsupported, "cannot %s: the machine is simulated", what)
}

func (none) Run(context.Context, host.Command) (host.Result, error) {
	return host.Result{}, nothing("run a command")
}
func (none) Unit(context.Context, string) (host.Unit, error) {
	return host.Unit{}, nothing("ask for a unit")
}
func (none) Ahead(...string)                               {}
func (none) Start(context.Context, string) error           { return nothing("start a unit") }
func (none) Stop(context.Context, string) error            { return nothing("stop a unit") }
func (none) Restart(context.Context, string) error         { return nothing("restart a unit") }
func (none) ReloadOrRestart(context.Context, string) error { return nothing("reload a unit") }
func (none) Enable(context.Context, string) error          { return nothing("enable a unit") }
func (none) Disable(context.Context, string) error         { return nothing("disable a unit") }
func (none) Mask(context.Context, string) error            { return nothing("mask a unit") }
func (none) Unmask(context.Context, string) error          { return nothing("unmask a unit") }
func (none) DaemonReload(context.Context) error            { return nothing("reload systemd") }
