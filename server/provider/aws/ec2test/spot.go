package ec2test

import (
	"slices"
	"strconv"
	"time"
)

// spotNotice is how long before the interruption a request is marked (Amazon EC2 User Guide, "Spot Instance interruption notices").
const spotNotice = 2 * time.Minute

// spotPrice is the price per hour of every spot instance here, in US dollars.
const spotPrice = 0.03

// marketIn is an InstanceMarketOptionsRequest.
type marketIn struct {
	MarketType  string
	SpotOptions *struct {
		MaxPrice, SpotInstanceType, ValidUntil, InstanceInterruptionBehavior string
		BlockDurationMinutes                                                 *int
	}
}

type spotPlan struct {
	maxPrice, behavior string
}

// spotRequest is made with a spot instance. Only one-time requests are known here.
type spotRequest struct {
	id       string
	plan     spotPlan
	instance *instance
	created  time.Time
	// marked is from when on the instance is marked for termination.
	marked time.Time
	tags   tagLog
}

func (p *plan) checkMarket(c *call) *apiError {
	m := p.in.InstanceMarketOptions
	if m == nil {
		return nil
	}
	if m.MarketType != "spot" {
		return refuse("InvalidParameterValue", "The market type '%s' is not supported here", m.MarketType)
	}
	p.spot = &spotPlan{behavior: "terminate"}
	if !p.typ.spot {
		return refuse("UnsupportedOperation", "The instance type %s is not supported for Spot Instances", p.typ.name)
	}
	o := m.SpotOptions
	if o == nil {
		return nil
	}
	if o.InstanceInterruptionBehavior != "" {
		p.spot.behavior = o.InstanceInterruptionBehavior
	}
	switch {
	case o.BlockDurationMinutes != nil:
		return refuse("UnsupportedOperation", "Spot Instances with a defined duration are no longer available")
	case o.SpotInstanceType != "persistent" && p.spot.behavior != "terminate":
		return refuse("InvalidParameterCombination", "The interruption behavior '%s' is only supported for persistent requests", p.spot.behavior)
	case o.SpotInstanceType != "persistent" && o.ValidUntil != "":
		return refuse("InvalidParameterCombination", "validUntil is only supported for persistent requests")
	case o.SpotInstanceType == "persistent" && p.spot.behavior == "terminate":
		return refuse("InvalidParameterCombination", "Persistent requests need the interruption behavior stop or hibernate")
	case o.SpotInstanceType == "persistent":
		return c.wrong("UnsupportedOperation", "not implemented here: persistent spot requests")
	}
	if o.MaxPrice != "" {
		price, err := strconv.ParseFloat(o.MaxPrice, 64)
		if err != nil || price <= 0 {
			return refuse("InvalidParameterValue", "Invalid value '%s' for maxPrice", o.MaxPrice)
		}
		if price < spotPrice {
			return refuse("SpotMaxPriceTooLow", "Your Spot request price of %s is lower than the minimum required Spot request fulfillment price of %v.", o.MaxPrice, spotPrice)
		}
		p.spot.maxPrice = o.MaxPrice
	}
	return nil
}

// status is the state and the status of a request (Amazon EC2 User Guide, "Get the status of a Spot Instance request").
func (s *Server) status(r *spotRequest, t time.Time) (state, code, message string, at time.Time) {
	i := r.instance
	ended := !i.stopping.IsZero() && !t.Before(i.stopping)
	switch {
	case ended && i.reasonCode == "Server.SpotInstanceTermination":
		return "closed", "instance-terminated-no-capacity", "Your Spot Instance was terminated because there is no longer enough Spot capacity available.", i.stopping
	case ended && i.reasonCode == "Client.UserInitiatedShutdown":
		return "closed", "instance-terminated-by-user", "Spot Instance terminated due to user-initiated termination.", i.stopping
	case ended:
		return "closed", "instance-terminated-by-service", "Spot Instance terminated by the service.", i.stopping
	case !r.marked.IsZero() && !t.Before(r.marked):
		return "active", "marked-for-termination", "Your Spot Instance is marked for termination because there is no longer enough Spot capacity available.", r.marked
	}
	return "active", "fulfilled", "Your Spot request is fulfilled.", r.created
}

func (c *call) spotRequest(id string) (*spotRequest, *apiError) {
	for _, r := range c.server.spots {
		if r.id == id && !c.seen.Before(r.created) {
			return r, nil
		}
	}
	return nil, refuse("InvalidSpotInstanceRequestID.NotFound", "The spot instance request ID '%s' does not exist", id)
}

type describeSpotIn struct {
	DryRun                 bool
	Filters                []filter
	SpotInstanceRequestIds []string
	MaxResults             *int
	NextToken              *string
}

type xmlSpot struct {
	ID       string        `xml:"spotInstanceRequestId"`
	Price    string        `xml:"spotPrice,omitempty"`
	Type     string        `xml:"type"`
	State    string        `xml:"state"`
	Status   xmlSpotStatus `xml:"status"`
	Spec     xmlSpotSpec   `xml:"launchSpecification"`
	Instance string        `xml:"instanceId"`
	Created  string        `xml:"createTime"`
	Product  string        `xml:"productDescription"`
	Tags     *xmlTags      `xml:"tagSet"`
	Zone     string        `xml:"launchedAvailabilityZone"`
	Behavior string        `xml:"instanceInterruptionBehavior"`
}

type xmlSpotStatus struct {
	Code    string `xml:"code"`
	Updated string `xml:"updateTime"`
	Message string `xml:"message"`
}

type xmlSpotSpec struct {
	Image      string     `xml:"imageId"`
	Key        string     `xml:"keyName,omitempty"`
	Groups     []groupRef `xml:"groupSet>item"`
	Type       string     `xml:"instanceType"`
	Zone       string     `xml:"placement>availabilityZone"`
	Monitoring bool       `xml:"monitoring>enabled"`
	Subnet     string     `xml:"subnetId"`
}

type describeSpotOut struct {
	Requests []xmlSpot `xml:"spotInstanceRequestSet>item"`
	Next     string    `xml:"nextToken,omitempty"`
}

func (c *call) spotAttr(r *spotRequest) attribute {
	return func(name string) ([]string, bool) {
		state, code, message, _ := c.server.status(r, c.seen)
		i := r.instance
		switch name {
		case "instance-id":
			return []string{i.id}, true
		case "launch.image-id":
			return []string{i.image.ID}, true
		case "launch.instance-type":
			return []string{i.typ.name}, true
		case "launched-availability-zone":
			return []string{i.subnet.zone}, true
		case "product-description":
			return []string{"Linux/UNIX"}, true
		case "spot-instance-request-id":
			return []string{r.id}, true
		case "spot-price":
			return []string{r.plan.maxPrice}, true
		case "state":
			return []string{state}, true
		case "status-code":
			return []string{code}, true
		case "status-message":
			return []string{message}, true
		case "type":
			return []string{"one-time"}, true
		}
		return nil, false
	}
}

func describeSpot(c *call, in *describeSpotIn) (any, *apiError) {
	p := page{in.MaxResults, in.NextToken}
	none := &spotRequest{instance: &instance{image: new(image), typ: new(instanceType), subnet: new(subnet)}}
	if refused := c.checkFilters(in.Filters, c.spotAttr(none)); refused != nil {
		return nil, refused
	}
	var found []*spotRequest
	for _, id := range in.SpotInstanceRequestIds {
		r, refused := c.spotRequest(id)
		if refused != nil {
			return nil, refused
		}
		found = append(found, r)
	}
	if len(in.SpotInstanceRequestIds) == 0 {
		for _, r := range c.server.spots {
			if !c.seen.Before(r.created) {
				found = append(found, r)
			}
		}
	}
	found = slices.DeleteFunc(found, func(r *spotRequest) bool { return !c.match(in.Filters, r.tags.at(c.seen), c.spotAttr(r)) })
	found, next, refused := cutPage(c, p, [2]int{5, 1000}, found, func(r *spotRequest) string { return r.id })
	if refused != nil {
		return nil, refused
	}
	out := describeSpotOut{Next: next}
	for _, r := range found {
		i := r.instance
		state, code, message, at := c.server.status(r, c.seen)
		price := r.plan.maxPrice
		if price == "" {
			price = strconv.FormatFloat(spotPrice, 'f', 6, 64)
		}
		out.Requests = append(out.Requests, xmlSpot{
			ID: r.id, Price: price, Type: "one-time", State: state, Status: xmlSpotStatus{code, stamp(at), message},
			Spec:     xmlSpotSpec{i.image.ID, i.keyName, groupRefs(i.groups), i.typ.name, i.subnet.zone, i.monitoring, i.subnet.id},
			Instance: i.id, Created: stamp(r.created), Product: "Linux/UNIX", Tags: tagSet(r.tags.at(c.seen)), Zone: i.subnet.zone, Behavior: r.plan.behavior,
		})
	}
	return out, nil
}
