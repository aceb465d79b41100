package resolver

import (
	"net/netip"
	"slices"
	"strings"
)

// stub is where the agent answers DNS on the machine.
var stub = netip.AddrFrom4([4]byte{127, 0, 0, 62})

// mode is a mechanism of name resolution.
type mode int

const (
	// plain: the C library reads servers from resolv.conf.
	plain mode = iota
	// resolved: programs ask systemd-resolved, which knows routes.
	resolved
	// resolvedAround: systemd-resolved runs, but programs ask its upstreams.
	resolvedAround
)

// facts are what the mode depends on.
type facts struct {
	// resolvedRuns says that systemd-resolved is active.
	resolvedRuns bool
	// target is where the link /etc/resolv.conf points to, empty for a file or nothing.
	target string
	// conf is the content of /etc/resolv.conf.
	conf string
	// uplinks is the content of /run/systemd/resolve/resolv.conf.
	uplinks string
}

// detect decides how the machine resolves names.
func detect(f facts) mode {
	if !f.resolvedRuns {
		return plain
	}
	switch {
	case strings.HasSuffix(f.target, "systemd/resolve/stub-resolv.conf"), strings.HasSuffix(f.target, "lib/systemd/resolv.conf"):
		return resolved
	case strings.HasSuffix(f.target, "systemd/resolve/resolv.conf"):
		return resolvedAround
	}
	servers := nameservers(f.conf)
	if len(servers) > 0 && !slices.ContainsFunc(servers, func(a netip.Addr) bool { return !ofResolved(a) }) {
		return resolved
	}
	return plain
}

// ofResolved reports whether systemd-resolved listens on the address (systemd-resolved.service(8)).
func ofResolved(a netip.Addr) bool {
	return a == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || a == netip.AddrFrom4([4]byte{127, 0, 0, 54})
}

// upstreams returns the servers that the machine asks for other names, in order.
func upstreams(f facts, m mode) []netip.Addr {
	text := f.conf
	if m != plain {
		text = f.uplinks
	}
	return slices.DeleteFunc(nameservers(text), func(a netip.Addr) bool { return a == stub || ofResolved(a) })
}

// nameservers returns the servers of a resolv.conf(5), each once.
func nameservers(text string) []netip.Addr {
	var list []netip.Addr
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// plainConf returns resolv.conf with our stub as the only server. Search list and options stay.
func plainConf(now string) []byte {
	var b strings.Builder
	b.WriteString("# Managed by provisionr-agent. It forwards to the servers listed in " + UpstreamsPath + ".\nnameserver " + stub.String() + "\n")
	for line := range strings.Lines(now) {
		if f := strings.Fields(line); len(f) > 0 && (f[0] == "search" || f[0] == "domain" || f[0] == "options") {
			b.WriteString(strings.Join(f, " ") + "\n")
		}
	}
	return []byte(b.String())
}

// dropIn returns the configuration that has systemd-resolved route the zones to the stub (resolved.conf(5)).
func dropIn(zones []string) []byte {
	var b strings.Builder
	b.WriteString("# Managed by provisionr-agent.\n[Resolve]\nDNS=" + stub.String() + "\n")
	for _, z := range zones {
		b.WriteString("Domains=~" + z + "\n")
	}
	return []byte(b.String())
}
