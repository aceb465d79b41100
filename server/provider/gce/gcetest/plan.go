package gcetest

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/api/compute/v1"
)

// Limits of an instance's metadata (https://cloud.google.com/compute/docs/metadata/setting-custom-metadata, size
// limitations) and of labels (https://cloud.google.com/compute/docs/labeling-resources, requirements) and tags
// (https://cloud.google.com/vpc/docs/add-remove-network-tags, restrictions).
const (
	maxMetadataValue = 256 << 10
	maxMetadata      = 512 << 10
	maxLabels        = 64
	maxTags          = 64
)

var (
	name1035   = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)
	labelKey   = regexp.MustCompile(`^[\p{Ll}\p{Lo}][\p{Ll}\p{Lo}\p{N}_-]{0,62}$`)
	labelValue = regexp.MustCompile(`^[\p{Ll}\p{Lo}\p{N}_-]{0,63}$`)
	metaKey    = regexp.MustCompile(`^[a-zA-Z0-9-_]{1,128}$`)
	customType = regexp.MustCompile(`^(n1|n2|n2d|e2)-custom-([0-9]+)-([0-9]+)$|^custom-([0-9]+)-([0-9]+)$`)
)

// plan checks what an insert asks for.
func (s *Server) plan(zone string, wanted *compute.Instance) (*plan, *apiError) {
	region := zone[:strings.LastIndex(zone, "-")]
	p := &plan{wanted: wanted, zone: zone, region: region}
	if !name1035.MatchString(wanted.Name) {
		return nil, invalid("resource.name", "'%s'. Must be a match of regex '%s'", wanted.Name, name1035)
	}
	if wanted.MachineType == "" {
		return nil, errorf(400, "required", "Required field 'resource.machineType' not specified")
	}
	link := s.link(wanted.MachineType)
	var ok bool
	if p.machineType, ok = s.machineType(link); !ok || !strings.HasPrefix(link, s.link("zones/"+zone+"/")) {
		return nil, invalid("resource.machineType", "'%s'. The referenced resource does not exist.", wanted.MachineType)
	}
	for _, check := range []func() *apiError{
		func() *apiError { return checkLabels("resource.labels", wanted.Labels) },
		func() *apiError { return checkMetadata(wanted.Metadata) },
		func() *apiError { return checkTags(wanted.Tags) },
		func() *apiError { return s.checkScheduling(p) },
		func() *apiError { return s.checkNetwork(p) },
		func() *apiError { return s.checkDisks(p) },
	} {
		if failed := check(); failed != nil {
			return nil, failed
		}
	}
	if len(wanted.ServiceAccounts) > 1 {
		return nil, invalid("resource.serviceAccounts", "At most one service account is supported")
	}
	for _, policy := range wanted.ResourcePolicies {
		if _, ok := find(s.policies, s.link(policy), policyLink); !ok {
			return nil, notFound(s.link(policy))
		}
	}
	if h := wanted.Hostname; h != "" {
		for _, label := range strings.Split(h, ".") {
			if !regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`).MatchString(label) || !strings.Contains(h, ".") || len(h) > 253 {
				return nil, invalid("resource.hostname", "'%s'. Must be a fully qualified domain name", h)
			}
		}
	}
	return p, nil
}

func (s *Server) machineType(link string) (*compute.MachineType, bool) {
	if t, ok := find(s.machineTypes, link, typeLink); ok {
		return t, true
	}
	// Custom types exist without being listed.
	base, name := link[:strings.LastIndex(link, "/")+1], link[strings.LastIndex(link, "/")+1:]
	m := customType.FindStringSubmatch(name)
	if m == nil {
		return nil, false
	}
	var cpus, memory int64
	_, _ = fmt.Sscan(m[2]+m[4], &cpus)
	_, _ = fmt.Sscan(m[3]+m[5], &memory)
	parts := strings.Split(base, "/")
	return &compute.MachineType{
		Kind: "compute#machineType", Id: 1, Name: name, GuestCpus: cpus, MemoryMb: memory, Architecture: "X86_64", SelfLink: link, Zone: parts[len(parts)-3],
	}, cpus > 0 && memory >= 1024 && memory%256 == 0
}

func checkLabels(field string, labels map[string]string) *apiError {
	if len(labels) > maxLabels {
		return invalid(field, "At most %d labels are allowed", maxLabels)
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		switch value := labels[key]; {
		case !labelKey.MatchString(key), len(key) > 128:
			return invalid(field, "label key '%s' violates format constraints", key)
		case !labelValue.MatchString(value), len(value) > 128:
			return invalid(field, "label value '%s' violates format constraints", value)
		}
	}
	return nil
}

func checkMetadata(m *compute.Metadata) *apiError {
	if m == nil {
		return nil
	}
	total, seen := 0, map[string]bool{}
	for _, item := range m.Items {
		value := ""
		if item.Value != nil {
			value = *item.Value
		}
		total += len(item.Key) + len(value)
		switch {
		case !metaKey.MatchString(item.Key):
			return invalid("resource.metadata.items.key", "'%s'. Must be a match of regex '%s'", item.Key, metaKey)
		case seen[item.Key]:
			return invalid("resource.metadata", "'%s'. Duplicate key", item.Key)
		case len(value) > maxMetadataValue:
			return invalid("resource.metadata.items.value", "Value for key '%s' is too large: maximum size %d", item.Key, maxMetadataValue)
		case !utf8.ValidString(value):
			return invalid("resource.metadata.items.value", "Value for key '%s' is no UTF-8", item.Key)
		}
		seen[item.Key] = true
	}
	if total > maxMetadata {
		return invalid("resource.metadata", "Metadata is too large: maximum size %d", maxMetadata)
	}
	return nil
}

func checkTags(tags *compute.Tags) *apiError {
	if tags == nil {
		return nil
	}
	if len(tags.Items) > maxTags {
		return invalid("resource.tags", "At most %d tags are allowed", maxTags)
	}
	for _, tag := range tags.Items {
		if !name1035.MatchString(tag) {
			return invalid("resource.tags.items", "'%s'. Must be a match of regex '%s'", tag, name1035)
		}
	}
	return nil
}

func (s *Server) checkScheduling(p *plan) *apiError {
	scheduling := p.wanted.Scheduling
	if scheduling == nil {
		return nil
	}
	p.spot = scheduling.ProvisioningModel == "SPOT" || scheduling.Preemptible
	switch {
	case p.spot && scheduling.AutomaticRestart != nil && *scheduling.AutomaticRestart:
		return invalid("resource.scheduling", "Scheduling must have preemptible be false when AutomaticRestart is true")
	case p.spot && scheduling.OnHostMaintenance == "MIGRATE":
		return invalid("resource.scheduling", "Scheduling must have preemptible be false when OnHostMaintenance isn't TERMINATE")
	case !p.spot && scheduling.InstanceTerminationAction != "":
		return invalid("resource.scheduling.instanceTerminationAction", "Instance termination action cannot be set for STANDARD provisioning model")
	}
	return nil
}

func (s *Server) checkNetwork(p *plan) *apiError {
	if len(p.wanted.NetworkInterfaces) == 0 {
		return errorf(400, "required", "Required field 'resource.networkInterfaces' not specified: at least one network interface is required")
	}
	nic := p.wanted.NetworkInterfaces[0]
	network := s.link("global/networks/default")
	if nic.Network != "" {
		network = s.link(nic.Network)
		if _, ok := find(s.networks, network, networkLink); !ok {
			return notFound(network)
		}
	}
	if nic.Subnetwork != "" {
		subnet, ok := find(s.subnetworks, s.link(nic.Subnetwork), subnetLink)
		switch {
		case !ok:
			return notFound(s.link(nic.Subnetwork))
		case nic.Network != "" && subnet.Network != network:
			return invalid("resource.networkInterfaces[0].subnetwork", "'%s'. Subnetwork is not of the network", nic.Subnetwork)
		case subnet.Region != s.link("regions/"+p.region):
			return invalid("resource.networkInterfaces[0].subnetwork", "'%s'. Subnetwork is of another region", nic.Subnetwork)
		}
		p.subnetwork = subnet
	} else {
		for _, subnet := range s.subnetworks {
			if subnet.Network == network && subnet.Region == s.link("regions/"+p.region) {
				p.subnetwork = subnet
			}
		}
		if n, _ := find(s.networks, network, networkLink); p.subnetwork == nil || !n.AutoCreateSubnetworks {
			return invalid("resource.networkInterfaces[0]", "Subnetwork should be specified for custom subnetmode network")
		}
	}
	if nic.StackType == "IPV4_IPV6" && p.subnetwork.StackType != "IPV4_IPV6" {
		return invalid("resource.networkInterfaces[0].stackType", "'IPV4_IPV6'. The subnetwork has no IPv6 range")
	}
	if len(nic.AccessConfigs) > 1 {
		return invalid("resource.networkInterfaces[0].accessConfigs", "At most one access config is supported")
	}
	return nil
}

func (s *Server) checkDisks(p *plan) *apiError {
	if len(p.wanted.Disks) == 0 {
		return errorf(400, "required", "Required field 'resource.disks' not specified: at least one disk is required")
	}
	names := map[string]bool{}
	for n, d := range p.wanted.Disks {
		field := fmt.Sprintf("resource.disks[%d]", n)
		init := d.InitializeParams
		switch {
		case d.Boot != (n == 0):
			return invalid(field+".boot", "The first disk, and no other, must be the boot disk")
		case d.Source != "" || init == nil:
			return errorf(501, "notImplemented", "%s: only new disks are supported here", field)
		}
		size, least := max(d.DiskSizeGb, init.DiskSizeGb), int64(10)
		if n == 0 {
			image, ok := find(s.images, s.link(init.SourceImage), imageLink)
			if !ok {
				return notFound(s.link(init.SourceImage))
			}
			if image.Architecture != p.machineType.Architecture {
				return invalid(field, "The image's architecture %s is not that of the machine type, %s", image.Architecture, p.machineType.Architecture)
			}
			least = image.DiskSizeGb
			if size == 0 {
				size = least
			}
		}
		if size < least {
			return invalid(field+".initializeParams.diskSizeGb", "Requested disk size cannot be smaller than %d GB", least)
		}
		if init.DiskType != "" {
			if _, ok := find(s.diskTypes, s.link(init.DiskType), diskTypeLink); !ok || !strings.Contains(s.link(init.DiskType), "/zones/"+p.zone+"/") {
				return invalid(field+".initializeParams.diskType", "'%s'. The referenced resource does not exist.", init.DiskType)
			}
		}
		if failed := checkLabels(field+".initializeParams.labels", init.Labels); failed != nil {
			return failed
		}
		name := diskName(p.wanted.Name, n, d)
		if !name1035.MatchString(name) || names[name] {
			return invalid(field+".initializeParams.diskName", "'%s' is no name or used twice", name)
		}
		names[name] = true
		if s.diskNamed[p.zone+"/disks/"+name] != nil {
			return errorf(409, "alreadyExists", "The resource 'projects/%s/zones/%s/disks/%s' already exists", s.project, p.zone, name)
		}
		p.sizes = append(p.sizes, size)
	}
	return nil
}

func diskName(instance string, n int, d *compute.AttachedDisk) string {
	switch {
	case d.InitializeParams.DiskName != "":
		return d.InitializeParams.DiskName
	case n == 0:
		return instance
	}
	return fmt.Sprintf("%s-%d", instance, n)
}
