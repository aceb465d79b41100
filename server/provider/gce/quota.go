package gce

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/api/compute/v1"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// affordable returns the choices for which the region's quota has room for all machines that are wanted and not there yet
// (https://cloud.google.com/compute/resource-usage). If there are none it says which limit is in the way.
func (p *Provider) affordable(ctx context.Context, api *compute.Service, region *compute.Region, w *provisionrv1.Wish, image *compute.Image, all []candidate) ([]*provisionrv1.Choice, error) {
	count := int64(max(1, w.GetCount()))
	choices, short := fitting(region, w, image, all, count)
	if len(choices) == 0 && count > 1 {
		// The wish counts all machines of the pool, the usage those that exist.
		for i, err := range p.instances(ctx, api, "(labels."+clusterLabel+"="+p.cluster+") (labels."+poolLabel+"="+labelValue(w.GetPool())+")") {
			if err != nil {
				return nil, err
			}
			if i.Labels[poolLabel] == labelValue(w.GetPool()) {
				count--
			}
		}
		choices, short = fitting(region, w, image, all, max(0, count))
	}
	if len(choices) == 0 {
		return nil, provider.Errorf(provider.QuotaExceeded, "gce: the quota of region %s in project %s does not allow this: %s", p.region, p.project, short)
	}
	return choices[:min(len(choices), maxChoices)], nil
}

// fitting returns the choices that the quota allows for so many machines, and what is short for the first that it does not.
func fitting(region *compute.Region, w *provisionrv1.Wish, image *compute.Image, all []candidate, count int64) (choices []*provisionrv1.Choice, short string) {
	quotas := map[string]*compute.Quota{}
	for _, q := range region.Quotas {
		quotas[q.Metric] = q
	}
	for _, c := range all {
		missing := ""
		one := needs(quotas, w, image, c)
		for _, metric := range slices.Sorted(maps.Keys(one)) {
			q, need := quotas[metric], float64(one[metric]*count)
			if missing == "" && q != nil && need > 0 && q.Limit >= 0 && q.Limit-q.Usage < need {
				missing = fmt.Sprintf("%s is limited to %g, of which %g are used and %g more are needed", metric, q.Limit, q.Usage, need)
			}
		}
		if missing == "" {
			choices = append(choices, c.choice)
		} else if short == "" {
			short = missing
		}
	}
	return choices, short
}

// needs of one machine, by metric of the region's quotas. Families that share no metric with others and that the region
// does not name are not counted.
func needs(quotas map[string]*compute.Quota, w *provisionrv1.Wish, image *compute.Image, c candidate) map[string]int64 {
	sum := map[string]int64{"INSTANCES": 1}
	family, _, _ := strings.Cut(c.machineType.Name, "-")
	metric := strings.ToUpper(family) + "_CPUS"
	if slices.Contains([]string{"e2", "n1", "f1", "g1", "custom"}, family) {
		metric = "CPUS"
	}
	// Where no quota for preemptible processors was granted, spot instances count as the others do
	// (https://cloud.google.com/compute/docs/instances/spot, preemptible quota).
	if q := quotas["PREEMPTIBLE_CPUS"]; c.choice.GetSpot() && q != nil && q.Limit > 0 {
		metric = "PREEMPTIBLE_CPUS"
	}
	sum[metric] += c.machineType.GuestCpus
	if w.GetPlacement().GetPublicAddress() {
		sum["IN_USE_ADDRESSES"]++
	}
	add := func(kind string, size int64) {
		switch kind {
		case "", "pd-standard":
			sum["DISKS_TOTAL_GB"] += size
		case "pd-ssd", "pd-balanced":
			sum["SSD_TOTAL_GB"] += size
		}
	}
	h := w.GetHardware()
	add(h.GetRootDisk().GetType(), max(int64(h.GetDiskGib()), image.DiskSizeGb))
	for _, d := range h.GetDisks() {
		add(d.GetType(), int64(d.GetSizeGib()))
	}
	return sum
}
