package openstack

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/limits"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// usage is a limit of the project and how much of it is used. A negative limit is none.
type usage struct {
	name        string
	limit, used int
}

// short says why need more do not fit; empty where they do.
func (u usage) short(need int) string {
	if u.limit < 0 || u.used+need <= u.limit {
		return ""
	}
	return fmt.Sprintf("%s: %d more are needed, %d of %d are in use", u.name, need, u.used, u.limit)
}

// nearly says that need more leave less than a tenth.
func (u usage) nearly(need int) bool { return u.limit > 0 && (u.used+need)*10 > u.limit*9 }

// withinQuota leaves the flavors that the project's limits on instances, cores and memory allow for the machines that the
// pool does not have yet.
func (p *Provider) withinQuota(ctx context.Context, s *session, wish *provisionrv1.Wish, types []flavors.Flavor) ([]flavors.Flavor, []string, error) {
	if wish.GetCount() == 0 {
		return types, nil, nil
	}
	answer, err := limits.Get(ctx, s.compute, limits.GetOpts{}).Extract()
	switch kind := provider.KindOf(fail(err, "")); {
	case kind == provider.NotFound || kind == provider.Unauthorized:
		return types, nil, nil // not for this user to know; Nova checks at the launch
	case err != nil:
		return nil, nil, fail(err, "asking for the project's limits")
	}
	count := int(wish.GetCount())
	fit, _, _ := allowed(answer.Absolute, count, types)
	if len(fit) < len(types) {
		// Count includes the machines that exist already and are in use of the quota.
		all, err := p.servers(ctx, s, "")
		if err != nil {
			return nil, nil, err
		}
		all = slices.DeleteFunc(all, func(server servers.Server) bool { return server.Metadata[keyPool] != wish.GetPool() })
		count = max(count-len(all), 0)
	}
	fit, why, warnings := allowed(answer.Absolute, count, types)
	if len(fit) == 0 {
		return nil, nil, provider.Errorf(provider.QuotaExceeded, "openstack: the project's quota does not allow %d machines: %s", count, why)
	}
	return fit, warnings, nil
}

// allowed returns the flavors of which count more fit into the limits, and why the first of the others does not.
func allowed(l limits.Absolute, count int, types []flavors.Flavor) (fit []flavors.Flavor, why string, warnings []string) {
	for _, f := range types {
		var short, near []string
		for _, u := range []struct {
			usage
			need int
		}{
			{usage{"instances", l.MaxTotalInstances, l.TotalInstancesUsed}, count},
			{usage{"cores", l.MaxTotalCores, l.TotalCoresUsed}, count * f.VCPUs},
			{usage{"MiB of memory", l.MaxTotalRAMSize, l.TotalRAMUsed}, count * f.RAM},
		} {
			if text := u.short(u.need); text != "" {
				short = append(short, text)
			} else if u.nearly(u.need) {
				near = append(near, fmt.Sprintf("the quota of %s is nearly used up: %d of %d with these machines", u.name, u.used+u.need, u.limit))
			}
		}
		switch {
		case len(short) == 0:
			if fit = append(fit, f); len(fit) == 1 {
				warnings = near
			}
		case why == "":
			why = strings.Join(short, "; ") + " (flavor " + f.Name + ")"
		}
	}
	return fit, why, warnings
}
