package prove

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/desired"
)

// hadoop are the proofs of the profile of that name: what Hadoop's daemons, Kerberos and Java ask of names and clocks. A
// DataNode whose address has no name, or two, is refused; Kerberos takes the canonical name; Java asks PTR records directly
// and knows no /etc/hosts then; a daemon that binds its own name to a loopback address is alone.
func (p *Prover) hadoop(s *desired.State) []proof {
	if !slices.Contains(s.Pool.GetProfiles(), "hadoop") {
		return nil
	}
	return []proof{
		{"hadoop.fqdn", func(context.Context) verdict { return uniqueName(s) }},
		{"hadoop.address", func(ctx context.Context) verdict { return p.privateAddress(ctx, s) }},
		{"hadoop.ptr", func(ctx context.Context) verdict { return p.onePointer(ctx, s) }},
		{"hadoop.getent", func(ctx context.Context) verdict { return p.agreement(ctx, s) }},
		{"hadoop.loopback", func(ctx context.Context) verdict { return p.neverLoopback(ctx, s) }},
		{"hadoop.clock", func(ctx context.Context) verdict { return p.clock(ctx, s) }},
	}
}

// uniqueName proves that the machine's name is a full one, and that no other machine that this one knows has it.
func uniqueName(s *desired.State) verdict {
	fqdn := s.Machine.GetFqdn()
	expected := cmp.Or(fqdn, "a name") + " is dotted and unique"
	if !strings.Contains(strings.Trim(fqdn, "."), ".") {
		return failed(expected, fmt.Sprintf("%q has no domain", fqdn), "give the pool a zone with a domain")
	}
	for pool, members := range s.Members {
		for _, m := range members {
			if strings.EqualFold(m.Fqdn, fqdn) && (pool != s.Machine.GetPool() || m.Index != s.Machine.GetIndex()) {
				return failed(expected, "machine "+m.Name+" has it too", "rename one of the pools")
			}
		}
	}
	return proven(expected, expected)
}

// privateAddress proves that the name's A record is the private address, and that an interface has it.
func (p *Prover) privateAddress(ctx context.Context, s *desired.State) verdict {
	address, err := netip.ParseAddr(s.Machine.GetAddress())
	if err != nil {
		return unprovable("a private address", "none is known yet", "wait until the machine has an address")
	}
	expected := fmt.Sprintf("%s is %s, private, on an interface", s.Machine.GetFqdn(), address)
	// RFC 6598's range is private too: providers give it to machines.
	if shared := netip.MustParsePrefix("100.64.0.0/10"); !address.IsPrivate() && !shared.Contains(address) {
		return failed(expected, address.String()+" is no private address", "put the pool into a private network")
	}
	if _, ok := p.own(s); !ok {
		return failed(expected, "no interface has it", "see whether something else configures the network of the machine")
	}
	if wrong := p.askAll(ctx, s, s.Machine.GetFqdn(), addressType(address), address.String()); len(wrong) > 0 {
		return failed(expected, strings.Join(wrong, "; "), resolveIt)
	}
	return proven(expected, expected)
}

func addressType(a netip.Addr) uint16 {
	if a.Is6() {
		return typeAAAA
	}
	return typeA
}

// onePointer proves that each DNS server by itself has exactly one name for the address.
func (p *Prover) onePointer(ctx context.Context, s *desired.State) verdict {
	arpa, err := reverseName(s.Machine.GetAddress())
	if err != nil {
		return unprovable("exactly one PTR", "no address is known yet", "wait until the machine has an address")
	}
	expected := fmt.Sprintf("exactly one PTR of %s, %s", s.Machine.GetAddress(), s.Machine.GetFqdn())
	servers := append([]string{p.stub}, s.Machine.GetDnsServers()...)
	var wrong []string
	for _, server := range servers[:min(len(servers), maxServers+1)] {
		// A server that is away has no second PTR; that all are is said by dns.reverse.
		src := source{servers: []string{server}, mayBeSilent: server != p.stub}
		if problem := p.askOne(ctx, src, arpa, typePTR, strings.ToLower(s.Machine.GetFqdn())); problem != "" {
			wrong = append(wrong, server+": "+problem)
		}
	}
	return mismatch(expected, wrong, resolveIt)
}

// agreement proves that programs, which look into /etc/hosts first, and DNS say the same of this machine and its peers, both
// ways.
func (p *Prover) agreement(ctx context.Context, s *desired.State) verdict {
	const expected = "programs and DNS say the same"
	type named struct{ fqdn, address string }
	names := []named{{s.Machine.GetFqdn(), s.Machine.GetAddress()}}
	for _, m := range Sample(s) {
		names = append(names, named{m.Fqdn, m.Address})
	}
	wrong := make([]string, len(names))
	inParallel(len(names), func(i int) { wrong[i] = p.disagree(ctx, names[i].fqdn, names[i].address) })
	return mismatch(expected, slices.DeleteFunc(wrong, func(w string) bool { return w == "" }),
		"see /etc/hosts, /etc/nsswitch.conf and /etc/resolv.conf of the machine")
}

// disagree compares what programs get with what the stub says, for a name and its address; "" where they agree or where only
// a third party could tell.
func (p *Prover) disagree(ctx context.Context, fqdn, text string) string {
	address, err := netip.ParseAddr(text)
	arpa, err2 := reverseName(text)
	if err != nil || err2 != nil || fqdn == "" {
		return "" // it has no address yet
	}
	direct, err := p.exchange(ctx, p.stub, fqdn, addressType(address))
	if err != nil {
		return fqdn + ": DNS has no answer"
	}
	seen, err := p.lookup(ctx, fqdn)
	if err != nil {
		return fqdn + ": programs: " + lookupError(err)
	}
	if got := joinAddrs(seen); got != strings.Join(direct, ", ") {
		return fmt.Sprintf("%s: programs get %s, DNS says %s", fqdn, got, cmp.Or(strings.Join(direct, ", "), "nothing"))
	}
	direct, err = p.exchange(ctx, p.stub, arpa, typePTR)
	if err != nil {
		return text + ": DNS has no answer"
	}
	if problem := p.programsReverse(ctx, text, fqdn); problem != "" || !slices.Equal(direct, []string{strings.ToLower(fqdn)}) {
		return fmt.Sprintf("%s: programs get %s, DNS says %s", text, cmp.Or(problem, fqdn), cmp.Or(strings.Join(direct, ", "), "nothing"))
	}
	return ""
}

// programsReverse asks for the names of an address as programs do, and returns what is wrong. /etc/hosts may have the short
// name after the full one, which is the canonical one by coming first (hosts(5)).
func (p *Prover) programsReverse(ctx context.Context, address, fqdn string) string {
	names, err := p.reversed(ctx, address)
	if err != nil {
		return lookupError(err)
	}
	names = slices.Clone(names)
	for i, n := range names {
		names[i] = strings.ToLower(strings.TrimSuffix(n, "."))
	}
	fqdn = strings.ToLower(fqdn)
	short, _, _ := strings.Cut(fqdn, ".")
	other := func(n string) bool { return n != fqdn && n != short }
	if len(names) == 0 || names[0] != fqdn || slices.ContainsFunc(names, other) {
		return cmp.Or(strings.Join(names, ", "), "nothing")
	}
	return ""
}

// neverLoopback proves that the machine's own name leads to the network, in /etc/hosts too.
func (p *Prover) neverLoopback(ctx context.Context, s *desired.State) verdict {
	expected := s.Machine.GetFqdn() + " is never a loopback address"
	const remedy = "take the name out of the loopback lines of /etc/hosts, and see who writes them: cloud-init's manage_etc_hosts, or the image"
	content, err := p.host.ReadFile("/etc/hosts")
	if err != nil {
		return unprovable(expected, "/etc/hosts cannot be read", "see /etc/hosts on the machine")
	}
	names := []string{s.Machine.GetFqdn(), s.Machine.GetName()}
	own := func(name string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	}
	for line := range strings.Lines(string(content)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 || !slices.ContainsFunc(fields[1:], own) {
			continue
		}
		if a, err := netip.ParseAddr(fields[0]); err == nil && a.IsLoopback() {
			return failed(expected, "/etc/hosts has "+strings.Join(fields, " "), remedy)
		}
	}
	for _, name := range names {
		got, err := p.lookup(ctx, name)
		if err != nil && name == s.Machine.GetFqdn() {
			return failed(expected, name+": "+lookupError(err), remedy)
		}
		if slices.ContainsFunc(got, func(a netip.Addr) bool { return a.Unmap().IsLoopback() }) {
			return failed(expected, name+" is "+joinAddrs(got), remedy)
		}
	}
	return proven(expected, expected)
}
