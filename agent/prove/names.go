package prove

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/provisionr/provisionr/agent/desired"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// maxServers bounds how many of the cluster's servers, and of those in resolv.conf, are asked.
const maxServers = 3

// source is a place to ask for names.
type source struct {
	name string
	// servers of which one must answer, and none may answer wrongly.
	servers []string
	// mayBeSilent says that silence proves nothing against the machine: the cluster's servers may be away.
	mayBeSilent bool
	// alsoShort says that the short name beside the full one is right: systemd-resolved answers all names of /etc/hosts.
	alsoShort bool
}

func (p *Prover) sources(s *desired.State) []source {
	list := []source{
		{name: "stub", servers: []string{p.stub}},
		{name: "resolv.conf", servers: p.resolvConf(), alsoShort: true},
	}
	if servers := s.Machine.GetDnsServers(); len(servers) > 0 {
		list = append(list, source{name: "servers", servers: servers[:min(len(servers), maxServers)], mayBeSilent: true})
	}
	return list
}

// resolvConf returns the first server that programs ask: glibc asks others only when it is silent (resolv.conf(5)).
func (p *Prover) resolvConf() []string {
	content, err := p.host.ReadFile("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "nameserver" {
			return []string{net.JoinHostPort(fields[1], "53")}
		}
	}
	return nil
}

// forward proves that a name has one address, wherever it is asked.
func (p *Prover) forward(ctx context.Context, s *desired.State, fqdn, address string) verdict {
	own, err := netip.ParseAddr(address)
	if err != nil || fqdn == "" {
		return unprovable("an address", "none is known yet", "wait until the machine has an address")
	}
	expected := fqdn + " is " + own.String()
	problems := p.askAll(ctx, s, fqdn, addressType(own), own.String())
	// What programs see, /etc/hosts included: a loopback address there is the classic fault.
	got, err := p.lookup(ctx, fqdn)
	switch {
	case err != nil:
		problems = append(problems, "programs: "+lookupError(err))
	case slices.ContainsFunc(got, func(a netip.Addr) bool { return a.Unmap() != own }):
		problems = append(problems, "programs: "+joinAddrs(got))
	}
	return namesVerdict(expected, problems)
}

// reverse proves that an address has exactly one name.
func (p *Prover) reverse(ctx context.Context, s *desired.State, fqdn, address string) verdict {
	arpa, err := reverseName(address)
	if err != nil || fqdn == "" {
		return unprovable("an address", "none is known yet", "wait until the machine has an address")
	}
	problems := p.askAll(ctx, s, arpa, typePTR, strings.ToLower(fqdn))
	if problem := p.programsReverse(ctx, address, fqdn); problem != "" {
		problems = append(problems, "programs: "+problem)
	}
	return namesVerdict(address+" is "+fqdn, problems)
}

// resolveIt is what to do about names that are wrong.
const resolveIt = "see dns records of the machine, and the resolver of the machine that found this"

func namesVerdict(expected string, problems []string) verdict {
	if len(problems) > 0 {
		return failed(expected, strings.Join(problems, "; "), resolveIt)
	}
	return proven(expected, expected)
}

// peerNames proves a peer's names, both ways, as this machine sees them.
func (p *Prover) peerNames(ctx context.Context, s *desired.State, peer *agentv1.Member) verdict {
	var forward, reverse verdict
	var wg sync.WaitGroup
	wg.Go(func() { forward = p.forward(ctx, s, peer.Fqdn, peer.Address) })
	wg.Go(func() { reverse = p.reverse(ctx, s, peer.Fqdn, peer.Address) })
	wg.Wait()
	if forward.state != agentv1.ProofState_PROOF_STATE_PROVEN {
		return forward
	}
	reverse.expected = forward.expected + " and back"
	if reverse.state == agentv1.ProofState_PROOF_STATE_PROVEN {
		reverse.found = reverse.expected
	}
	return reverse
}

// askAll asks all sources and returns what is wrong, in the order of the sources.
func (p *Prover) askAll(ctx context.Context, s *desired.State, name string, kind uint16, want string) []string {
	list := p.sources(s)
	problems := make([]string, len(list))
	var wg sync.WaitGroup
	for i, src := range list {
		wg.Go(func() {
			if problem := p.askOne(ctx, src, name, kind, want); problem != "" {
				problems[i] = src.name + ": " + problem
			}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(problems, func(s string) bool { return s == "" })
}

// askOne asks all servers of a source and returns what is wrong with it, or "".
func (p *Prover) askOne(ctx context.Context, src source, name string, kind uint16, want string) string {
	if len(src.servers) == 0 {
		return "no server"
	}
	answers := make([]string, len(src.servers))
	silent := make([]bool, len(src.servers))
	var wg sync.WaitGroup
	for i, server := range src.servers {
		wg.Go(func() {
			data, err := p.exchange(ctx, server, name, kind)
			if src.alsoShort && kind == typePTR {
				data = withoutShort(data, want)
			}
			switch {
			case errors.Is(err, errSilent):
				silent[i] = true
			case err != nil:
				answers[i] = err.Error()
			case len(data) == 0:
				answers[i] = "no record"
			case len(data) > 1 || data[0] != want:
				answers[i] = strings.Join(data, ", ")
			}
		})
	}
	wg.Wait()
	for _, wrong := range answers {
		if wrong != "" {
			return wrong
		}
	}
	if !slices.Contains(silent, false) && !src.mayBeSilent {
		return errSilent.Error()
	}
	return ""
}

// withoutShort leaves the short form of a full name out of a list that has the full one.
func withoutShort(data []string, fqdn string) []string {
	short, _, _ := strings.Cut(fqdn, ".")
	if !slices.Contains(data, fqdn) {
		return data
	}
	return slices.DeleteFunc(slices.Clone(data), func(s string) bool { return s == short })
}

// lookupError is the stable part of a resolver's error: its text has ports and addresses in it.
func lookupError(err error) string {
	var d *net.DNSError
	switch {
	case errors.As(err, &d) && d.IsNotFound:
		return "not found"
	case errors.As(err, &d) && d.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return errSilent.Error()
	}
	return "cannot resolve"
}

func joinAddrs(list []netip.Addr) string {
	text := make([]string, len(list))
	for i, a := range list {
		text[i] = a.Unmap().String()
	}
	slices.Sort(text)
	return strings.Join(slices.Compact(text), ", ")
}
