package aws

import (
	"context"
	"slices"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/provisionr/provisionr/server/provider"
)

// Terminate implements provider.Provider. What is attached to an instance goes with it; what is left of a machine whose
// instances are gone is deleted here.
func (p *Provider) Terminate(ctx context.Context, machineID, providerID string) error {
	if machineID == "" {
		return provider.Errorf(provider.Invalid, "cannot terminate: no machine is named")
	}
	found, err := p.describe(ctx, machineID)
	if err != nil {
		return err
	}
	known := slices.ContainsFunc(found, func(i types.Instance) bool { return awssdk.ToString(i.InstanceId) == providerID })
	if strings.HasPrefix(providerID, "i-") && !known {
		// Reads lag: by its id it may be found all the same. The tags decide, for the id may be another cluster's.
		more, err := p.describeIDs(ctx, providerID)
		if err != nil {
			return err
		}
		for _, i := range more {
			if p.belongs(i.Tags, machineID) {
				found = append(found, i)
			}
		}
	}
	// What this process has launched is ours, shown or not.
	ids := p.recent.of(machineID, time.Now())
	for _, i := range found {
		id := awssdk.ToString(i.InstanceId)
		if alive(i) && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
		if !alive(i) {
			ids = slices.DeleteFunc(ids, func(known string) bool { return known == id })
			p.recent.ended(id)
		}
	}
	if len(ids) > 0 {
		return p.terminate(ctx, machineID, ids)
	}
	return p.deleteLeftovers(ctx, machineID)
}

// Prune implements provider.Provider.
func (p *Provider) Prune(ctx context.Context, machineID, keep string) error {
	found, err := p.describe(ctx, machineID)
	if err != nil {
		return err
	}
	var ids []string
	kept := false
	for _, i := range found {
		switch id := awssdk.ToString(i.InstanceId); {
		case id == keep:
			kept = alive(i)
		case alive(i):
			ids = append(ids, id)
		}
	}
	if !kept {
		return provider.Errorf(provider.Unknown, "cannot prune machine %s: its instance %s is not there", machineID, keep)
	}
	if len(ids) == 0 {
		return nil
	}
	return p.terminate(ctx, machineID, ids)
}

// terminate terminates instances that are known to be ours.
func (p *Provider) terminate(ctx context.Context, machineID string, ids []string) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	_, err = api.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids})
	err = p.classify(ctx, "terminate machine "+machineID, err)
	if provider.KindOf(err) == provider.NotFound {
		// One that is not seen everywhere yet, or any more: nothing was terminated.
		return provider.Errorf(provider.Unknown, "%w", err)
	}
	if err != nil {
		return err
	}
	for _, id := range ids {
		p.recent.ended(id)
	}
	p.log.InfoContext(ctx, "instances terminated", "machine", machineID, "instances", ids)
	return nil
}

// leftover is a volume or an interface that was made for a machine and is attached to nothing.
type leftover struct {
	machine, id string
}

// unattached returns the leftovers of a machine, or of all machines for "".
func (p *Provider) unattached(ctx context.Context, machineID string) ([]leftover, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	filters := []types.Filter{p.own(), filter("status", "available")}
	if machineID != "" {
		filters = append(filters, filter("tag:"+tagMachine, escaped(machineID)))
	}
	var all []leftover
	volumes := ec2.NewDescribeVolumesPaginator(api.ec2, &ec2.DescribeVolumesInput{Filters: filters, MaxResults: awssdk.Int32(pageSize)})
	for volumes.HasMorePages() {
		page, err := volumes.NextPage(ctx)
		if p.lacks(ctx, err, "volumes that outlive their machine are not found") {
			break
		}
		if err != nil {
			return nil, p.classify(ctx, "list volumes", err)
		}
		for _, v := range page.Volumes {
			if v.State == types.VolumeStateAvailable && tag(v.Tags, tagKeep) == "" && p.belongs(v.Tags, machineID) {
				all = append(all, leftover{tag(v.Tags, tagMachine), awssdk.ToString(v.VolumeId)})
			}
		}
	}
	interfaces := ec2.NewDescribeNetworkInterfacesPaginator(api.ec2, &ec2.DescribeNetworkInterfacesInput{Filters: filters, MaxResults: awssdk.Int32(pageSize)})
	for interfaces.HasMorePages() {
		page, err := interfaces.NextPage(ctx)
		if p.lacks(ctx, err, "network interfaces that outlive their machine are not found") {
			break
		}
		if err != nil {
			return nil, p.classify(ctx, "list network interfaces", err)
		}
		for _, n := range page.NetworkInterfaces {
			if n.Status == types.NetworkInterfaceStatusAvailable && p.belongs(n.TagSet, machineID) {
				all = append(all, leftover{tag(n.TagSet, tagMachine), awssdk.ToString(n.NetworkInterfaceId)})
			}
		}
	}
	return all, nil
}

// deleteLeftovers deletes what is left of a machine without an instance. What is gone already is no error.
func (p *Provider) deleteLeftovers(ctx context.Context, machineID string) error {
	left, err := p.unattached(ctx, machineID)
	if err != nil || len(left) == 0 {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	for _, l := range left {
		if strings.HasPrefix(l.id, "vol-") {
			_, err = api.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: awssdk.String(l.id)})
		} else {
			_, err = api.ec2.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: awssdk.String(l.id)})
		}
		err = p.classify(ctx, "delete "+l.id+" of machine "+machineID, err)
		if err != nil && provider.KindOf(err) != provider.NotFound {
			return err
		}
		p.log.InfoContext(ctx, "leftover deleted", "machine", machineID, "resource", l.id)
	}
	return nil
}
