package session

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Defaults of pool specs, as their proto definitions state them.
const (
	defaultMaxOffset = 100 * time.Millisecond
	defaultMode      = 0o644
	defaultOwner     = "root"
	defaultShell     = "/bin/bash"
	sshPort          = 22
)

// unitSuffixes are the kinds of units that a service may be (systemd.unit(5)); without one of them it is a .service.
var unitSuffixes = []string{".service", ".socket", ".timer", ".target", ".path", ".mount"}

// poolComponent maps a pool's spec, with every default filled in. Cidr is the range of its machines' network, or empty.
func poolComponent(p *provisionrv1.Pool, cidr string) (*agentv1.PoolComponent, error) {
	spec := p.GetSpec()
	firewall, err := firewallOf(p.GetMetadata().GetName(), spec.GetFirewall(), cidr)
	if err != nil {
		return nil, err
	}
	files, err := filesOf(spec.GetFiles())
	if err != nil {
		return nil, err
	}
	c := &agentv1.PoolComponent{
		Name: p.GetMetadata().GetName(), Files: files, Firewall: firewall,
		MaxClockOffset: durationpb.New(defaultMaxOffset),
		Variables:      maps.Clone(spec.GetVariables()),
		Aliases:        slices.Clone(spec.GetAliases()),
	}
	if offset := spec.GetNtp().GetMaxOffset(); offset != nil {
		c.MaxClockOffset = durationpb.New(offset.AsDuration())
	}
	for _, r := range spec.GetRepositories() {
		c.Repositories = append(c.Repositories, &agentv1.Repository{
			Name: r.GetName(), Uris: r.GetUris(), Suites: r.GetSuites(), Components: r.GetComponents(), SignedBy: r.GetSignedBy(),
		})
	}
	for _, pkg := range spec.GetPackages() {
		c.Packages = append(c.Packages, &agentv1.Package{Name: pkg.GetName(), Version: pkg.GetVersion(), Absent: pkg.GetAbsent()})
	}
	for _, u := range spec.GetUsers() {
		c.Users = append(c.Users, &agentv1.User{
			Name: u.GetName(), SshKeys: u.GetSshKeys(), Admin: u.GetAdmin(), Groups: u.GetGroups(),
			Shell: cmp.Or(u.GetShell(), defaultShell), Absent: u.GetAbsent(),
		})
	}
	for _, s := range spec.GetServices() {
		c.Services = append(c.Services, serviceOf(s))
	}
	return c, nil
}

func filesOf(files []*provisionrv1.File) ([]*agentv1.File, error) {
	var out []*agentv1.File
	for _, f := range files {
		mode := uint64(defaultMode)
		if f.GetMode() != "" {
			var err error
			if mode, err = strconv.ParseUint(f.GetMode(), 8, 12); err != nil {
				return nil, errs.New(errs.Invalid, "mode %q of file %s is not octal", f.GetMode(), f.GetPath())
			}
		}
		c := &agentv1.File{
			Path: f.GetPath(), Mode: uint32(mode), Owner: cmp.Or(f.GetOwner(), defaultOwner), Group: cmp.Or(f.GetGroup(), defaultOwner),
		}
		switch {
		case f.GetAbsent():
			c.Source = &agentv1.File_Absent{Absent: true}
		case f.Template != nil:
			c.Source = &agentv1.File_Template{Template: f.GetTemplate()}
		default:
			c.Source = &agentv1.File_Content{Content: []byte(f.GetContent())}
		}
		out = append(out, c)
	}
	return out, nil
}

func serviceOf(s *provisionrv1.Service) *agentv1.Service {
	c := &agentv1.Service{Name: s.GetName(), Running: s.GetState() != "stopped", RestartOn: s.GetRestartOn()}
	if !slices.ContainsFunc(unitSuffixes, func(suffix string) bool { return strings.HasSuffix(c.Name, suffix) }) {
		c.Name += ".service"
	}
	c.Enabled = c.Running
	if s.Enabled != nil {
		c.Enabled = s.GetEnabled()
	}
	return c
}

// firewallOf puts the rule for ssh first: it is the one that nobody may lose.
func firewallOf(pool string, f *provisionrv1.Firewall, cidr string) (*agentv1.Firewall, error) {
	out := &agentv1.Firewall{Enabled: !f.GetDisabled()}
	from := f.GetSshFrom()
	if len(from) == 0 {
		from = []string{"any"}
	}
	ssh := &agentv1.FirewallRule{Name: "ssh", Protocol: "tcp", Ports: []*agentv1.PortRange{{First: sshPort, Last: sshPort}}}
	if err := setSources(ssh, from, pool, cidr); err != nil {
		return nil, err
	}
	out.Rules = append(out.Rules, ssh)
	for _, r := range f.GetRules() {
		rule := &agentv1.FirewallRule{Name: r.GetName(), Protocol: cmp.Or(r.GetProtocol(), "tcp")}
		for _, text := range r.GetPorts() {
			ports, err := parsePorts(text)
			if err != nil {
				return nil, err
			}
			rule.Ports = append(rule.Ports, ports)
		}
		if err := setSources(rule, r.GetFrom(), pool, cidr); err != nil {
			return nil, err
		}
		out.Rules = append(out.Rules, rule)
	}
	return out, nil
}

// setSources resolves who may connect. A source that stands for nothing, as the network of a pool that has none, allows
// nobody.
func setSources(rule *agentv1.FirewallRule, from []string, pool, cidr string) error {
	for _, source := range from {
		name, isPool := strings.CutPrefix(source, "pool:")
		switch {
		case source == "any":
			rule.Cidrs = append(rule.Cidrs, "0.0.0.0/0", "::/0")
		case source == "self":
			rule.Pools = append(rule.Pools, pool)
		case isPool:
			rule.Pools = append(rule.Pools, name)
		case source == "network":
			if cidr != "" {
				rule.Cidrs = append(rule.Cidrs, cidr)
			}
		default:
			prefix, err := parseSource(source)
			if err != nil {
				return errs.New(errs.Invalid, "source %q of firewall rule %s is neither a word known nor an address nor a range", source, rule.Name)
			}
			rule.Cidrs = append(rule.Cidrs, prefix.String())
		}
	}
	slices.Sort(rule.Cidrs)
	rule.Cidrs = slices.Compact(rule.Cidrs)
	slices.Sort(rule.Pools)
	rule.Pools = slices.Compact(rule.Pools)
	return nil
}

func parseSource(source string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(source); err == nil {
		addr = addr.Unmap().WithZone("")
		return addr.Prefix(addr.BitLen())
	}
	prefix, err := netip.ParsePrefix(source)
	return prefix.Masked(), err
}

func parsePorts(text string) (*agentv1.PortRange, error) {
	low, high, ok := strings.Cut(text, "-")
	if !ok {
		high = low
	}
	first, errFirst := strconv.ParseUint(low, 10, 16)
	last, errLast := strconv.ParseUint(high, 10, 16)
	if errFirst != nil || errLast != nil || first == 0 || last < first {
		return nil, errs.New(errs.Invalid, "ports %q are not a number or range within 1 to 65535", text)
	}
	return &agentv1.PortRange{First: uint32(first), Last: uint32(last)}, nil
}
