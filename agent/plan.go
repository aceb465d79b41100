package agent

import (
	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/file"
	"github.com/provisionr/provisionr/agent/resource/firewall"
	"github.com/provisionr/provisionr/agent/resource/hosts"
	"github.com/provisionr/provisionr/agent/resource/ntp"
	"github.com/provisionr/provisionr/agent/resource/pkg"
	"github.com/provisionr/provisionr/agent/resource/repo"
	"github.com/provisionr/provisionr/agent/resource/resolver"
	"github.com/provisionr/provisionr/agent/resource/service"
	"github.com/provisionr/provisionr/agent/resource/user"
)

// Resources is everything that a desired state asks of a machine. The order is that of the runner where no resource
// declares another: names and time first, then software, then what uses it.
func Resources(s *desired.State, h *host.Host) []converge.Resource {
	var all []converge.Resource
	for _, kind := range []func(*desired.State, *host.Host) []converge.Resource{
		hosts.New, resolver.New, repo.New, pkg.New, user.New, file.New, ntp.New, firewall.New, service.New,
	} {
		all = append(all, kind(s, h)...)
	}
	return all
}
