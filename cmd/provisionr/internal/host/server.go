package host

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/provisionr/provisionr/cmd/provisionr/internal/cli"
	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/version"
	"github.com/provisionr/provisionr/server"
)

// serverFlags are the flags that `server` and `dev` share in meaning.
type serverFlags struct {
	name, data, advertise, joinToken, joinAddress string
	clusterName, domain, agentDir, cidr, cache    string
	listen                                        []string
	networkHosts                                  map[string]string
	bootstrap, local                              bool
	ports                                         server.Ports
	dnsRate                                       int
}

// NewServer returns the command `server`.
func NewServer(s cli.Streams) *cobra.Command {
	var f serverFlags
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run one member of a cluster",
		Long: `Run one member of a cluster until it is stopped.

The first member begins the cluster with --bootstrap, writes the credentials of its first administrator to DATA/admin and
makes them the current context of the command line; every further one joins with --join and a token of "provisionr cluster join-token". Both flags are ignored
once the data directory belongs to a cluster, so that one command line serves a unit file.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := f.config(slog.New(slog.NewTextHandler(s.Err, nil)))
			if err != nil {
				return err
			}
			config.Admin = func(c server.Credentials) error {
				return saveAdmin(filepath.Join(f.data, "admin"), f.clusterName, net.JoinHostPort(f.advertise, strconv.Itoa(int(f.ports.API))), c)
			}
			config.Progress = func(line string) { fmt.Fprintln(s.Out, line) }
			served := false
			config.Ready = func() {
				fmt.Fprintf(s.Out, "member %s serves\n", f.name)
				f.markReady(s)
				served = true
			}
			err = serve(cmd.Context(), config)
			if served {
				// Only then is it this process's: another may run on the directory.
				_ = os.Remove(f.readyFile())
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "", "name of this member, a DNS label (required)")
	flags.StringVar(&f.data, "data", "/var/lib/provisionr", "data directory")
	flags.StringVar(&f.advertise, "advertise", "", "host name or address by which everybody reaches this member (required)")
	flags.StringSliceVar(&f.listen, "listen", nil, "addresses to listen on (default: all)")
	flags.BoolVar(&f.bootstrap, "bootstrap", false, "begin a new cluster where the data directory holds none")
	flags.StringVar(&f.joinToken, "join", os.Getenv("PROVISIONR_JOIN_TOKEN"), "token to join a cluster with (PROVISIONR_JOIN_TOKEN)")
	flags.StringVar(&f.joinAddress, "join-address", "", "HOST:PORT of a member's API to join through")
	flags.StringVar(&f.clusterName, "cluster", "provisionr", "name of a new cluster")
	flags.StringVar(&f.domain, "domain", "provisionr.internal", "domain of a new cluster's default zone")
	flags.StringVar(&f.agentDir, "agent-dir", "", "folder of provisionr-agent binaries (default: that of this program)")
	flags.BoolVar(&f.local, "local", false, "boot machines of the provider local on this host (root)")
	flags.StringVar(&f.cidr, "local-cidr", "10.213.0.0/24", "network of the provider local")
	flags.StringVar(&f.cache, "cache", "/var/cache/provisionr", "cache of images, root file systems and packages of providers on this host")
	flags.StringToStringVar(&f.networkHosts, "network-host", nil, "NETWORK=ADDRESS by which the machines of a network reach this member")
	flags.Uint16Var(&f.ports.API, "api-port", 7443, "port of the API, REST and the console")
	flags.Uint16Var(&f.ports.Agent, "agent-port", 7444, "port for agents")
	flags.Uint16Var(&f.ports.Member, "member-port", 7445, "port for the other members")
	flags.Uint16Var(&f.ports.DNS, "dns-port", 53, "port of the DNS server")
	flags.IntVar(&f.dnsRate, "dns-rate-limit", 1000, "DNS answers of one kind in a second to each /24 (IPv6 /56) outside the machines' networks")
	return cmd
}

// readyFile is there while the member serves.
func (f *serverFlags) readyFile() string { return filepath.Join(f.data, "ready") }

func (f *serverFlags) markReady(s cli.Streams) {
	if err := os.WriteFile(f.readyFile(), []byte(version.Version+"\n"), 0o600); err != nil {
		fmt.Fprintf(s.Err, "cannot say that the member serves: %v\n", err)
	}
}

// joined reports whether the member belongs to a cluster.
func (f *serverFlags) joined() bool {
	_, err := os.Stat(filepath.Join(f.data, "identity", "member.json"))
	return err == nil
}

// config turns flags into the configuration of a member.
func (f *serverFlags) config(log *slog.Logger) (server.Config, error) {
	c := server.Config{
		Name: f.name, ClusterName: f.clusterName, Domain: f.domain, DataDir: f.data, Advertise: f.advertise,
		Ports: f.ports, Bootstrap: f.bootstrap, JoinToken: f.joinToken, JoinAddress: f.joinAddress,
		DNSRateLimit: f.dnsRate, NetworkHosts: f.networkHosts, AgentDir: f.agentDir, Version: version.Version, CacheDir: f.cache, Simulate: simulate, Logger: log,
	}
	for _, l := range f.listen {
		addr, err := netip.ParseAddr(l)
		if err != nil {
			return c, errs.New(errs.Invalid, "--listen: %q is not an address", l).WithHint("give IP addresses, without ports")
		}
		c.Listen = append(c.Listen, addr)
	}
	if f.local {
		cidr, err := netip.ParsePrefix(f.cidr)
		if err != nil || cidr != cidr.Masked() {
			return c, errs.New(errs.Invalid, "the network of the provider local, %q, is not a network address with a prefix length", f.cidr).
				WithHint("give for example 10.213.0.0/24")
		}
		c.Local = &server.Local{CIDR: cidr}
	}
	if c.AgentDir == "" {
		self, err := os.Executable()
		if err != nil {
			return c, errs.New(errs.Internal, "cannot find this program's folder: %w", err)
		}
		c.AgentDir = filepath.Dir(self)
	}
	return c, nil
}
