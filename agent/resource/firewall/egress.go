package firewall

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// bootstrapPath and identityPath have the places of servers that this machine was given: at first, and with each session.
	bootstrapPath = "/etc/provisionr/bootstrap.json"
	identityPath  = conffile.StateDir + "/identity/state.json"

	ntpPort = 123
	dnsPort = 53
)

// serverPorts are what machines ask of servers: programs and beacons, sessions.
var serverPorts = []*agentv1.PortRange{{First: 7443, Last: 7444}}

// agentPorts are what agents ask of each other: the greeting, and the port that no firewall lets through.
var agentPorts = []*agentv1.PortRange{{First: confirmPort, Last: confirmPort + 1}}

const outputHead = `	chain output {
		type filter hook output priority filter; policy drop;
		oifname "lo" accept
		ct state established,related accept
		meta l4proto icmp accept
		meta l4proto ipv6-icmp accept
		udp sport 68 udp dport 67 accept comment "dhcp"
		udp sport 546 udp dport 547 accept comment "dhcp6"
`

// outputTail refuses with a word, so that programs fail at once and say why.
const outputTail = `		counter name "out-refused" reject with icmpx type admin-prohibited
	}
`

// exits are ways out that the machine itself knows, beside those of its desired state.
type exits struct {
	// upstreams are the name servers that it had before ours.
	upstreams []string
	// servers are host:port of our servers.
	servers []string
}

func (e exits) equal(o exits) bool {
	return slices.Equal(e.upstreams, o.upstreams) && slices.Equal(e.servers, o.servers)
}

// readExits asks the machine's files.
func readExits(h *host.Host) (exits, error) {
	var e exits
	upstreams, err := conffile.Read(h, conffile.UpstreamsPath, maxRecord)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return e, err
	}
	e.upstreams = strings.Fields(string(upstreams))
	for _, path := range []string{bootstrapPath, identityPath} {
		content, err := conffile.Read(h, path, maxRules)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return e, err
		}
		var places struct {
			AgentEndpoints []string `json:"agent_endpoints"`
			Endpoints      []string `json:"endpoints"`
		}
		if json.Unmarshal(content, &places) == nil {
			e.servers = append(append(e.servers, places.AgentEndpoints...), places.Endpoints...)
		}
	}
	slices.Sort(e.servers)
	e.servers = slices.Compact(e.servers)
	return e, nil
}

// output writes the outbound policy: what the machine needs to be managed, then the rules.
func (w *writer) output(e exits) error {
	w.counter("out-refused")
	w.chains.WriteString(outputHead)
	if err := w.needed(e); err != nil {
		return err
	}
	for i, r := range w.state.Pool.Firewall.Egress {
		if err := w.rule(outbound, fmt.Sprintf("egress%d", i), r); err != nil {
			return errs.New(errs.Invalid, "cannot make egress rule %q: %w", r.Name, err)
		}
	}
	w.chains.WriteString(outputTail)
	return nil
}

// needed writes what is allowed whatever the rules say.
func (w *writer) needed(e exits) error {
	m := w.state.Machine
	rules := []*agentv1.FirewallRule{
		{Name: "servers", Protocol: "tcp", Ports: serverPorts, Cidrs: m.GetServerRanges()},
		{Name: "agents", Protocol: "tcp", Ports: agentPorts, Pools: []string{m.GetPool()}},
	}
	for _, place := range e.servers {
		rules = append(rules, to("servers", place, "tcp"))
	}
	for _, place := range m.GetDnsServers() {
		rules = append(rules, to("dns", place, "udp"), to("dns", place, "tcp"))
	}
	times := m.GetNtpServers()
	if len(times) == 0 || len(m.GetNtpPools()) > 0 {
		// A pool's servers change, and so may those of the distribution.
		times = append(slices.Clone(times), "any.invalid")
	}
	for _, server := range times {
		rules = append(rules, to("time", net.JoinHostPort(server, strconv.Itoa(ntpPort)), "udp"))
	}
	if proxy, err := url.Parse(m.GetHttpProxy()); err == nil && proxy.Hostname() != "" {
		port := proxy.Port()
		if port == "" {
			port = map[string]string{"https": "443"}[proxy.Scheme]
		}
		if port == "" {
			port = "80"
		}
		rules = append(rules, to("proxy", net.JoinHostPort(proxy.Hostname(), port), "tcp"))
	}
	for i, r := range rules {
		if r == nil || slices.Contains(r.Pools, "") {
			continue
		}
		if err := w.rule(outbound, fmt.Sprintf("needed%d", i), r); err != nil {
			return err
		}
	}
	w.members("hosts", "upstream", e.upstreams)
	counter := w.counter("out-dns")
	for _, protocol := range []string{"udp", "tcp"} {
		for _, ip := range []string{"ip", "ip6"} {
			set := map[string]string{"ip": "hosts4_upstream", "ip6": "hosts6_upstream"}[ip]
			fmt.Fprintf(&w.chains, "\t\t%s daddr @%s %s dport %d counter name %q accept comment \"dns\"\n", ip, set, protocol, dnsPort, counter)
		}
	}
	if v := m.GetVpn(); v != nil {
		fmt.Fprintf(&w.chains, "\t\tudp sport %d counter name %q accept comment \"vpn\"\n", vpnPort(v), w.counter("out-vpn"))
	}
	return nil
}

// to is a rule for one place: for its address, or, where it is a name, for its port everywhere. It is nil for what is no place.
func to(name, place, protocol string) *agentv1.FirewallRule {
	hostname, port, err := net.SplitHostPort(place)
	if err != nil {
		return nil
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return nil
	}
	r := &agentv1.FirewallRule{
		Name: name, Protocol: protocol, Cidrs: []string{"0.0.0.0/0", "::/0"},
		Ports: []*agentv1.PortRange{{First: uint32(number), Last: uint32(number)}},
	}
	if a, err := netip.ParseAddr(hostname); err == nil {
		r.Cidrs = []string{a.WithZone("").Unmap().String()}
	}
	return r
}
