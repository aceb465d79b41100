package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
)

// hostResolvers returns the name servers of the host that machines can reach: those of /etc/resolv.conf, or where that
// names a local stub, those that systemd-resolved itself asks (systemd-resolved.service(8)).
func hostResolvers(root fs.FS) ([]netip.Addr, error) {
	for _, path := range []string{"etc/resolv.conf", "run/systemd/resolve/resolv.conf"} {
		data, err := fs.ReadFile(root, path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the host's resolvers: %w", err)
		}
		if servers := nameservers(string(data)); len(servers) > 0 {
			return servers, nil
		}
	}
	return nil, nil
}

// nameservers takes the usable servers from a resolv.conf(5), at most three as resolvers do: IPv4, for machines have no
// other, and not of the loopback.
func nameservers(resolvConf string) []netip.Addr {
	var servers []netip.Addr
	for line := range strings.Lines(resolvConf) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(fields[1])
		if err == nil && a.Is4() && !a.IsLoopback() && !a.IsUnspecified() && !slices.Contains(servers, a) && len(servers) < 3 {
			servers = append(servers, a)
		}
	}
	return servers
}
