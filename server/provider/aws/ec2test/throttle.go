package ec2test

import (
	"strings"
	"time"
)

// bucket of tokens.
type bucket struct {
	size, rate float64
}

// Token buckets of "Request throttling for the Amazon EC2 API" (Amazon EC2 Developer Guide), of this server's actions.
func requestBucket(action string, filtered bool) bucket {
	switch action {
	case "RunInstances":
		return bucket{5, 2}
	case "TerminateInstances", "DeleteNetworkInterface", "DeleteVolume":
		return bucket{100, 5}
	case "CreateTags", "DeleteTags":
		return bucket{100, 10}
	case "DescribeInstances", "DescribeInstanceStatus", "DescribeNetworkInterfaces", "DescribeSecurityGroups",
		"DescribeSpotInstanceRequests", "DescribeVolumes":
		if !filtered {
			return bucket{50, 10}
		}
	}
	if strings.HasPrefix(action, "Describe") || strings.HasPrefix(action, "Get") {
		return bucket{100, 20}
	}
	return bucket{50, 5}
}

// resourceBucket limits instances instead of calls.
func resourceBucket(action string) (bucket, bool) {
	switch action {
	case "RunInstances":
		return bucket{1000, 2}, true
	case "TerminateInstances":
		return bucket{1000, 20}, true
	}
	return bucket{}, false
}

// level of a bucket at a time.
type level struct {
	tokens float64
	at     time.Time
}

// take takes n tokens from the bucket of a name, if it has as many.
func (s *Server) take(name string, b bucket, n float64, now time.Time) bool {
	l, ok := s.levels[name]
	if !ok {
		l = level{tokens: b.size, at: now}
	}
	l.tokens = min(b.size, l.tokens+now.Sub(l.at).Seconds()*b.rate)
	l.at = now
	// Float sums of many small refills stay a hair below whole tokens.
	const hair = 1e-6
	enough := l.tokens+hair >= n
	if enough {
		l.tokens -= n
	}
	s.levels[name] = l
	return enough
}

// limit refuses what the token buckets do not allow.
func (c *call) limit() *apiError {
	if c.service != "ec2" || !c.server.config.Throttling {
		return nil
	}
	_, hasFilters := c.params["Filters"]
	_, hasPages := c.params["MaxResults"]
	filtered := hasFilters || hasPages
	name := c.action
	if !filtered {
		name += " unfiltered"
	}
	if !c.server.take(name, requestBucket(c.action, filtered), 1, c.now) {
		return refuse("RequestLimitExceeded", "Request limit exceeded.")
	}
	return nil
}

// limitResources refuses when the instances of a call are more than the resource bucket allows.
func (c *call) limitResources(n int) *apiError {
	b, ok := resourceBucket(c.action)
	if !ok || !c.server.config.Throttling {
		return nil
	}
	if !c.server.take(c.action+" resources", b, float64(n), c.now) {
		return refuse("RequestLimitExceeded", "Request limit exceeded.")
	}
	return nil
}
