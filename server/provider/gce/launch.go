package gce

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/api/compute/v1"
	"google.golang.org/api/googleapi"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// foundFields of an instance that is looked up.
const foundFields = googleapi.Field("id,name,zone,status,labels,networkInterfaces(networkIP,ipv6Address,ipv6AccessConfigs/externalIpv6),scheduling,resourceStatus")

// Launch implements provider.Provider.
func (p *Provider) Launch(ctx context.Context, request provider.LaunchRequest) (provider.Instance, error) {
	r := request.Request
	if err := p.checkLaunch(request); err != nil {
		return provider.Instance{}, err
	}
	api, err := p.api(ctx)
	if err != nil {
		return provider.Instance{}, err
	}
	verb := "launch machine " + r.GetMachineId()
	if r.GetAttempt() > 1 {
		// An earlier attempt was refused for certain. Somebody who does not know that may have repeated it since. A list may
		// still show what the refused one had begun: only what is there counts.
		for listed, err := range p.instances(ctx, api, p.machineFilter(r.GetMachineId())) {
			if err != nil {
				return provider.Instance{}, err
			}
			if listed.Labels[machineLabel] != r.GetMachineId() {
				continue
			}
			i, err := p.find(ctx, api, base(listed.Zone), listed.Name)
			if err != nil {
				return provider.Instance{}, err
			}
			if i != nil && i.Labels[clusterLabel] == p.cluster && i.Labels[machineLabel] == r.GetMachineId() {
				return instanceOf(i), nil
			}
		}
	}
	zone, name := r.GetChoice().GetZone(), instanceName(r.GetMachineId())
	id := requestID(p.cluster, r.GetMachineId(), strconv.FormatUint(uint64(r.GetAttempt()), 10))
	o, err := api.Instances.Insert(p.project, zone, instanceFor(request)).RequestId(id).Context(ctx).Do()
	if err == nil {
		if o, err = p.done(ctx, api, verb, zone, o); err != nil {
			return provider.Instance{}, err
		}
		err = opFailed(verb, o)
	} else if !conflict(err) {
		return provider.Instance{}, p.uninserted(verb, err)
	}
	found, findErr := p.find(ctx, api, zone, name)
	switch {
	case findErr != nil:
		return provider.Instance{}, findErr
	case found != nil && (found.Labels[clusterLabel] != p.cluster || found.Labels[machineLabel] != r.GetMachineId()):
		return provider.Instance{}, provider.Errorf(provider.Invalid, "gce: cannot %s: an instance %s that is not ours exists in %s", verb, name, zone)
	case found != nil && (err == nil || conflict(err) || alreadyExists(o)):
		return instanceOf(found), nil
	case found != nil:
		return provider.Instance{}, provider.Errorf(provider.Unknown, "%v, but the instance exists", err)
	case err == nil:
		return provider.Instance{}, provider.Errorf(provider.Unknown, "gce: cannot %s: it was launched before and was terminated", verb)
	case conflict(err):
		return provider.Instance{}, provider.Errorf(provider.Unknown, "gce: cannot %s: %s or its disk exists in %s, but no such instance is found", verb, name, zone)
	}
	// The operation has failed and there is no instance.
	return provider.Instance{}, err
}

func alreadyExists(o *compute.Operation) bool {
	return o != nil && o.Error != nil && len(o.Error.Errors) > 0 && o.Error.Errors[0].Code == "RESOURCE_ALREADY_EXISTS"
}

// uninserted is an insert that was refused at once. What it names and is missing makes it invalid.
func (p *Provider) uninserted(verb string, err error) error {
	err = p.failed(verb, err)
	if provider.KindOf(err) == provider.NotFound {
		return &provider.Error{Kind: provider.Invalid, Message: err.Error(), Err: err}
	}
	return err
}

func (p *Provider) checkLaunch(request provider.LaunchRequest) error {
	r, c := request.Request, request.Request.GetChoice()
	switch {
	case r.GetMachineId() == "" || labelValue(r.GetMachineId()) != r.GetMachineId():
		return provider.Errorf(provider.Invalid, "gce: machine id %q cannot be a label's value", r.GetMachineId())
	case r.GetClusterId() != p.cluster:
		return provider.Errorf(provider.Invalid, "gce: machine %s is of cluster %q", r.GetMachineId(), r.GetClusterId())
	case c.GetZone() == "" || c.GetType() == "" || c.GetImage() == "":
		return provider.Errorf(provider.Invalid, "gce: machine %s has no choice of zone, type and image", r.GetMachineId())
	case !p.inRegion(c.GetZone()):
		return provider.Errorf(provider.Invalid, "gce: zone %s is not of region %s", c.GetZone(), p.region)
	case len(request.UserData) > userDataLimit:
		return provider.Errorf(provider.Invalid, "gce: user-data has %d bytes, more than %d", len(request.UserData), userDataLimit)
	case !utf8.Valid(request.UserData):
		return provider.Errorf(provider.Invalid, "gce: user-data is no UTF-8 text, as a metadata value must be")
	}
	return nil
}

// instanceFor is the insert's body: the same for the same request, in every byte.
func instanceFor(request provider.LaunchRequest) *compute.Instance {
	r, c := request.Request, request.Request.GetChoice()
	i := &compute.Instance{
		Name: instanceName(r.GetMachineId()), Description: "Provisionr machine " + r.GetSlot(),
		MachineType: "zones/" + c.GetZone() + "/machineTypes/" + c.GetType(),
		Labels:      labels(r), Tags: &compute.Tags{Items: c.GetGroups()},
		Metadata: &compute.Metadata{Items: []*compute.MetadataItems{
			metadata("serial-port-enable", "TRUE"), metadata("startup-script", startupScript), metadata("user-data", string(request.UserData)),
		}},
		NetworkInterfaces: []*compute.NetworkInterface{networkInterface(r)},
		Disks:             disks(r), Scheduling: scheduling(c),
	}
	if hostname := strings.ToLower(r.GetFqdn()); strings.Contains(hostname, ".") && len(hostname) <= 253 {
		i.Hostname = hostname
	}
	if group := r.GetPlacement().GetGroup(); group != "" {
		i.ResourcePolicies = []string{c.GetExtra()[policyExtra]}
	}
	if identity := r.GetPlacement().GetIdentity(); identity != "" {
		i.ServiceAccounts = []*compute.ServiceAccount{{Email: identity, Scopes: []string{compute.CloudPlatformScope}}}
	}
	return i
}

func metadata(key, value string) *compute.MetadataItems {
	return &compute.MetadataItems{Key: key, Value: &value}
}

func networkInterface(r *provisionrv1.LaunchRequest) *compute.NetworkInterface {
	nic := &compute.NetworkInterface{Network: r.GetChoice().GetNetwork(), Subnetwork: r.GetChoice().GetSubnet(), StackType: "IPV4_ONLY"}
	if r.GetPlacement().GetIpv6() {
		nic.StackType = "IPV4_IPV6"
	}
	if r.GetPlacement().GetPublicAddress() {
		nic.AccessConfigs = []*compute.AccessConfig{{Name: "External NAT", Type: "ONE_TO_ONE_NAT"}}
	}
	return nic
}

// scheduling of a spot instance has the API delete it when it is preempted, disks and all
// (https://cloud.google.com/compute/docs/instances/create-use-spot).
func scheduling(c *provisionrv1.Choice) *compute.Scheduling {
	if !c.GetSpot() {
		return nil
	}
	never := false
	return &compute.Scheduling{ProvisioningModel: "SPOT", InstanceTerminationAction: "DELETE", AutomaticRestart: &never, OnHostMaintenance: "TERMINATE"}
}

// disks are new: the root disk from the image, then the others, in order. All are encrypted at rest by the API itself
// (https://cloud.google.com/compute/docs/disks/disk-encryption), so Disk.encrypted asks for nothing more.
func disks(r *provisionrv1.LaunchRequest) []*compute.AttachedDisk {
	root := disk(r, r.GetHardware().GetRootDisk(), 0)
	root.Boot, root.InitializeParams.SourceImage = true, r.GetChoice().GetImage()
	if size := r.GetHardware().GetDiskGib(); size > 0 {
		root.InitializeParams.DiskSizeGb = int64(size)
	}
	all := []*compute.AttachedDisk{root}
	for n, d := range r.GetHardware().GetDisks() {
		all = append(all, disk(r, d, n+1))
	}
	return all
}

func disk(r *provisionrv1.LaunchRequest, d *provisionrv1.Disk, n int) *compute.AttachedDisk {
	c := r.GetChoice()
	init := &compute.AttachedDiskInitializeParams{
		DiskName: fmt.Sprintf("%s-%d", instanceName(r.GetMachineId()), n), DiskSizeGb: int64(d.GetSizeGib()), Labels: labels(r),
		ProvisionedIops: int64(d.GetIops()), ProvisionedThroughput: int64(d.GetThroughputMibps()),
	}
	if d.GetType() != "" {
		init.DiskType = "zones/" + c.GetZone() + "/diskTypes/" + d.GetType()
	}
	if d.GetKeep() {
		init.Labels[keptLabel] = init.Labels[machineLabel]
		delete(init.Labels, machineLabel)
	}
	name := fmt.Sprintf("disk-%d", n)
	if n == 0 {
		name = "root"
	}
	return &compute.AttachedDisk{AutoDelete: !d.GetKeep(), DeviceName: name, InitializeParams: init}
}

// find returns the instance of that name, or nil where there is none.
func (p *Provider) find(ctx context.Context, api *compute.Service, zone, name string) (*compute.Instance, error) {
	i, err := api.Instances.Get(p.project, zone, name).Fields(foundFields).Context(ctx).Do()
	switch {
	case absent(err, name):
		return nil, nil
	case err != nil:
		return nil, p.unlisted(p.failed("look for instance "+name, err))
	}
	i.Zone = cmp.Or(i.Zone, zone)
	return i, nil
}

func (p *Provider) machineFilter(machineID string) string {
	return "(labels." + clusterLabel + "=" + p.cluster + ") (labels." + machineLabel + "=" + machineID + ")"
}
