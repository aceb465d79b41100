package vpn

import (
	"context"
	"crypto/sha256"
	"runtime"
	"strings"

	"github.com/provisionr/provisionr/agent/desired"
	store "github.com/provisionr/provisionr/agent/programs"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	// program is the name that servers hold the userspace WireGuard by.
	program  = "wireguard"
	unit     = "provisionr-wireguard@" + Link + ".service"
	unitPath = "/etc/systemd/system/provisionr-wireguard@.service"
	// installedPath says that there is, or was, an interface of ours.
	installedPath = stateDir + "/installed"
)

// unitText runs the program. The directory of its socket is root's alone, and outlives it: others may have sockets there.
const unitText = `# Managed by provisionr-agent.
[Unit]
Description=Userspace WireGuard on %i
After=network-pre.target

[Service]
Type=notify
ExecStart=PROGRAM %i
RuntimeDirectory=wireguard
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
Restart=always
RestartSec=1
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW
ProtectHome=yes
ProtectSystem=full
`

func unitFile(path string) *conffile.File {
	return &conffile.File{Path: unitPath, Content: []byte(strings.ReplaceAll(unitText, "PROGRAM", path))}
}

func (t *tunnel) markInstalled() error {
	if conffile.Exists(t.host, installedPath) {
		return nil
	}
	return conffile.Apply(t.host, &conffile.File{Path: installedPath, Mode: 0o600})
}

// programPath is where the program of the desired state's hash belongs; "" where no server has one.
func programPath(s *desired.State) string {
	sha := s.Machine.GetPrograms()[program+"/"+runtime.GOARCH]
	if len(sha) != sha256.Size {
		return ""
	}
	return store.Path(program, sha)
}

// checkUnit compares the program's unit with what is desired. It neither reads nor fetches the program: Apply does.
func (t *tunnel) checkUnit(ctx context.Context) (string, error) {
	u, err := t.host.Units.Unit(ctx, unit)
	if err != nil {
		return "", err
	}
	if u.Active != "active" {
		return unit + " is " + u.Active + ", wanted active", nil
	}
	if t.path == "" {
		return "", nil
	}
	return conffile.Check(t.host, unitFile(t.path), &conffile.Seen{})
}

// keepProgram starts the program anew where its unit is not as desired.
func (t *tunnel) keepProgram(ctx context.Context) error {
	d, err := t.checkUnit(ctx)
	if err != nil || d == "" {
		return err
	}
	return t.startProgram(ctx)
}

// startProgram fetches the program, writes its unit and runs it. It returns when the interface is there.
func (t *tunnel) startProgram(ctx context.Context) error {
	if t.programs == nil {
		return errs.New(errs.Unsupported, "cannot make interface %s: the kernel has no WireGuard", Link).
			WithHint("have the servers hold the program %q for this machine's architecture", program)
	}
	path, err := t.programs.Program(ctx, program)
	if err != nil {
		return err
	}
	if err := conffile.Apply(t.host, unitFile(path)); err != nil {
		return err
	}
	if err := t.host.Units.DaemonReload(ctx); err != nil {
		return err
	}
	if err := t.host.Units.Restart(ctx, unit); err != nil {
		return errs.New(errs.Internal, "cannot run WireGuard in userspace: %w", err).WithHint("it needs /dev/net/tun; see journalctl -u %s", unit)
	}
	return nil
}
