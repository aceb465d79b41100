package aws

import (
	"context"
	"iter"
	"slices"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/provisionr/provisionr/server/provider"
)

// List implements provider.Provider: one paginated list for all pools. It is yielded when it is complete.
func (p *Provider) List(ctx context.Context) iter.Seq2[provider.Instance, error] {
	return func(yield func(provider.Instance, error) bool) {
		all, err := p.list(ctx)
		if err != nil {
			yield(provider.Instance{}, err)
			return
		}
		for _, i := range all {
			if !yield(i, nil) {
				return
			}
		}
	}
}

func (p *Provider) list(ctx context.Context) ([]provider.Instance, error) {
	found, err := p.describe(ctx, "")
	if err != nil {
		return nil, err
	}
	var all []provider.Instance
	seen, spot := map[string]bool{}, map[string]string{}
	for _, i := range found {
		instance := p.instance(i)
		seen[instance.ProviderID] = true
		if !alive(i) {
			p.recent.ended(instance.ProviderID)
		}
		switch {
		case instance.State == provider.Gone:
			continue
		case instance.MachineID == "":
			p.log.DebugContext(ctx, "an instance has the cluster's tag but no machine's", "instance", instance.ProviderID)
			continue
		}
		if request := awssdk.ToString(i.SpotInstanceRequestId); request != "" {
			spot[request] = instance.ProviderID
		}
		all = append(all, instance)
	}
	// What was read before it was launched is added after it was read, and what was terminated meanwhile is not.
	all = append(all, p.recent.unseen(seen, time.Now())...)
	if all, err = p.leftovers(ctx, all); err != nil {
		return nil, err
	}
	p.notices.put(ctx, p, all, spot)
	return all, nil
}

// leftovers adds volumes and interfaces of machines without an instance, as stopped instances of their own.
func (p *Provider) leftovers(ctx context.Context, all []provider.Instance) ([]provider.Instance, error) {
	machines := map[string]bool{}
	for _, i := range all {
		machines[i.MachineID] = true
	}
	left, err := p.unattached(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, l := range left {
		if l.machine != "" && !machines[l.machine] {
			machines[l.machine] = true
			all = append(all, provider.Instance{MachineID: l.machine, ProviderID: l.id, State: provider.Stopped})
		}
	}
	return all, nil
}

// describe returns the cluster's instances of a machine, or all for "", terminated ones included.
func (p *Provider) describe(ctx context.Context, machineID string) ([]types.Instance, error) {
	filters := []types.Filter{p.own()}
	if machineID != "" {
		filters = append(filters, filter("tag:"+tagMachine, escaped(machineID)))
	}
	all, err := p.describeAll(ctx, filters...)
	return slices.DeleteFunc(all, func(i types.Instance) bool { return !p.belongs(i.Tags, machineID) }), err
}

func (p *Provider) describeAll(ctx context.Context, filters ...types.Filter) ([]types.Instance, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	var all []types.Instance
	pages := ec2.NewDescribeInstancesPaginator(api.ec2, &ec2.DescribeInstancesInput{Filters: filters, MaxResults: awssdk.Int32(pageSize)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, p.classify(ctx, "list instances", err)
		}
		for _, r := range page.Reservations {
			all = append(all, r.Instances...)
		}
	}
	return all, nil
}

// describeIDs returns the instances with these ids that EC2 shows; that it shows none is no proof of absence. A filter takes
// from the larger bucket of calls, and ids that are unknown are no error in it.
func (p *Provider) describeIDs(ctx context.Context, ids ...string) ([]types.Instance, error) {
	all, err := p.describeAll(ctx, filter("instance-id", ids...))
	return slices.DeleteFunc(all, func(i types.Instance) bool { return !slices.Contains(ids, awssdk.ToString(i.InstanceId)) }), err
}
