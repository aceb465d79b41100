package sshd

import (
	"context"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/internal/errs"
)

// daemon says how sshd runs on a machine.
type daemon struct {
	// service is ssh.service or sshd.service; empty where there is none.
	service string
	// socket starts the service, or one for each connection, when somebody connects. It is empty where none is active.
	socket string
	// running says that the service runs; enabled that it, or the socket, is started at boot.
	running, enabled bool
}

// names are those of sshd's units: Debian and Ubuntu use the first, others the second. Debian has the second as an alias.
var names = []string{"ssh", "sshd"}

// detect decides from the states of units how sshd runs. Of two the first that exists counts.
func detect(unit func(name string) (host.Unit, error)) (daemon, error) {
	for _, name := range names {
		service, err := unit(name + ".service")
		if err != nil {
			return daemon{}, err
		}
		socket, err := unit(name + ".socket")
		if err != nil {
			return daemon{}, err
		}
		d := daemon{running: service.Active == "active" || service.Active == "reloading", enabled: boots(service) || boots(socket)}
		if service.Load == "loaded" {
			d.service = name + ".service"
		}
		if socket.Load == "loaded" && socket.Active == "active" {
			d.socket = name + ".socket"
		}
		if d.service != "" || d.socket != "" {
			return d, nil
		}
	}
	return daemon{}, nil
}

// boots leaves out what is enabled until the next boot only, or merely linked: nobody could log in after it.
func boots(u host.Unit) bool {
	return u.File == "enabled" || u.File == "alias" || u.File == "static"
}

func daemonOf(ctx context.Context, h *host.Host) (daemon, error) {
	return detect(func(name string) (host.Unit, error) { return h.Units.Unit(ctx, name) })
}

// state says what is wrong with how sshd runs, or "".
func (d daemon) state() string {
	switch {
	case d.service == "" && d.socket == "":
		return "sshd is not installed"
	case d.socket == "" && !d.running:
		return d.service + " is not running"
	case !d.enabled:
		return "sshd is not started at boot"
	}
	return ""
}

// reload has sshd read its files again. A process that a socket starts later reads them anyway; the socket's own addresses
// are made anew from the configuration where a generator does that.
func (d daemon) reload(ctx context.Context, h *host.Host, listen bool) error {
	if d.service == "" && d.socket == "" {
		return errs.New(errs.Unavailable, "cannot reload sshd: it is not installed").WithHint("list openssh-server under packages")
	}
	if d.socket != "" && listen {
		if err := h.Units.DaemonReload(ctx); err != nil {
			return err
		}
		if err := h.Units.Restart(ctx, d.socket); err != nil {
			return err
		}
	}
	if d.service == "" || d.socket != "" && !d.running {
		return nil
	}
	return h.Units.ReloadOrRestart(ctx, d.service)
}

// ensure starts sshd, now and at boot, where it does not.
func (d daemon) ensure(ctx context.Context, h *host.Host) error {
	if d.service == "" {
		return nil
	}
	if !d.enabled {
		if err := h.Units.Enable(ctx, d.service); err != nil {
			return err
		}
	}
	if d.socket == "" && !d.running {
		return h.Units.Start(ctx, d.service)
	}
	return nil
}

// commands do the same as reload without an agent.
func (d daemon) commands() [][]string {
	var list [][]string
	if d.socket != "" {
		list = append(list, []string{"systemctl", "daemon-reload"}, []string{"systemctl", "restart", d.socket})
	}
	switch {
	case d.service == "":
	case d.socket != "" && !d.running:
		// One that was started meanwhile has the wrong configuration.
		list = append(list, []string{"systemctl", "stop", d.service})
	default:
		list = append(list, []string{"systemctl", "reload-or-restart", d.service})
	}
	return list
}
