package aws

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"github.com/provisionr/provisionr/server/provider"
)

// Launch implements provider.Provider. At AWS a first attempt is one call: its token makes it harmless to repeat. Later ones
// look for what an earlier attempt may have made, and adopt it; so does each one at a server that may not know tokens.
func (p *Provider) Launch(ctx context.Context, launch provider.LaunchRequest) (provider.Instance, error) {
	request := launch.Request
	id := request.GetMachineId()
	if id != "" && request.GetClusterId() != p.config.ClusterID {
		return provider.Instance{}, provider.Errorf(provider.Invalid, "cannot launch machine %s: it is of cluster %q, not %q", id, request.GetClusterId(), p.config.ClusterID)
	}
	input, err := runInput(request, launch.UserData)
	if err != nil {
		return provider.Instance{}, err
	}
	api, err := p.api(ctx)
	if err != nil {
		return provider.Instance{}, err
	}
	doing := "launch machine " + id
	if first := request.GetAttempt() <= 1; !first || api.foreign {
		existing, err := p.describe(ctx, id)
		if err != nil {
			return provider.Instance{}, err
		}
		if at := slices.IndexFunc(existing, alive); at >= 0 {
			return p.instance(existing[at]), nil
		}
		if first && len(existing) > 0 {
			return provider.Instance{}, provider.Errorf(provider.Unknown, "cannot %s: its instance %s was terminated%s", doing, awssdk.ToString(existing[0].InstanceId), reason(existing[0]))
		}
	}
	began := time.Now()
	out, err := api.ec2.RunInstances(ctx, input)
	if api.foreign && untaggable(err) {
		// Nothing was made yet. The tags of the instance are what all depends on: the others find what is left of it.
		input.TagSpecifications = input.TagSpecifications[:1]
		p.warnOnce(ctx, "the server tags instances only: volumes and interfaces that outlive them are not found")
		out, err = api.ec2.RunInstances(ctx, input)
	}
	if err != nil {
		return provider.Instance{}, p.launchError(ctx, doing, err)
	}
	if len(out.Instances) != 1 || awssdk.ToString(out.Instances[0].InstanceId) == "" {
		return provider.Instance{}, provider.Errorf(provider.Unknown, "cannot %s: the answer has %d instances", doing, len(out.Instances))
	}
	made := out.Instances[0]
	if replayed(made, began) {
		if made, err = p.current(ctx, made); err != nil {
			return provider.Instance{}, err
		}
	}
	if !alive(made) {
		return provider.Instance{}, provider.Errorf(provider.Unknown, "cannot %s: its instance %s was terminated%s", doing, awssdk.ToString(made.InstanceId), reason(made))
	}
	instance := p.instance(made)
	instance.MachineID = id // the answer may lack tags, the request had them
	p.recent.launched(instance, time.Now())
	p.log.InfoContext(ctx, "instance launched", "machine", id, "slot", request.GetSlot(), "instance", instance.ProviderID, "type", made.InstanceType)
	return instance, nil
}

// untaggable reports whether a launch is refused for the kinds of resources that it has tags for.
func untaggable(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) || kindOfCode(api.ErrorCode(), 0) != provider.Invalid {
		return false
	}
	text := strings.ToLower(api.ErrorMessage())
	return strings.Contains(text, "taggable") || strings.Contains(text, "tagspecification") || strings.Contains(text, "tag specification")
}

// launchError maps what RunInstances answers. What the request names and does not exist makes it invalid, but for a group,
// which may have been made a moment ago and not be seen everywhere yet.
func (p *Provider) launchError(ctx context.Context, doing string, err error) error {
	classified := p.classify(ctx, doing, err)
	code, _ := codeOf(err)
	switch {
	case hasCode(err, "IdempotentParameterMismatch"):
		return provider.Errorf(provider.Unknown, "cannot %s: an earlier call for this attempt had other parameters, and may have made an instance: %s", doing, code)
	case hasCode(err, "IdempotentInstanceTerminated"):
		return provider.Errorf(provider.Unknown, "cannot %s: its instance was terminated: %s", doing, code)
	case provider.KindOf(classified) != provider.NotFound:
		return classified
	case strings.HasPrefix(code, "InvalidGroup"):
		return provider.Errorf(provider.Unknown, "%w", classified)
	}
	return provider.Errorf(provider.Invalid, "%w", classified)
}

// replayed reports whether the answer may be that of an earlier call with the same token: a new instance is pending and
// was launched after the call began, give or take what clocks differ by.
func replayed(i types.Instance, began time.Time) bool {
	const skew = 10 * time.Second
	return i.State == nil || i.State.Name != types.InstanceStateNamePending || i.LaunchTime != nil && i.LaunchTime.Before(began.Add(-skew))
}

// current returns what is now of an instance from a replayed answer, which may tell of its beginning.
func (p *Provider) current(ctx context.Context, i types.Instance) (types.Instance, error) {
	now, err := p.describeIDs(ctx, awssdk.ToString(i.InstanceId))
	switch {
	case err != nil:
		return i, err
	case len(now) == 1:
		return now[0], nil
	}
	// It is not shown yet, or not any more: an hour after its end.
	if i.LaunchTime != nil && time.Since(*i.LaunchTime) > consistencyWindow {
		return i, provider.Errorf(provider.Unknown, "instance %s was terminated some time ago", awssdk.ToString(i.InstanceId))
	}
	return i, nil
}

// alive reports whether an instance exists and is not about to end.
func alive(i types.Instance) bool {
	return i.State == nil || i.State.Name != types.InstanceStateNameTerminated && i.State.Name != types.InstanceStateNameShuttingDown
}

// reason says why EC2 has ended an instance, as ": Server.InsufficientInstanceCapacity".
func reason(i types.Instance) string {
	if i.StateReason == nil || awssdk.ToString(i.StateReason.Code) == "" {
		return ""
	}
	return ": " + *i.StateReason.Code
}

// instance turns EC2's view into ours. An instance exists until it is terminated, but is of no use when shutting down.
func (p *Provider) instance(i types.Instance) provider.Instance {
	made := provider.Instance{MachineID: tag(i.Tags, tagMachine), ProviderID: awssdk.ToString(i.InstanceId), State: provider.Stopped}
	if i.State != nil {
		switch i.State.Name {
		case types.InstanceStateNamePending:
			made.State = provider.Starting
		case types.InstanceStateNameRunning:
			made.State = provider.Running
		case types.InstanceStateNameTerminated:
			made.State = provider.Gone
		}
	}
	made.Address, _ = netip.ParseAddr(awssdk.ToString(i.PrivateIpAddress)) // none is the zero Addr
	for _, n := range i.NetworkInterfaces {
		if n.Attachment != nil && awssdk.ToInt32(n.Attachment.DeviceIndex) != 0 {
			continue
		}
		for _, six := range n.Ipv6Addresses {
			if a, err := netip.ParseAddr(awssdk.ToString(six.Ipv6Address)); err == nil {
				made.Address6 = a
				return made
			}
		}
	}
	return made
}
