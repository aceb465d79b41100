package gcetest

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/api/compute/v1"
)

// unlimited is the limit of a quota that no test has set.
const unlimited = 1e6

// metrics of a region's quota that the server counts (https://cloud.google.com/compute/resource-usage).
var metrics = []string{"INSTANCES", "CPUS", "N2_CPUS", "C3_CPUS", "T2A_CPUS", "PREEMPTIBLE_CPUS", "IN_USE_ADDRESSES", "DISKS_TOTAL_GB", "SSD_TOTAL_GB"}

func (s *Server) limit(region, metric string) float64 {
	if limit, ok := s.quota[region+"/"+metric]; ok {
		return limit
	}
	if metric == "PREEMPTIBLE_CPUS" {
		return 0 // none was granted: spot counts as the rest does
	}
	return unlimited
}

func (s *Server) getRegion(c *call) (any, *apiError) {
	answer, failed := get(s, c, s.regions, regionLink)
	if failed != nil {
		return nil, failed
	}
	region, _ := answer.(*compute.Region)
	copied := *region
	for _, metric := range metrics {
		copied.Quotas = append(copied.Quotas, &compute.Quota{
			Metric: metric, Limit: s.limit(region.Name, metric), Usage: s.usage(region.Name)[metric], ForceSendFields: []string{"Limit", "Usage"},
		})
	}
	return &copied, nil
}

// usage is what the instances of a region use.
func (s *Server) usage(region string) map[string]float64 {
	used := map[string]float64{}
	for _, i := range s.byName {
		if strings.HasPrefix(i.zone, region+"-") {
			t, _ := s.machineType(i.MachineType)
			s.need(used, region, t, i.Scheduling.ProvisioningModel == "SPOT", len(i.NetworkInterfaces[0].AccessConfigs))
		}
	}
	for _, d := range s.diskNamed {
		if strings.HasPrefix(d.zone, region+"-") {
			used[diskMetric(d.Type)] += float64(d.SizeGb)
		}
	}
	return used
}

func diskMetric(diskType string) string {
	if strings.HasSuffix(diskType, "pd-standard") || diskType == "" {
		return "DISKS_TOTAL_GB"
	}
	return "SSD_TOTAL_GB"
}

func (s *Server) need(sum map[string]float64, region string, t *compute.MachineType, spot bool, addresses int) {
	sum["INSTANCES"]++
	sum["IN_USE_ADDRESSES"] += float64(addresses)
	metric := "CPUS"
	family, _, _ := strings.Cut(t.Name, "-")
	if m := strings.ToUpper(family) + "_CPUS"; slices.Contains(metrics, m) {
		metric = m
	}
	if spot && s.limit(region, "PREEMPTIBLE_CPUS") > 0 {
		metric = "PREEMPTIBLE_CPUS"
	}
	sum[metric] += float64(t.GuestCpus)
}

// exceeded names the quota that a plan exceeds.
func (s *Server) exceeded(p *plan) string {
	sum := s.usage(p.region)
	before := maps.Clone(sum)
	s.need(sum, p.region, p.machineType, p.spot, len(p.wanted.NetworkInterfaces[0].AccessConfigs))
	for n, d := range p.wanted.Disks {
		sum[diskMetric(d.InitializeParams.DiskType)] += float64(p.sizes[n])
	}
	for _, metric := range metrics {
		if sum[metric] > before[metric] && sum[metric] > s.limit(p.region, metric) {
			return metric
		}
	}
	return ""
}
