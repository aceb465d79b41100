package vpn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

const (
	forward4 = "/proc/sys/net/ipv4/ip_forward"
	forward6 = "/proc/sys/net/ipv6/conf/all/forwarding"
	// forwardedPath lists the settings that we switched on, one a line: those that were on before stay.
	forwardedPath = stateDir + "/forwarded"
	maxForwarded  = 4 << 10
)

// switches are the settings of the kernel (ip-sysctl) that a gateway or relay needs for its families of addresses.
func (c *config) switches() []string {
	if !c.forward {
		return nil
	}
	if c.address.Addr().Is4() {
		return []string{forward4}
	}
	return []string{forward6}
}

// checkForwarding shows which settings differ.
func (t *tunnel) checkForwarding() (string, error) {
	var lines []string
	for _, path := range t.config.switches() {
		on, err := isOn(t.host, path)
		if err != nil {
			return "", err
		}
		if !on {
			lines = append(lines, path+": 0, wanted 1 for a gateway or relay of the VPN")
		}
	}
	if !t.config.forward && conffile.Exists(t.host, forwardedPath) {
		lines = append(lines, "forwarding: on for the VPN, wanted as before")
	}
	return strings.Join(lines, "\n"), nil
}

// applyForwarding switches forwarding on, and off again where we switched it on.
func (t *tunnel) applyForwarding() error {
	if !t.config.forward {
		return unforward(t.host)
	}
	for _, path := range t.config.switches() {
		on, err := isOn(t.host, path)
		if err != nil || on {
			return err
		}
		note := conffile.File{Path: forwardedPath, Content: []byte(path + "\n"), Mode: 0o600}
		if err := conffile.Apply(t.host, &note); err != nil {
			return err
		}
		if err := set(t.host, path, "1\n"); err != nil {
			return err
		}
	}
	return nil
}

func unforward(h *host.Host) error {
	list, err := conffile.Read(h, forwardedPath, maxForwarded)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, path := range strings.Fields(string(list)) {
		if path == forward4 || path == forward6 {
			if err := set(h, path, "0\n"); err != nil {
				return err
			}
		}
	}
	return conffile.Apply(h, &conffile.File{Path: forwardedPath, Absent: true})
}

func isOn(h *host.Host, path string) (bool, error) {
	b, err := h.ReadFile(path)
	return strings.TrimSpace(string(b)) == "1", err
}

// set writes a setting in place: files of the kernel cannot be replaced.
func set(h *host.Host, path, value string) error {
	root, err := h.Open()
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := root.OpenFile(strings.TrimPrefix(path, "/"), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cannot set %s: %w", path, err)
	}
	if _, err := f.WriteString(value); err != nil {
		return errors.Join(fmt.Errorf("cannot set %s: %w", path, err), f.Close())
	}
	return f.Close()
}
