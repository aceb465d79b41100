package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// proxyPort is where the apt proxy listens on every gateway.
const proxyPort = 3142

// network is one that was ensured; it is also the record on disk.
type network struct {
	Name    string       `json:"name"`
	Prefix  netip.Prefix `json:"prefix"`
	Gateway netip.Addr   `json:"gateway"`
}

// parseNetwork validates a network's specification. Only IPv4 ranges are masqueraded.
func parseNetwork(n *provisionrv1.Network) (network, error) {
	name, spec := n.GetMetadata().GetName(), n.GetSpec()
	refuse := func(format string, args ...any) (network, error) {
		return network{}, provider.Errorf(provider.Invalid, "cannot use network "+name+": "+format, args...)
	}
	if !idPattern.MatchString(name) {
		return refuse("invalid name %q", name)
	}
	prefix, err := netip.ParsePrefix(spec.GetCidr())
	if err != nil {
		return refuse("invalid range: %w", err)
	}
	if !prefix.Addr().Is4() || prefix.Bits() < 8 || prefix.Bits() > 29 {
		return refuse("range %s: local networks are IPv4 and between /8 and /29", prefix)
	}
	prefix = prefix.Masked()
	gateway := prefix.Addr().Next()
	if spec.GetGateway() != "" {
		if gateway, err = netip.ParseAddr(spec.GetGateway()); err != nil || !prefix.Contains(gateway) || gateway == prefix.Addr() {
			return refuse("gateway %q is not a host's address in %s", spec.GetGateway(), prefix)
		}
	}
	return network{Name: name, Prefix: prefix, Gateway: gateway}, nil
}

// EnsureNetwork implements provider.Provider: it makes the bridge with the gateway's address, masquerades and forwards for
// the range, and has Run serve on the gateway.
func (p *Provider) EnsureNetwork(ctx context.Context, object *provisionrv1.Network) (*provisionrv1.NetworkSpec, error) {
	n, err := parseNetwork(object)
	if err != nil {
		return nil, err
	}
	lock, err := lockFile(ctx, p.networkLock())
	if err != nil {
		return nil, unknown("cannot make network "+n.Name+": %w", err)
	}
	defer lock.release()
	if err := p.ensure(ctx, n); err != nil {
		return nil, unknown("cannot make network "+n.Name+": %w", err)
	}
	resolvers, err := hostResolvers(os.DirFS("/"))
	if err != nil {
		return nil, unknown("cannot make network "+n.Name+": %w", err)
	}
	if len(resolvers) == 0 {
		p.log.WarnContext(ctx, "host has no resolver that machines can reach: they will only resolve the cluster's names", "network", n.Name)
	}
	spec := proto.CloneOf(object.GetSpec())
	spec.Cidr, spec.Gateway, spec.Managed = n.Prefix.String(), n.Gateway.String(), true
	spec.NtpServers = []string{n.Gateway.String()}
	spec.HttpProxy = fmt.Sprintf("http://%s", netip.AddrPortFrom(n.Gateway, proxyPort))
	spec.DnsServers = nil
	for _, r := range resolvers {
		spec.DnsServers = append(spec.DnsServers, r.String())
	}
	return spec, nil
}

func (p *Provider) networkLock() string { return filepath.Join(p.config.DataDir, "networks.lock") }

// ensure makes the network on the host; the record comes first, for Cleanup. The caller has the lock of networks.
func (p *Provider) ensure(ctx context.Context, n network) error {
	path := filepath.Join(p.networksDir(), n.Name+".json")
	var known network
	if err := readJSON(path, &known); err == nil && known != n {
		return provider.Errorf(provider.Invalid, "its range and gateway cannot change from %s and %s", known.Prefix, known.Gateway)
	}
	if err := checkOverlap(n, p.config.ClusterID); err != nil {
		return err
	}
	if known != n {
		if err := writeJSON(path, n); err != nil {
			return err
		}
	}
	if err := ensureBridge(n, p.config.ClusterID); err != nil {
		return err
	}
	networks, err := readNetworks(p.networksDir())
	if err != nil {
		return err
	}
	if err := applyRules(ctx, tableName(p.config.ClusterID), p.config.ClusterID, networks); err != nil {
		return err
	}
	if err := holdSysctls(ctx, p.config.ClusterID); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !maps.Equal(p.networks, networks) {
		p.networks = networks
		close(p.changed)
		p.changed = make(chan struct{})
	}
	return nil
}

func readNetworks(dir string) (map[string]network, error) {
	networks := map[string]network{}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		var n network
		if err := readJSON(file, &n); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("cannot read networks: %w", err)
		}
		networks[n.Name] = n
	}
	return networks, nil
}

// checkOverlap refuses a range that the host already has on another link: machines or the host's own network would be cut off.
func checkOverlap(n network, cluster string) error {
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("cannot list the host's addresses: %w", err)
	}
	own, _ := netlink.LinkByName(bridgeName(cluster, n.Name)) // nil when it is not there yet
	for _, a := range addresses {
		ip, ok := netip.AddrFromSlice(a.IP.To4())
		bits, _ := a.Mask.Size()
		if !ok || (own != nil && a.LinkIndex == own.Attrs().Index) {
			continue
		}
		if other := netip.PrefixFrom(ip, bits); other.Overlaps(n.Prefix) {
			return provider.Errorf(provider.Invalid, "range %s overlaps the host's address %s: choose another range for the network", n.Prefix, other)
		}
	}
	return nil
}

func ensureBridge(n network, cluster string) error {
	name := bridgeName(cluster, n.Name)
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		// A fixed address: else the bridge changes it with its ports and machines lose their neighbour entry.
		attrs.HardwareAddr = hardwareAddress(name)
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("bridge %s: %w", name, err)
		}
		link, err = netlink.LinkByName(name)
	}
	if err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	if err := netlink.LinkSetAlias(link, tableName(cluster)); err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: n.Gateway.AsSlice(), Mask: net.CIDRMask(n.Prefix.Bits(), 32)}}
	if err := netlink.AddrReplace(link, address); err != nil {
		return fmt.Errorf("address of bridge %s: %w", name, err)
	}
	// No IPv6 on it: the host must not offer machines a way around their addresses.
	err = os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6"), []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return netlink.LinkSetUp(link)
}

func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	return err
}

// removeLinks removes every link that has the alias, whatever its name.
func removeLinks(alias string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Attrs().Alias == alias {
			err = errors.Join(err, removeLink(l.Attrs().Name))
		}
	}
	return err
}

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
