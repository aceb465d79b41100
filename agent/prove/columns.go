package prove

import (
	"context"
	"strings"

	"github.com/provisionr/provisionr/agent/desired"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// repairs is what is to be done about most differences: nothing.
const repairs = "the agent repairs it in its next run"

// always are the questions that every machine answers. Whole outlives the set: sshd may take its time.
func (p *Prover) always(whole context.Context, s *desired.State, run outcomes) []proof {
	m := s.Machine
	return []proof{
		{"os", func(context.Context) verdict { return p.os(m.GetOs()) }},
		{"packages", func(context.Context) verdict { return both(resources(run, "packages", "package"), p.packages(s)) }},
		{"files", func(context.Context) verdict { return both(resources(run, "files", "file"), p.files(s)) }},
		{"users", func(context.Context) verdict { return both(resources(run, "users", "user", "group"), p.users(s)) }},
		{"hostname", func(context.Context) verdict { return p.hostname(m.GetName(), run) }},
		{"dns.forward", func(ctx context.Context) verdict { return p.forward(ctx, s, m.GetFqdn(), m.GetAddress()) }},
		{"dns.reverse", func(ctx context.Context) verdict { return p.reverse(ctx, s, m.GetFqdn(), m.GetAddress()) }},
		{"resolver", func(ctx context.Context) verdict { return p.agreement(ctx, s) }},
		{"clock", func(ctx context.Context) verdict { return p.clock(ctx, s) }},
		{"firewall", func(ctx context.Context) verdict { return p.firewall(ctx, s, run) }},
		{"services", func(context.Context) verdict { return resources(run, "services", "service") }},
		{"ssh", func(context.Context) verdict { return both(p.ssh(whole, m.GetAddress()), p.certified(s)) }},
	}
}

// asked are the questions that only some pools ask. The servers' list of them, which decides what a machine needs to be ready,
// is in server/reconcile.
func (p *Prover) asked(s *desired.State, run outcomes) []proof {
	pool := s.Pool
	var list []proof
	add := func(wanted bool, assumption string, ask func(context.Context) verdict) {
		if wanted {
			list = append(list, proof{assumption, ask})
		}
	}
	// kind asks the resource and the machine itself.
	kind := func(wanted bool, assumption, resource string, look func() verdict) {
		add(wanted, assumption, func(context.Context) verdict { return both(resources(run, assumption, resource), look()) })
	}
	kind(len(pool.GetRepositories()) > 0, "repositories", "repository", func() verdict { return p.repositories(pool.GetRepositories()) })
	kind(len(pool.GetDownloads()) > 0, "downloads", "download", func() verdict { return p.downloads(pool.GetDownloads()) })
	kind(len(pool.GetSysctl()) > 0, "sysctl", "sysctl", func() verdict { return p.sysctl(s) })
	kind(len(pool.GetModules()) > 0, "modules", "module", func() verdict { return p.modules(s) })
	kind(pool.GetTimezone() != "", "timezone", "timezone", func() verdict { return p.timezone(pool.GetTimezone()) })
	kind(pool.GetLocale() != "", "locale", "locale", func() verdict { return p.locale(pool.GetLocale()) })
	kind(pool.GetSwap() != nil, "swap", "swap", func() verdict { return p.swap(s) })
	kind(len(pool.GetFilesystems()) > 0, "filesystems", "filesystem", func() verdict { return p.filesystems(s) })
	kind(networking(pool), "network", "network", func() verdict { return p.network(s) })
	kind(s.Machine.GetVpn() != nil, "vpn", "vpn", func() verdict { return p.vpn(s) })
	kind(hasPolicy(pool.GetOsPolicy()), "ospolicy", "ospolicy", func() verdict { return p.osPolicy(s) })
	add(pool.GetFirewall().GetEnabled() && len(pool.GetFirewall().GetEgress()) > 0, "firewall.egress", func(ctx context.Context) verdict {
		return p.egress(ctx, s, run)
	})
	return list
}

func networking(pool *agentv1.PoolComponent) bool {
	n := pool.GetNetworking()
	return n.GetMtu() > 0 || len(n.GetAddresses())+len(n.GetRoutes()) > 0
}

// hasPolicy leaves out when to boot: that is up to the servers.
func hasPolicy(o *agentv1.OsPolicy) bool {
	return o.GetUnattendedUpgrades() != "" || o.GetSelinux() != "" || o.GetApparmor() != ""
}

// both joins what a resource says of itself with what was seen without it. Either can refute; what was seen proves alone where
// the resource has not been asked yet.
func both(resource, seen verdict) verdict {
	switch {
	case resource.state == agentv1.ProofState_PROOF_STATE_FAILED, seen.expected == "":
		return resource
	case seen.state == agentv1.ProofState_PROOF_STATE_PROVEN && seen.found == "":
		seen.found = resource.found
	}
	return seen
}

// nothing is the verdict of a look that has nothing to look at: the resource's word counts.
var nothing = verdict{}

// mismatch is the verdict of a look at several things: what is wrong, or that nothing is.
func mismatch(expected string, wrong []string, remedy string) verdict {
	if len(wrong) > 0 {
		return failed(expected, strings.Join(wrong, "; "), remedy)
	}
	return proven(expected, expected)
}

// sharedKernel is the verdict of what is the host's: a container shares its kernel.
func sharedKernel(expected string) verdict {
	return unprovable(expected, "it is the kernel's of the host, which this machine shares", "use provider qemu, where a machine has its own kernel")
}

// enforced changes what is to be done where the agent may not do it.
func enforced(s *desired.State, list []proof) []proof {
	if !s.Pool.GetAudit() {
		return list
	}
	for i, q := range list {
		list[i].ask = func(ctx context.Context) verdict {
			v := q.ask(ctx)
			v.remedy = strings.ReplaceAll(v.remedy, repairs, "the pool is in audit mode: repair it by hand, or set mode: enforce")
			return v
		}
	}
	return list
}
