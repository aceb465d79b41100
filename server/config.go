package server

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider/sim"
)

// Ports of a member, one purpose each.
type Ports struct {
	// API serves gRPC, REST, the console and booting machines. Default: 7443.
	API uint16
	// Agent serves agents. Default: 7444.
	Agent uint16
	// Member serves the other members. Default: 7445.
	Member uint16
	// DNS answers queries. Default: 53.
	DNS uint16
}

// Local configures the provider of system containers on this member's host.
type Local struct {
	// CIDR of the machines' network, used when the cluster begins. Default: 10.213.0.0/24.
	CIDR netip.Prefix
}

// Config of a member.
type Config struct {
	// Name of the member, a DNS label. Required.
	Name string
	// ClusterName is used when the cluster begins. Default: provisionr.
	ClusterName string
	// Domain of the default zone, used when the cluster begins. Default: provisionr.internal.
	Domain string
	// DataDir is made where missing. Required.
	DataDir string
	// Listen are the host addresses to listen on, besides the gateway of a local network. Default: all.
	Listen []netip.Addr
	// Advertise is the host name or address by which members, agents and callers reach this member. Required.
	Advertise string
	Ports     Ports
	// DNSRateLimit is how many answers of one kind a network that is none of the cluster's gets in a second over UDP: an IPv4
	// /24 or IPv6 /56. Default: 1000.
	DNSRateLimit int
	// Bootstrap begins a cluster where DataDir holds none yet.
	Bootstrap bool
	// JoinToken and JoinAddress (host:port of a member's API) join a cluster where DataDir holds none yet.
	JoinToken, JoinAddress string
	// AgentDir holds provisionr-agent-GOARCH for each architecture of machines. Required.
	AgentDir string
	// NetworkHosts are the addresses of this host by name of the network that sees it under another than Advertise.
	NetworkHosts map[string]string
	// Admin gets the credentials of the first user, in PEM, when a cluster begins. Required with Bootstrap.
	Admin func(Credentials) error
	// Ready is called once, when the member serves. Default: nothing.
	Ready func()
	// CacheDir keeps what providers of this host can make again, for all clusters of the host. Default: /var/cache/provisionr.
	CacheDir string
	// Local switches the local provider on; nil leaves it off.
	Local *Local
	// Simulate runs the agent of a simulated machine until ctx ends. Default: machines of the provider sim never join.
	Simulate func(ctx context.Context, m sim.Machine) error
	// Version is reported.
	Version string
	// Progress gets a line for each long step at the start. Default: none.
	Progress func(line string)
	// Logger gets everything else. Required.
	Logger *slog.Logger

	// patience is how long members hear nothing of each other before another leads. Default: consensus's.
	patience time.Duration
}

// Credentials of a user, in PEM.
type Credentials struct {
	Certificate, Key, Roots []byte
}

func (c *Config) check() error {
	def := func(p *uint16, port uint16) {
		if *p == 0 {
			*p = port
		}
	}
	def(&c.Ports.API, 7443)
	def(&c.Ports.Agent, 7444)
	def(&c.Ports.Member, 7445)
	def(&c.Ports.DNS, 53)
	if c.DNSRateLimit <= 0 {
		c.DNSRateLimit = 1000
	}
	if c.ClusterName == "" {
		c.ClusterName = "provisionr"
	}
	if c.Domain == "" {
		c.Domain = "provisionr.internal"
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	if c.Ready == nil {
		c.Ready = func() {}
	}
	if c.CacheDir == "" {
		c.CacheDir = "/var/cache/provisionr"
	}
	if c.Local != nil {
		if !c.Local.CIDR.IsValid() {
			c.Local.CIDR = netip.MustParsePrefix("10.213.0.0/24")
		}
	}
	switch {
	case c.Name == "":
		return errs.New(errs.Invalid, "cannot start: no member name").WithHint("give --name")
	case c.DataDir == "":
		return errs.New(errs.Invalid, "cannot start: no data directory").WithHint("give --data")
	case c.Advertise == "":
		return errs.New(errs.Invalid, "cannot start: no address to advertise").WithHint("give --advertise HOST, as the others reach this host")
	case c.Bootstrap && c.JoinToken != "":
		return errs.New(errs.Invalid, "cannot start: a member either begins a cluster or joins one").WithHint("give --bootstrap or --join, not both")
	}
	return nil
}

// hosts are the addresses to listen on: those configured and the gateways.
func (c *Config) hosts(gateways ...netip.Addr) []netip.Addr {
	if len(c.Listen) == 0 {
		return []netip.Addr{netip.IPv6Unspecified()}
	}
	all := append([]netip.Addr{}, c.Listen...)
	for _, g := range gateways {
		covered := false
		for _, l := range all {
			covered = covered || l == g || l.IsUnspecified()
		}
		if !covered {
			all = append(all, g)
		}
	}
	return all
}

// checkNetwork refuses a range of the local provider that is not that of its network in the cluster, if that is there.
func (c *Config) checkNetwork(n *provisionrv1.Network) error {
	present := n.GetSpec().GetCidr()
	if c.Local == nil || n == nil || present == c.Local.CIDR.String() {
		return nil
	}
	return errs.New(errs.Invalid, "cannot start: the network %s has the range %s, not %s", localName, present, c.Local.CIDR).
		WithHint("give the range %s: it cannot change while the cluster lives", present)
}

// dnsHosts are the addresses that DNS listens on: the gateways and those configured or, where none is, the advertised
// one. Loopback addresses and wildcards are left to the host's own resolver where there is another.
func (c *Config) dnsHosts(gateways ...netip.Addr) []netip.Addr {
	configured := c.Listen
	if advertised, err := netip.ParseAddr(c.Advertise); err == nil && len(configured) == 0 {
		configured = []netip.Addr{advertised}
	}
	all := slices.Concat(gateways, configured)
	slices.SortFunc(all, netip.Addr.Compare)
	all = slices.Compact(all)
	public := slices.DeleteFunc(slices.Clone(all), netip.Addr.IsLoopback)
	switch {
	case len(public) > 0:
		return public
	case len(all) > 0:
		return all
	}
	return []netip.Addr{netip.IPv6Unspecified()}
}

// hostPort joins the advertised host with a port.
func (c *Config) hostPort(port uint16) string {
	return net.JoinHostPort(c.Advertise, strconv.Itoa(int(port)))
}
