package aws

import (
	"context"
	"math"
	"sync"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"

	"github.com/provisionr/provisionr/server/provider"
)

// pageSize is the most that EC2 returns in one page of instances, volumes, interfaces and groups.
const pageSize = 1000

// The token buckets that EC2 documents for each account and region, each action on its own ("Request throttling for the
// Amazon EC2 API", Amazon EC2 Developer Guide). All our reads are filtered or paginated, which the larger bucket of the
// non-mutating actions asks for. RunInstances has a second bucket of 1000 instances with a refill of 2 a second: at one
// instance a request, the bucket of requests is always the smaller one.
var (
	reading   = published(100, 20)                  // non-mutating actions
	mutating  = published(50, 5)                    // mutating and resource-intensive actions
	running   = published(5, 2)                     // RunInstances
	ending    = published(100, 5)                   // TerminateInstances
	parameter = provider.Bucket{Size: 10, Rate: 10} // below Parameter Store's 40 a second, which the account shares
	assuming  = provider.Bucket{Size: 5, Rate: 5}   // far below the 600 a second of STS; once in an hour suffices
)

// published is a documented bucket, less a twentieth of its size: calls that arrive closer to each other than they were sent
// find these tokens. The rate is what bounds many calls, and stays.
func published(size int, rate float64) provider.Bucket {
	return provider.Bucket{Size: size - max(1, size/20), Rate: rate}
}

// NewLimiter makes the buckets of an account and region: one for each action, and one for all calls together where
// callsPerSecond is more than 0.
func NewLimiter(callsPerSecond float64) *provider.Limiter {
	classes := map[string]provider.Bucket{
		"RunInstances": running, "TerminateInstances": ending, "ssm:GetParameter": parameter, "sts:AssumeRole": assuming,
	}
	for _, action := range []string{
		"DescribeAvailabilityZones", "DescribeImages", "DescribeInstances", "DescribeInstanceStatus", "DescribeInstanceTypeOfferings",
		"DescribeInstanceTypes", "DescribeKeyPairs", "DescribeNetworkInterfaces", "DescribePlacementGroups", "DescribeRegions",
		"DescribeSecurityGroups", "DescribeSpotInstanceRequests", "DescribeSubnets", "DescribeVolumes", "DescribeVpcs", "GetConsoleOutput",
	} {
		classes[action] = reading
	}
	for _, action := range []string{
		"AuthorizeSecurityGroupEgress", "AuthorizeSecurityGroupIngress", "CreateSecurityGroup", "DeleteNetworkInterface",
		"DeleteSecurityGroup", "DeleteVolume", "RevokeSecurityGroupIngress",
	} {
		classes[action] = mutating
	}
	all := provider.Bucket{}
	if callsPerSecond > 0 {
		all = provider.Bucket{Size: int(math.Ceil(callsPerSecond)), Rate: callsPerSecond}
	}
	return provider.NewLimiter(all, classes)
}

// limit adds the step that waits for the Limiter to every operation of a client. It comes before the signature, which is
// valid for minutes only, and before the credentials are asked for.
func (p *Provider) limit(stack *middleware.Stack) error {
	return stack.Finalize.Add(middleware.FinalizeMiddlewareFunc("ProvisionrLimiter", func(
		ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
	) (middleware.FinalizeOutput, middleware.Metadata, error) {
		if err := p.limiter.Wait(ctx, class(ctx)); err != nil {
			return middleware.FinalizeOutput{}, middleware.Metadata{}, err
		}
		ctx, cancel := context.WithTimeout(ctx, p.config.CallTimeout)
		defer cancel()
		out, metadata, err := next.HandleFinalize(ctx, in)
		if after := p.pause.next(err); after > 0 {
			p.limiter.Throttled(after)
		}
		return out, metadata, err
	}), middleware.Before)
}

// class of a call in the Limiter: the action, with its service where that is not EC2.
func class(ctx context.Context) string {
	action := awsmiddleware.GetOperationName(ctx)
	switch awsmiddleware.GetServiceID(ctx) {
	case "EC2":
		return action
	case "SSM":
		return "ssm:" + action
	case "STS":
		return "sts:" + action
	}
	return awsmiddleware.GetServiceID(ctx) + ":" + action
}

// The waits after throttled calls: EC2 names none, but asks for exponential ones.
const (
	firstPause = time.Second
	lastPause  = 30 * time.Second
)

// backoff doubles the wait with each throttled call, until one succeeds. Its zero value is ready.
type backoff struct {
	mu      sync.Mutex
	current time.Duration
}

// next returns how long to make no calls after a call ended with err; 0 if it was not throttled.
func (b *backoff) next(err error) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.current = 0
		return 0
	}
	if !throttled(err) {
		return 0
	}
	b.current = min(max(2*b.current, firstPause), lastPause)
	return b.current
}

// last returns the wait that the newest throttled call has asked for.
func (b *backoff) last() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(b.current, firstPause)
}
