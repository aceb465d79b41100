package agent

import (
	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/download"
	"github.com/provisionr/provisionr/agent/resource/file"
	"github.com/provisionr/provisionr/agent/resource/filesystem"
	"github.com/provisionr/provisionr/agent/resource/firewall"
	"github.com/provisionr/provisionr/agent/resource/group"
	"github.com/provisionr/provisionr/agent/resource/hosts"
	"github.com/provisionr/provisionr/agent/resource/locale"
	"github.com/provisionr/provisionr/agent/resource/module"
	"github.com/provisionr/provisionr/agent/resource/network"
	"github.com/provisionr/provisionr/agent/resource/ntp"
	"github.com/provisionr/provisionr/agent/resource/ospolicy"
	"github.com/provisionr/provisionr/agent/resource/pkg"
	"github.com/provisionr/provisionr/agent/resource/proxy"
	"github.com/provisionr/provisionr/agent/resource/repo"
	"github.com/provisionr/provisionr/agent/resource/resolver"
	"github.com/provisionr/provisionr/agent/resource/service"
	"github.com/provisionr/provisionr/agent/resource/sshd"
	"github.com/provisionr/provisionr/agent/resource/swap"
	"github.com/provisionr/provisionr/agent/resource/sysctl"
	"github.com/provisionr/provisionr/agent/resource/timezone"
	"github.com/provisionr/provisionr/agent/resource/user"
	"github.com/provisionr/provisionr/agent/resource/vpn"
)

// Resources is everything that a desired state asks of a machine. The order is that of the runner where no resource
// declares another: names and time first, then the kernel and disks, then software and accounts, then what uses them, and last
// what may cut the machine off or be cut off.
func Resources(s *desired.State, h *host.Host) []converge.Resource {
	var all []converge.Resource
	for _, kind := range []func(*desired.State, *host.Host) []converge.Resource{
		hosts.New, resolver.New, proxy.New, ospolicy.New, timezone.New, module.New, sysctl.New, filesystem.New, swap.New,
		repo.New, pkg.New, locale.New, group.New, user.New, download.New, file.New, ntp.New, network.New, sshd.New, firewall.New, vpn.New,
		service.New,
	} {
		all = append(all, kind(s, h)...)
	}
	return all
}
