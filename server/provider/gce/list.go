package gce

import (
	"cmp"
	"context"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/api/compute/v1"
	"google.golang.org/api/googleapi"
	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// What lists ask for: metadata, with each machine's user-data, is most of an instance.
const (
	instanceItem = "(id,name,zone,status,labels,creationTimestamp,networkInterfaces(networkIP,ipv6Address,ipv6AccessConfigs/externalIpv6),scheduling,resourceStatus)"
	diskItem     = "(id,name,zone,labels,users,creationTimestamp)"
	// scoped are the fields of a list of all zones beside the items themselves.
	scoped = googleapi.Field("nextPageToken,unreachables,warning,items/*/warning")
	zonal  = googleapi.Field("nextPageToken,warning")
	// diskGrace is how old a disk must be to count as left: one that is made before its instance is none.
	diskGrace = time.Minute
)

// diskPrefix marks the provider id of what is a machine's disk without an instance.
const diskPrefix = "disks/"

// leftovers are the disks without an instance that were found last. The lock is not held while they are looked for: nobody
// waits for the API but who has asked it.
type leftovers struct {
	sync.Mutex
	swept time.Time
	disks []*compute.Disk
	// sweeps counts those at work; forgotten are the machines whose disks were deleted since the first of them began.
	sweeps    int
	forgotten map[string]bool
}

// List implements provider.Provider.
func (p *Provider) List(ctx context.Context) iter.Seq2[provider.Instance, error] {
	return func(yield func(provider.Instance, error) bool) {
		api, err := p.api(ctx)
		if err != nil {
			yield(provider.Instance{}, err)
			return
		}
		// Disks are listed before the instances, so that one whose instance is being made is not taken for left.
		disks, err := p.sweep(ctx, api)
		if err != nil {
			yield(provider.Instance{}, err)
			return
		}
		has := map[string]bool{}
		for i, err := range p.instances(ctx, api, "labels."+clusterLabel+"="+p.cluster) {
			if err != nil {
				yield(provider.Instance{}, err)
				return
			}
			has[i.Labels[machineLabel]] = true
			if !yield(instanceOf(i), nil) {
				return
			}
		}
		for _, d := range disks {
			if machine := d.Labels[machineLabel]; !has[machine] {
				has[machine] = true
				if !yield(provider.Instance{MachineID: machine, ProviderID: base(d.Zone) + "/" + diskPrefix + d.Name, State: provider.Stopped}, nil) {
					return
				}
			}
		}
	}
}

// sweep returns the cluster's disks without an instance, as they were found within the last minutes.
func (p *Provider) sweep(ctx context.Context, api *compute.Service) ([]*compute.Disk, error) {
	l := &p.leftovers
	l.Lock()
	if !l.swept.IsZero() && time.Since(l.swept) < p.config.Sweep {
		defer l.Unlock()
		return l.disks, nil
	}
	l.sweeps++
	l.Unlock()
	disks, err := p.unusedDisks(ctx, api, "(labels."+clusterLabel+"="+p.cluster+") (labels."+machineLabel+":*)")
	l.Lock()
	defer l.Unlock()
	forgotten := l.forgotten
	if l.sweeps--; l.sweeps == 0 {
		l.forgotten = nil
	}
	if err != nil {
		return nil, err
	}
	l.disks = slices.DeleteFunc(disks, func(d *compute.Disk) bool {
		if forgotten[d.Labels[machineLabel]] {
			return true
		}
		made, err := time.Parse(time.RFC3339, d.CreationTimestamp)
		return err == nil && time.Since(made) < diskGrace
	})
	l.swept = time.Now()
	return l.disks, nil
}

// forget takes a machine's disks out of what was found.
func (p *Provider) forget(machineID string) {
	l := &p.leftovers
	l.Lock()
	defer l.Unlock()
	if l.sweeps > 0 {
		if l.forgotten == nil {
			l.forgotten = map[string]bool{}
		}
		l.forgotten[machineID] = true
	}
	l.disks = slices.DeleteFunc(slices.Clone(l.disks), func(d *compute.Disk) bool { return d.Labels[machineLabel] == machineID })
}

// instances yields the cluster's instances of the region that match a filter. The cluster's label is looked at here too;
// what else the filter says is the caller's to look at, for servers that heed none.
func (p *Provider) instances(ctx context.Context, api *compute.Service, filter string) iter.Seq2[*compute.Instance, error] {
	inAll := func(token string) (page[*compute.Instance], error) {
		out, err := api.Instances.AggregatedList(p.project).Filter(filter).MaxResults(listPage).PageToken(token).
			Fields(scoped, "items/*/instances"+instanceItem).Context(ctx).Do()
		if err != nil {
			return page[*compute.Instance]{}, err
		}
		of := page[*compute.Instance]{next: out.NextPageToken, unreachables: out.Unreachables}
		if out.Warning != nil {
			of.warning = out.Warning.Code
		}
		for scope, list := range out.Items {
			warning := ""
			if list.Warning != nil {
				warning = list.Warning.Code
			}
			of.scopes = append(of.scopes, inScope[*compute.Instance]{base(scope), list.Instances, warning})
		}
		return of, nil
	}
	inZone := func(zone, token string) (page[*compute.Instance], error) {
		out, err := api.Instances.List(p.project, zone).Filter(filter).MaxResults(listPage).PageToken(token).Fields(zonal, "items"+instanceItem).Context(ctx).Do()
		if err != nil {
			return page[*compute.Instance]{}, err
		}
		of := page[*compute.Instance]{next: out.NextPageToken, scopes: []inScope[*compute.Instance]{{zone, out.Items, ""}}}
		if out.Warning != nil {
			of.warning = out.Warning.Code
		}
		return of, nil
	}
	return func(yield func(*compute.Instance, error) bool) {
		for s, err := range regional(ctx, p, api, "instances", inAll, inZone) {
			if err != nil {
				yield(nil, err)
				return
			}
			for _, i := range s.items {
				i.Zone = cmp.Or(i.Zone, s.zone)
				if i.Labels[clusterLabel] == p.cluster && i.Labels[machineLabel] != "" && !yield(i, nil) {
					return
				}
			}
		}
	}
}

// unusedDisks returns the cluster's disks of the region that match a filter and that no instance uses.
func (p *Provider) unusedDisks(ctx context.Context, api *compute.Service, filter string) ([]*compute.Disk, error) {
	inAll := func(token string) (page[*compute.Disk], error) {
		out, err := api.Disks.AggregatedList(p.project).Filter(filter).MaxResults(listPage).PageToken(token).
			Fields(scoped, "items/*/disks"+diskItem).Context(ctx).Do()
		if err != nil {
			return page[*compute.Disk]{}, err
		}
		of := page[*compute.Disk]{next: out.NextPageToken, unreachables: out.Unreachables}
		if out.Warning != nil {
			of.warning = out.Warning.Code
		}
		for scope, list := range out.Items {
			warning := ""
			if list.Warning != nil {
				warning = list.Warning.Code
			}
			of.scopes = append(of.scopes, inScope[*compute.Disk]{base(scope), list.Disks, warning})
		}
		return of, nil
	}
	inZone := func(zone, token string) (page[*compute.Disk], error) {
		out, err := api.Disks.List(p.project, zone).Filter(filter).MaxResults(listPage).PageToken(token).Fields(zonal, "items"+diskItem).Context(ctx).Do()
		if err != nil {
			return page[*compute.Disk]{}, err
		}
		of := page[*compute.Disk]{next: out.NextPageToken, scopes: []inScope[*compute.Disk]{{zone, out.Items, ""}}}
		if out.Warning != nil {
			of.warning = out.Warning.Code
		}
		return of, nil
	}
	var unused []*compute.Disk
	for s, err := range regional(ctx, p, api, "disks", inAll, inZone) {
		if err != nil {
			return nil, err
		}
		for _, d := range s.items {
			d.Zone = cmp.Or(d.Zone, s.zone)
			if len(d.Users) == 0 && d.Labels[clusterLabel] == p.cluster && d.Labels[machineLabel] != "" {
				unused = append(unused, d)
			}
		}
	}
	return unused, nil
}

// unlisted: a list that fails says nothing about what is there.
func (p *Provider) unlisted(err error) error {
	if kind := provider.KindOf(err); kind == provider.NotFound || kind == provider.Invalid {
		return &provider.Error{Kind: provider.Unknown, Message: err.Error(), Err: err}
	}
	return err
}

// inRegion tells whether a zone is one of the region, as europe-west3-a is of europe-west3.
func (p *Provider) inRegion(zone string) bool {
	i := strings.LastIndexByte(zone, '-')
	return i > 0 && zone[:i] == p.region
}

func instanceOf(i *compute.Instance) provider.Instance {
	x := provider.Instance{MachineID: i.Labels[machineLabel], ProviderID: base(i.Zone) + "/" + i.Name, State: stateOf(i), Notice: noticeOf(i)}
	if len(i.NetworkInterfaces) > 0 {
		nic := i.NetworkInterfaces[0]
		x.Address, _ = netip.ParseAddr(nic.NetworkIP)
		x.Address6, _ = netip.ParseAddr(nic.Ipv6Address)
		for _, a := range nic.Ipv6AccessConfigs {
			if !x.Address6.IsValid() {
				x.Address6, _ = netip.ParseAddr(a.ExternalIpv6)
			}
		}
		if !x.Address.IsValid() {
			x.Address, x.Address6 = x.Address6, netip.Addr{}
		}
	}
	return x
}

// stateOf maps the life cycle (https://cloud.google.com/compute/docs/instances/instance-lifecycle). A spot instance that
// is stopping still runs for the seconds that its notice gives.
func stateOf(i *compute.Instance) provider.State {
	switch i.Status {
	case "PENDING", "PROVISIONING", "STAGING":
		return provider.Starting
	case "RUNNING", "REPAIRING", "PENDING_STOP":
		return provider.Running
	case "STOPPING":
		if spot(i) {
			return provider.Running
		}
	}
	return provider.Stopped
}

func spot(i *compute.Instance) bool {
	return i.Scheduling != nil && (i.Scheduling.ProvisioningModel == "SPOT" || i.Scheduling.Preemptible)
}

// noticeOf reads announcements of maintenance (Instance.resourceStatus.upcomingMaintenance), and takes a spot instance
// that stops for preempted.
func noticeOf(i *compute.Instance) *provisionrv1.Notice {
	if spot(i) && (i.Status == "STOPPING" || i.Status == "PENDING_STOP" || i.Status == "STOPPED" || i.Status == "TERMINATED") {
		return &provisionrv1.Notice{Kind: "spot", Message: "the spot instance is " + strings.ToLower(i.Status)}
	}
	if i.ResourceStatus == nil || i.ResourceStatus.UpcomingMaintenance == nil {
		return nil
	}
	m := i.ResourceStatus.UpcomingMaintenance
	n := &provisionrv1.Notice{Kind: "maintenance", Message: strings.ToLower(m.Type + " maintenance is " + m.MaintenanceStatus)}
	if at, err := time.Parse(time.RFC3339, m.WindowStartTime); err == nil {
		n.At = timestamppb.New(at)
	}
	return n
}
