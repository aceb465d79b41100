package aws

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

const (
	// spotWarning is how long before the interruption of a spot instance its status changes ("Spot Instance interruption
	// notices", EC2 User Guide).
	spotWarning = 2 * time.Minute
	// eventsTTL is how long scheduled events are used again: they are announced hours or days ahead.
	eventsTTL = 5 * time.Minute
)

// interrupted are the status codes of spot requests whose instance is about to be taken away or is being so ("Spot request
// status codes", EC2 User Guide).
func interrupted() []string {
	return []string{"marked-for-termination", "marked-for-stop", "marked-for-hibernation"}
}

// disturbing are the codes of scheduled events that end or disturb an instance (InstanceStatusEvent, EC2 API Reference).
func disturbing() []string {
	var all []string
	for _, code := range types.EventCode("").Values() {
		all = append(all, string(code))
	}
	return all
}

// notices keeps what EC2 has last announced. A failed look-up leaves what is known: a notice is not withdrawn by an error,
// nor is a list incomplete for want of notices. Its zero value is ready.
type notices struct {
	mu     sync.Mutex
	events map[string]*provisionrv1.Notice // by instance id
	read   time.Time
	spots  map[string]*provisionrv1.Notice // by spot request id
	silent bool                            // the last look-up failed, and was logged
}

// put sets the notices of the listed instances: two calls for all of them, at most. Spot maps spot requests to instances.
func (n *notices) put(ctx context.Context, p *Provider, all []provider.Instance, spot map[string]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var err error
	if len(all) > 0 && time.Since(n.read) > eventsTTL {
		var events map[string]*provisionrv1.Notice
		events, err = p.scheduledEvents(ctx)
		if p.lacks(ctx, err, "maintenance is not noticed") {
			err = nil // and is not asked for at each list
		}
		if err == nil {
			n.events, n.read = events, time.Now()
		}
	}
	if len(spot) > 0 {
		spots, spotErr := p.interruptions(ctx)
		switch {
		case spotErr == nil:
			n.spots = spots
		case !p.lacks(ctx, spotErr, "interruptions of spot instances are not noticed"):
			err = spotErr
		}
	}
	if err != nil && !n.silent && ctx.Err() == nil {
		p.log.WarnContext(ctx, "notices of interruption or maintenance cannot be read", "error", err)
	}
	n.silent = err != nil
	byInstance := map[string]*provisionrv1.Notice{}
	for request, instance := range spot {
		if notice := n.spots[request]; notice != nil {
			byInstance[instance] = notice
		}
	}
	for i := range all {
		all[i].Notice = n.events[all[i].ProviderID]
		if notice := byInstance[all[i].ProviderID]; notice != nil {
			all[i].Notice = notice // it is sooner
		}
	}
}

// interruptions returns the notices of the cluster's spot requests, by their ids.
func (p *Provider) interruptions(ctx context.Context) (map[string]*provisionrv1.Notice, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	all := map[string]*provisionrv1.Notice{}
	pages := ec2.NewDescribeSpotInstanceRequestsPaginator(api.ec2, &ec2.DescribeSpotInstanceRequestsInput{
		Filters: []types.Filter{p.own(), filter("status-code", interrupted()...)}, MaxResults: awssdk.Int32(pageSize),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, p.classify(ctx, "list spot requests", err)
		}
		for _, r := range page.SpotInstanceRequests {
			if r.Status == nil || !slices.Contains(interrupted(), awssdk.ToString(r.Status.Code)) {
				continue
			}
			notice := &provisionrv1.Notice{Kind: "spot", Message: awssdk.ToString(r.Status.Code)}
			if r.Status.UpdateTime != nil {
				notice.At = timestamppb.New(r.Status.UpdateTime.Add(spotWarning))
			}
			all[awssdk.ToString(r.SpotInstanceRequestId)] = notice
		}
	}
	return all, nil
}

// scheduledEvents returns the notices of all instances of the account with an event to come: the call cannot filter by tag.
func (p *Provider) scheduledEvents(ctx context.Context) (map[string]*provisionrv1.Notice, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	all := map[string]*provisionrv1.Notice{}
	pages := ec2.NewDescribeInstanceStatusPaginator(api.ec2, &ec2.DescribeInstanceStatusInput{
		Filters: []types.Filter{filter("event.code", disturbing()...)}, MaxResults: awssdk.Int32(pageSize),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, p.classify(ctx, "list scheduled events", err)
		}
		for _, s := range page.InstanceStatuses {
			if notice := firstEvent(s.Events); notice != nil {
				all[awssdk.ToString(s.InstanceId)] = notice
			}
		}
	}
	return all, nil
}

// firstEvent returns the notice of the earliest event that is still to come.
func firstEvent(events []types.InstanceStatusEvent) *provisionrv1.Notice {
	var first *types.InstanceStatusEvent
	for i, e := range events {
		description := awssdk.ToString(e.Description)
		if strings.HasPrefix(description, "[Completed]") || strings.HasPrefix(description, "[Canceled]") {
			continue // they are shown for a week after
		}
		if first == nil || e.NotBefore != nil && (first.NotBefore == nil || e.NotBefore.Before(*first.NotBefore)) {
			first = &events[i]
		}
	}
	if first == nil {
		return nil
	}
	notice := &provisionrv1.Notice{Kind: "maintenance", Message: string(first.Code)}
	if d := awssdk.ToString(first.Description); d != "" {
		notice.Message = fmt.Sprintf("%s: %s", first.Code, d)
	}
	if first.NotBefore != nil {
		notice.At = timestamppb.New(*first.NotBefore)
	}
	return notice
}
