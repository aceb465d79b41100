package network

import (
	"fmt"
	"path"
	"strings"

	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

// manager is what keeps the configuration of an interface.
type manager int

const (
	// none: nobody does; the agent brings back what is missing.
	none manager = iota
	networkd
	networkManager
	ifupdown
)

func (m manager) String() string {
	return [...]string{"none", "systemd-networkd", "NetworkManager", "ifupdown"}[m]
}

// facts are what the manager depends on.
type facts struct {
	name string
	// networkd is the content of /run/systemd/netif/links/INDEX.
	networkd string
	// networkManager is the content of /run/NetworkManager/devices/INDEX.
	networkManager string
	// interfaces are /etc/network/interfaces and what is in interfaces.d, one after the other.
	interfaces string
	// ifstate is the content of /run/network/ifstate or /run/network/ifstate.NAME.
	ifstate string
}

// detect decides which manager an interface has, and for networkd, the name of the file that configures it. What is in force
// now counts more than what is written for a boot.
func detect(f facts) (manager, string) {
	if file := value(f.networkd, "NETWORK_FILE"); file != "" && value(f.networkd, "ADMIN_STATE") != "unmanaged" {
		return networkd, path.Base(file)
	}
	if value(f.networkManager, "managed") == "true" {
		return networkManager, ""
	}
	if names(f.ifstate, f.name) || configured(f.interfaces, f.name) {
		return ifupdown, ""
	}
	return none, ""
}

// value returns a setting of a file of lines KEY=VALUE.
func value(text, key string) string {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return v
		}
	}
	return ""
}

// names reports whether ifupdown's state has the interface, as eth0=eth0 or eth0.
func names(state, name string) bool {
	for line := range strings.Lines(state) {
		if physical, _, _ := strings.Cut(strings.TrimSpace(line), "="); physical == name {
			return true
		}
	}
	return false
}

// configured reports whether interfaces(5) has the interface with a method that configures it.
func configured(text, name string) bool {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 4 && f[0] == "iface" && f[1] == name && f[3] != "manual" {
			return true
		}
	}
	return false
}

// file returns what makes a manager keep the configuration. None needs no file.
func (m manager) file(network, link string, c config) *conffile.File {
	switch m {
	case networkd:
		return &conffile.File{Path: "/etc/systemd/network/" + network + ".d/50-provisionr.conf", Content: dropIn(c), Absent: c.empty()}
	case networkManager:
		return &conffile.File{Path: dispatcherPath, Mode: 0o755, Absent: c.empty(),
			Content: script(fmt.Sprintf("[ \"$1\" = %s ] && [ \"$2\" = up ] || exit 0", link), link, c)}
	case ifupdown:
		return &conffile.File{Path: hookPath, Mode: 0o755, Absent: c.empty(), Content: script(fmt.Sprintf("[ \"$IFACE\" = %s ] || exit 0", link), link, c)}
	}
	return nil
}

const (
	dispatcherPath = "/etc/NetworkManager/dispatcher.d/50-provisionr"
	hookPath       = "/etc/network/if-up.d/provisionr"
)

// dropIn is for systemd.network(5).
func dropIn(c config) []byte {
	var b strings.Builder
	b.WriteString("# Managed by provisionr-agent.\n")
	if c.MTU > 0 {
		fmt.Fprintf(&b, "[Link]\nMTUBytes=%d\n", c.MTU)
	}
	for _, a := range c.Addresses {
		fmt.Fprintf(&b, "[Address]\nAddress=%s\n", a)
	}
	for _, r := range c.Routes {
		fmt.Fprintf(&b, "[Route]\nDestination=%s\nGateway=%s\n", r.To, r.Via)
		if r.Metric > 0 {
			fmt.Fprintf(&b, "Metric=%d\n", r.Metric)
		}
	}
	return []byte(b.String())
}

// script is for managers that run one when an interface came up. Replacing what is there already is no error.
func script(guard, link string, c config) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "#!/bin/sh\n# Managed by provisionr-agent.\n%s\n", guard)
	if c.MTU > 0 {
		fmt.Fprintf(&b, "ip link set dev %s mtu %d\n", link, c.MTU)
	}
	for _, a := range c.Addresses {
		fmt.Fprintf(&b, "ip address replace %s dev %s\n", a, link)
	}
	for _, r := range c.Routes {
		fmt.Fprintf(&b, "ip route replace %s\n", strings.Join(r.words(link), " "))
	}
	b.WriteString("exit 0\n")
	return []byte(b.String())
}
