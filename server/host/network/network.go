package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/files"
	"github.com/provisionr/provisionr/server/provider"
)

// proxyPort is where the apt proxy listens on every gateway.
const proxyPort = 3142

// Network is one that was ensured; it is also the record on disk.
type Network struct {
	Name    string       `json:"name"`
	Prefix  netip.Prefix `json:"prefix"`
	Gateway netip.Addr   `json:"gateway"`
}

// Parse validates a network's specification. Only IPv4 ranges are masqueraded.
func Parse(n *provisionrv1.Network) (Network, error) {
	name, spec := n.GetMetadata().GetName(), n.GetSpec()
	refuse := func(format string, args ...any) (Network, error) {
		return Network{}, provider.Errorf(provider.Invalid, "cannot use network "+name+": "+format, args...)
	}
	if !host.ValidID(name) {
		return refuse("invalid name %q", name)
	}
	prefix, err := netip.ParsePrefix(spec.GetCidr())
	if err != nil {
		return refuse("invalid range: %w", err)
	}
	if !prefix.Addr().Is4() || prefix.Bits() < 8 || prefix.Bits() > 29 {
		return refuse("range %s: networks of a host are IPv4 and between /8 and /29", prefix)
	}
	prefix = prefix.Masked()
	gateway := prefix.Addr().Next()
	if spec.GetGateway() != "" {
		if gateway, err = netip.ParseAddr(spec.GetGateway()); err != nil || !prefix.Contains(gateway) || gateway == prefix.Addr() {
			return refuse("gateway %q is not a host's address in %s", spec.GetGateway(), prefix)
		}
	}
	return Network{Name: name, Prefix: prefix, Gateway: gateway}, nil
}

// Config of a Manager.
type Config struct {
	// Cluster is the id of the cluster, Scope marks what is made; see package host. Both are required.
	Cluster, Scope string
	// Dir holds networks/NAME.json, written before the network's bridge is made, and their lock. Required.
	Dir string
	// Logger is required.
	Logger *slog.Logger
}

// Manager has the networks of one provider. It is safe for concurrent use, also by several processes.
type Manager struct {
	config Config

	// mu guards what follows; changed is closed and replaced when a network is added or removed.
	mu       sync.Mutex
	networks map[string]Network
	changed  chan struct{}
}

// Open makes the directory and reads the networks that are recorded in it. It changes nothing else on the host.
func Open(config Config) (*Manager, error) {
	m := &Manager{config: config, changed: make(chan struct{})}
	err := os.MkdirAll(m.records(), 0o700)
	if err != nil {
		return nil, err
	}
	m.networks, err = readNetworks(m.records())
	return m, err
}

func (m *Manager) records() string { return filepath.Join(m.config.Dir, "networks") }
func (m *Manager) lock() string    { return filepath.Join(m.config.Dir, "networks.lock") }

// holder is the scope without what all scopes have in common.
func (m *Manager) holder() string { return strings.TrimPrefix(m.config.Scope, host.Scope("", "")) }

// Bridge is the name of a network's bridge. It fits into the 15 characters of an interface's name.
func (m *Manager) Bridge(name string) string { return bridgeName(m.config.Cluster, name) }

func bridgeName(cluster, network string) string {
	return "pvr" + host.Digest("bridge", cluster, network)
}

// Find returns a network that was ensured.
func (m *Manager) Find(name string) (Network, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, ok := m.networks[name]
	return n, ok
}

// Place checks where a machine is to be: its network, and its address with the length of the network's prefix.
func (m *Manager) Place(request *provisionrv1.LaunchRequest) (Network, netip.Prefix, error) {
	n, ok := m.Find(request.GetNetwork())
	if !ok {
		return Network{}, netip.Prefix{}, fmt.Errorf("network %q was not ensured", request.GetNetwork())
	}
	address, err := netip.ParseAddr(request.GetAddress())
	if err != nil || !n.Prefix.Contains(address) || address == n.Gateway {
		return Network{}, netip.Prefix{}, fmt.Errorf("invalid address %q in network %s", request.GetAddress(), n.Prefix)
	}
	return n, netip.PrefixFrom(address, n.Prefix.Bits()), nil
}

// Ensure makes the bridge with the gateway's address, masquerades and forwards for the range, and has Serve serve on the
// gateway. It is a provider's EnsureNetwork.
func (m *Manager) Ensure(ctx context.Context, object *provisionrv1.Network) (*provisionrv1.NetworkSpec, error) {
	n, err := Parse(object)
	if err != nil {
		return nil, err
	}
	lock, err := files.Acquire(ctx, m.lock(), nil)
	if err != nil {
		return nil, host.Unknown("cannot make network "+n.Name+": %w", err)
	}
	defer lock.Release()
	if err := m.ensure(ctx, n); err != nil {
		return nil, host.Unknown("cannot make network "+n.Name+": %w", err)
	}
	resolvers, err := hostResolvers(os.DirFS("/"))
	if err != nil {
		return nil, host.Unknown("cannot make network "+n.Name+": %w", err)
	}
	if len(resolvers) == 0 {
		m.config.Logger.WarnContext(ctx, "host has no resolver that machines can reach: they will only resolve the cluster's names", "network", n.Name)
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

// ensure makes the network on the host; the record comes first, for Remove. The caller has the lock of networks.
func (m *Manager) ensure(ctx context.Context, n Network) error {
	path := filepath.Join(m.records(), n.Name+".json")
	bridge := m.Bridge(n.Name)
	var known Network
	if err := files.ReadJSON(path, &known); err == nil && known != n {
		return provider.Errorf(provider.Invalid, "its range and gateway cannot change from %s and %s", known.Prefix, known.Gateway)
	}
	if err := checkOverlap(n, bridge); err != nil {
		return err
	}
	if known != n {
		if err := files.WriteJSON(path, n); err != nil {
			return err
		}
	}
	if err := ensureBridge(n, bridge, m.config.Scope); err != nil {
		return err
	}
	networks, err := readNetworks(m.records())
	if err != nil {
		return err
	}
	if err := applyRules(ctx, m.config.Scope, m.config.Cluster, networks); err != nil {
		return err
	}
	if err := holdSysctls(ctx, m.holder()); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !maps.Equal(m.networks, networks) {
		m.networks = networks
		close(m.changed)
		m.changed = make(chan struct{})
	}
	return nil
}

// Remove removes all of the provider's links, taps included, its rules and its hold on the host's settings, and the
// records. It goes on after an error; what could not be removed is removed by the next call.
func (m *Manager) Remove(ctx context.Context) error {
	err := errors.Join(removeLinks(m.config.Scope), removeRules(ctx, m.config.Scope), releaseSysctls(ctx, m.holder()))
	if err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(m.records()), os.RemoveAll(m.lock()))
}

func readNetworks(dir string) (map[string]Network, error) {
	networks := map[string]Network{}
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		var n Network
		if err := files.ReadJSON(path, &n); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("cannot read networks: %w", err)
		}
		networks[n.Name] = n
	}
	return networks, nil
}
