package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/cmd/provisionr/internal/cli"
	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/version"
	"github.com/provisionr/provisionr/server"
)

// firstServer begins the cluster and boots its machines.
const firstServer = "s1"

// maxServers bounds the members that dev runs on one host.
const maxServers = 7

// devFlags describe a development cluster on this host.
type devFlags struct {
	name, data, cache, domain, cidr, agentDir string
	port, dnsPort                             uint16
	servers                                   int
	noLocal                                   bool
	networkHosts                              map[string]string
}

// NewDev returns the command `dev` with `dev down`.
func NewDev(s cli.Streams) *cobra.Command {
	var f devFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole cluster on this host, with machines as system containers",
		Long: `Run a whole cluster on this host until it is stopped: one server with everything embedded, or several with --servers.
Machines of the provider "local" are system containers on a bridge of their own; they go on when the server stops, and the
next start finds them again. "provisionr dev down" removes everything.

The credentials become the current context of the command line. DATA/ready appears when the cluster serves.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), s) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "dev", "name of the cluster and of its context")
	flags.StringVar(&f.data, "data", "provisionr-dev", "data directory")
	flags.StringVar(&f.cache, "cache", "/var/cache/provisionr", "cache of root file systems and packages, for all clusters of this host")
	flags.StringVar(&f.domain, "domain", "provisionr.internal", "domain of the machines")
	flags.StringVar(&f.cidr, "cidr", "10.213.0.0/24", "network of the machines")
	flags.StringVar(&f.agentDir, "agent-dir", "", "folder of provisionr-agent binaries (default: that of this program)")
	flags.Uint16Var(&f.port, "port", 7443, "port of the API; the next two serve agents and members, and each further server takes the ten after")
	flags.Uint16Var(&f.dnsPort, "dns-port", 53, "port of the DNS server; each further server takes one 1000 higher")
	flags.IntVar(&f.servers, "servers", 1, "number of servers, each a process of its own where there are several")
	flags.BoolVar(&f.noLocal, "no-local", false, "boot no machines on this host: needs no root")
	flags.StringToStringVar(&f.networkHosts, "network-host", nil, "NETWORK=ADDRESS of this host by which the machines of a network reach the servers")
	cmd.AddCommand(newDown(s))
	return cmd
}

func (f *devFlags) run(ctx context.Context, s cli.Streams) error {
	if f.servers < 1 || f.servers > maxServers {
		return errs.New(errs.Invalid, "--servers: %d is not a number from 1 to %d", f.servers, maxServers)
	}
	data, err := filepath.Abs(f.data)
	if err != nil {
		return errs.New(errs.Internal, "cannot find the data directory: %w", err)
	}
	f.data = data
	if err := os.MkdirAll(f.data, 0o700); err != nil {
		return errs.New(errs.Internal, "cannot make the data directory: %w", err)
	}
	release, err := f.claim()
	if err != nil {
		return err
	}
	defer release()
	if more := f.member(f.servers + 1); more.joined() {
		return errs.New(errs.Conflict, "cannot run %d servers: %s holds a cluster of more", f.servers, f.data).
			WithHint("give --servers with their number, or remove the cluster with `provisionr dev down`")
	}
	if f.servers > 1 {
		self, err := os.Executable()
		if err != nil {
			return errs.New(errs.Internal, "cannot find this program: %w", err)
		}
		return f.runChildren(ctx, s, self)
	}
	member := f.member(1)
	config, err := member.config(slog.New(slog.NewTextHandler(s.Err, nil)))
	if err != nil {
		return err
	}
	config.Admin = f.saveAdmin
	config.Progress = func(line string) { fmt.Fprintln(s.Out, line) }
	var readyErr error
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	config.Ready = func() {
		if readyErr = f.ready(s); readyErr != nil {
			stop()
		}
	}
	if err := serve(ctx, config); err != nil {
		return err
	}
	return readyErr
}

// pidFile is locked by the process that runs the cluster, and holds its id.
const pidFile = "dev.pid"

// claim makes this process the one that runs the cluster, and takes back what says that it serves, also what a crash left.
func (f *devFlags) claim() (release func(), err error) {
	file, err := os.OpenFile(f.file(pidFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot write to the data directory: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		return nil, errs.New(errs.Conflict, "cannot start: another process runs the cluster of %s", f.data).
			WithHint("stop it, or give another --data")
	}
	unready := func() error {
		if err := os.Remove(f.file("ready")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	err = file.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(file, os.Getpid())
	}
	if err = errors.Join(err, unready()); err != nil {
		file.Close()
		return nil, errs.New(errs.Internal, "cannot write to the data directory: %w", err)
	}
	return func() {
		// The data directory may be gone by now, and the mark with it.
		_ = unready()
		file.Close()
	}, nil
}

// member returns the flags of the nth server, from 1.
func (f *devFlags) member(n int) *serverFlags {
	shift := uint16(10 * (n - 1))
	m := &serverFlags{
		// The first is firstServer.
		name: "s" + strconv.Itoa(n), data: f.file("s" + strconv.Itoa(n)), advertise: "127.0.0.1",
		clusterName: f.name, domain: f.domain, agentDir: f.agentDir, cidr: f.cidr, cache: f.cache,
		listen: []string{"127.0.0.1"}, bootstrap: n == 1, local: n == 1 && !f.noLocal, networkHosts: map[string]string{},
		ports: server.Ports{
			API: f.port + shift, Agent: f.port + shift + 1, Member: f.port + shift + 2, DNS: f.dnsPort + uint16(1000*(n-1)),
		},
	}
	for network, host := range f.networkHosts {
		m.listen = append(m.listen, host)
		m.networkHosts[network] = host
	}
	if n > 1 && !f.noLocal {
		if gateway := f.gateway(); gateway != "" {
			m.listen = append(m.listen, gateway)
			m.networkHosts["local"] = gateway
		}
	}
	return m
}

// gateway is the host's address on the machines' network; "" where there is none or the network is not valid.
func (f *devFlags) gateway() string {
	cidr, err := netip.ParsePrefix(f.cidr)
	if err != nil || f.noLocal {
		return ""
	}
	return cidr.Masked().Addr().Next().String()
}

func (f *devFlags) file(name string) string { return filepath.Join(f.data, name) }

func (f *devFlags) api() string { return "127.0.0.1:" + strconv.Itoa(int(f.port)) }

func (f *devFlags) saveAdmin(c server.Credentials) error {
	return saveAdmin(f.file("admin"), f.name, f.api(), c)
}

// ready tells people and scripts how to go on.
func (f *devFlags) ready(s cli.Streams) error {
	dns := f.gateway()
	if dns == "" {
		dns = "127.0.0.1"
	}
	settings := fmt.Sprintf("CLUSTER=%s\nDOMAIN=%s\nDNS_ADDRESS=%s\nDNS_PORT=%d\nCONSOLE=https://%s/\n", f.name, f.domain, dns, f.dnsPort, f.api())
	for _, file := range []struct{ name, text string }{{"dev.env", settings}, {"ready", version.Version + "\n"}} {
		if err := os.WriteFile(f.file(file.name), []byte(file.text), 0o600); err != nil {
			return errs.New(errs.Internal, "cannot write to the data directory: %w", err)
		}
	}
	fmt.Fprintf(s.Out, "cluster %s serves: console https://%s/, dns %s port %d for %s\n", f.name, f.api(), dns, f.dnsPort, f.domain)
	return nil
}
