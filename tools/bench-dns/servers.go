package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// server is one of those compared.
type server struct {
	name string
	port int
	*process
	// sample of its answers to read whole, as in load.
	sample int
}

// stage is where servers are started: with so many hosts, on one processor or on all.
type stage struct {
	dir   string
	hosts hosts
	// ports of our server, which stay: API, agents, members, DNS.
	ports [4]int
	// cpu of the servers, or -1, and how many threads each may use to answer.
	cpu, threads int
	// programs that were built.
	provisionr, echo, coredns string
}

// path of a file in the stage's directory, which is made where missing.
func (s stage) path(elements ...string) string {
	path := filepath.Join(append([]string{s.dir}, elements...)...)
	_ = os.MkdirAll(filepath.Dir(path), 0o755)
	return path
}

func (s stage) writeZones() error {
	return s.hosts.writeZones(func(origin string) (io.WriteCloser, error) { return os.Create(s.path("zones", origin)) })
}

// each formats a piece of configuration for each zone: its origin, then its file.
func (s stage) each(format string) string {
	var b strings.Builder
	if s.hosts > 0 {
		for _, origin := range s.hosts.origins() {
			fmt.Fprintf(&b, format, origin, s.path("zones", origin))
		}
	}
	return b.String()
}

// serve starts a server whose configuration is text, written to a file that the command's %s is.
func (s stage) serve(name, text string, port int, command ...string) (*server, error) {
	file := s.path(name, "config")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	for i := range command {
		command[i] = strings.ReplaceAll(command[i], "%s", file)
	}
	p, err := start(s.path(name, "log"), s.cpu, nil, command...)
	return &server{name: name, port: port, process: p, sample: sampled}, err
}

// nsd answers with as few records as ours, limits no rates, and has the larger buffer that it does not take by itself.
func (s stage) nsd() (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf(`server:
	ip-address: 127.0.0.1@%d
	server-count: %d
	reuseport: yes
	minimal-responses: yes
	rrl-ratelimit: 0
	receive-buffer-size: 4194304
	username: ""
	database: ""
	zonesdir: %q
	pidfile: %q
	xfrdfile: %q
	xfrdir: %q
	zonelistfile: %q
	verbosity: 0
remote-control:
	control-enable: no
`, port, s.threads, s.path("nsd"), s.path("nsd", "pid"), s.path("nsd", "xfrd"), s.path("nsd"), s.path("nsd", "list"))
	return s.serve("nsd", text+s.each("zone:\n\tname: %q\n\tzonefile: %q\n"), port, "nsd", "-d", "-c", "%s")
}

// knot keeps no journal: it only answers.
func (s stage) knot() (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf(`server:
    rundir: %q
    listen: 127.0.0.1@%d
    udp-workers: %d
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: warning
database:
    storage: %q
template:
  - id: default
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
`, s.path("knot", "run"), port, s.threads, s.path("knot", "db"))
	if err := os.MkdirAll(s.path("knot", "run"), 0o755); err != nil {
		return nil, err
	}
	zones := s.each("  - domain: %q\n    file: %q\n")
	if zones != "" {
		zones = "zone:\n" + zones
	}
	return s.serve("knot", text+zones, port, "knotd", "-c", "%s")
}

func (s stage) coreDNS() (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	zones := s.each(fmt.Sprintf("%%s:%d {\n\tbind 127.0.0.1\n\tfile %%s {\n\t\treload 0\n\t}\n}\n", port))
	return s.serve("coredns", zones, port, s.coredns, "-conf", "%s")
}

// limit starts the echo, whose answers are as many octets longer than the queries as those of a server.
func (s stage) limit(beyond [kinds]int) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	e, err := s.serve("echo", "", port, s.echo, fmt.Sprint(port), fmt.Sprint(s.threads),
		fmt.Sprint(beyond[addressOf]), fmt.Sprint(beyond[pointerOf]), fmt.Sprint(beyond[missing]))
	if err == nil {
		e.sample = 0
	}
	return e, err
}

// ours begins or continues a cluster of one member on loopback, whose data stays in the stage's directory. Nothing is switched off;
// the load comes from a network that is not the cluster's, so that its answers are counted, against a limit above them.
func (s stage) ours() (*server, error) {
	data := s.path("provisionr", "data")
	p, err := start(s.path("provisionr", "log"), s.cpu, s.environment(), s.provisionr, "server", "--bootstrap", "--name", "bench", "--data", data,
		"--dns-rate-limit", "10000000", "--listen", "127.0.0.1", "--advertise", "127.0.0.1", "--cache", s.path("provisionr", "cache"),
		"--api-port", fmt.Sprint(s.ports[0]), "--agent-port", fmt.Sprint(s.ports[1]), "--member-port", fmt.Sprint(s.ports[2]), "--dns-port", fmt.Sprint(s.ports[3]))
	if err != nil {
		return nil, err
	}
	o := &server{name: "provisionr", port: s.ports[3], process: p, sample: sampled}
	err = p.await("it serves", func() bool {
		_, err := os.Stat(filepath.Join(data, "ready"))
		return err == nil
	})
	if err != nil {
		p.stop()
	}
	return o, err
}

func (s stage) environment() []string {
	return []string{"PROVISIONR_CONFIG=" + s.path("provisionr", "config.yaml"), "NO_COLOR=1"}
}

// apply gives our server the zones as a user does: the network of the addresses, and a manifest for each zone.
func (s stage) apply() error {
	files := []string{s.path("provisionr", "network.yaml")}
	err := os.WriteFile(files[0], fmt.Appendf(nil,
		"apiVersion: provisionr/v1\nkind: Provider\nmetadata: {name: bench}\nspec: {static: {}}\n---\n"+
			"apiVersion: provisionr/v1\nkind: Network\nmetadata: {name: bench}\nspec: {provider: bench, cidr: %s}\n", s.hosts.network()), 0o600)
	for zone := 0; zone < s.hosts.zones() && err == nil; zone++ {
		var b strings.Builder
		fmt.Fprintf(&b, "apiVersion: provisionr/v1\nkind: Zone\nmetadata: {name: z%d}\nspec:\n  domain: %s\n  ttl: %d\n  records:\n", zone, domain(zone), ttl)
		for i := zone * zoneSize; i < min((zone+1)*zoneSize, int(s.hosts)); i++ {
			fmt.Fprintf(&b, "  - {name: %s, addresses: [%s]}\n", label(i), address(i))
		}
		files = append(files, s.path("provisionr", fmt.Sprintf("zone%d.yaml", zone)))
		err = os.WriteFile(files[zone+1], []byte(b.String()), 0o600)
	}
	for _, file := range files {
		if err != nil {
			return err
		}
		cmd := exec.Command(s.provisionr, "apply", "-f", file, "--yes", "--no-wait")
		cmd.Env = append(os.Environ(), s.environment()...)
		if out, failed := cmd.CombinedOutput(); failed != nil {
			err = fmt.Errorf("cannot apply %s: %w\n%.2000s", file, failed, out)
		}
	}
	return err
}
