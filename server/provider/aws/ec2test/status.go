package ec2test

import (
	"encoding/base64"
	"slices"
	"time"
)

type describeStatusIn struct {
	DryRun              bool
	Filters             []filter
	InstanceIds         []string
	MaxResults          *int
	NextToken           *string
	IncludeAllInstances bool
}

type xmlStatus struct {
	ID       string     `xml:"instanceId"`
	Zone     string     `xml:"availabilityZone"`
	Events   []xmlEvent `xml:"eventsSet>item"`
	State    xmlState   `xml:"instanceState"`
	System   xmlSummary `xml:"systemStatus"`
	Instance xmlSummary `xml:"instanceStatus"`
}

type xmlEvent struct {
	ID          string `xml:"instanceEventId"`
	Code        string `xml:"code"`
	Description string `xml:"description"`
	NotBefore   string `xml:"notBefore"`
}

type xmlSummary struct {
	Status  string      `xml:"status"`
	Details []xmlDetail `xml:"details>item"`
}

type xmlDetail struct {
	Name   string `xml:"name"`
	Status string `xml:"status"`
}

type describeStatusOut struct {
	Statuses []xmlStatus `xml:"instanceStatusSet>item"`
	Next     string      `xml:"nextToken,omitempty"`
}

func (c *call) statusAttr(i *instance) attribute {
	return func(name string) ([]string, bool) {
		state := c.server.state(i, c.seen)
		each := func(get func(*event) string) ([]string, bool) {
			var values []string
			for _, e := range c.eventsOf(i) {
				values = append(values, get(e))
			}
			return values, true
		}
		switch name {
		case "availability-zone":
			return []string{i.subnet.zone}, true
		case "event.code":
			return each(func(e *event) string { return e.code })
		case "event.instance-event-id":
			return each(func(e *event) string { return e.id })
		case "event.not-before":
			return each(func(e *event) string { return stamp(e.notBefore) })
		case "instance-state-code":
			return []string{itoa(stateCodes[state])}, true
		case "instance-state-name":
			return []string{state}, true
		case "instance-status.status", "system-status.status":
			return []string{c.summary(i, state).Status}, true
		}
		return nil, false
	}
}

func (c *call) eventsOf(i *instance) []*event {
	var events []*event
	for _, e := range i.events {
		if !c.seen.Before(e.announced) {
			events = append(events, e)
		}
	}
	return events
}

// summary of status checks: initializing for as long again as the instance took to run.
func (c *call) summary(i *instance, state string) xmlSummary {
	switch {
	case state != "running":
		return xmlSummary{Status: "not-applicable"}
	case c.seen.Before(i.running.Add(c.server.config.BootTime)):
		return xmlSummary{"initializing", []xmlDetail{{"reachability", "initializing"}}}
	}
	return xmlSummary{"ok", []xmlDetail{{"reachability", "passed"}}}
}

func describeStatus(c *call, in *describeStatusIn) (any, *apiError) {
	p := page{in.MaxResults, in.NextToken}
	if refused := c.exclusive(in.InstanceIds, p, "instancesSet"); refused != nil {
		return nil, refused
	}
	if refused := c.checkFilters(in.Filters, c.statusAttr(noInstance())); refused != nil {
		return nil, refused
	}
	found, refused := c.listed(in.InstanceIds)
	if refused != nil {
		return nil, refused
	}
	found = slices.DeleteFunc(found, func(i *instance) bool {
		running := c.server.state(i, c.seen) == "running"
		return !running && !in.IncludeAllInstances || !c.match(in.Filters, i.tags.at(c.seen), c.statusAttr(i))
	})
	found, next, refused := cutPage(c, p, [2]int{5, 1000}, found, func(i *instance) string { return i.id })
	if refused != nil {
		return nil, refused
	}
	out := describeStatusOut{Next: next}
	for _, i := range found {
		state := c.server.state(i, c.seen)
		x := xmlStatus{
			ID: i.id, Zone: i.subnet.zone, State: xmlState{stateCodes[state], state}, System: c.summary(i, state), Instance: c.summary(i, state),
		}
		for _, e := range c.eventsOf(i) {
			x.Events = append(x.Events, xmlEvent{e.id, e.code, "The instance is running on degraded hardware", stamp(e.notBefore)})
		}
		out.Statuses = append(out.Statuses, x)
	}
	return out, nil
}

type consoleIn struct {
	DryRun     bool
	InstanceId string
	Latest     bool
}

type consoleOut struct {
	ID     string `xml:"instanceId"`
	Time   string `xml:"timestamp"`
	Output string `xml:"output,omitempty"`
}

// consoleOutput is at most 64 KiB, in base64. Before an instance has written anything there is no output.
func consoleOutput(c *call, in *consoleIn) (any, *apiError) {
	i, refused := c.instance(in.InstanceId)
	if refused != nil {
		return nil, refused
	}
	if in.Latest && i.typ.hypervisor != "nitro" {
		return nil, refuse("UnsupportedOperation", "The instance type %s does not support the latest console output", i.typ.name)
	}
	out := consoleOut{ID: i.id, Time: stamp(c.now)}
	if i.console != "" {
		text := i.console[max(0, len(i.console)-64<<10):]
		out.Output, out.Time = base64.StdEncoding.EncodeToString([]byte(text)), stamp(i.consoleAt)
	}
	return out, nil
}

type accountIn struct {
	DryRun         bool
	AttributeNames []string
}

type xmlAttribute struct {
	Name   string     `xml:"attributeName"`
	Values []xmlValue `xml:"attributeValueSet>item"`
}

type xmlValue struct {
	Value string `xml:"attributeValue"`
}

type accountOut struct {
	Attributes []xmlAttribute `xml:"accountAttributeSet>item"`
}

func describeAccount(c *call, in *accountIn) (any, *apiError) {
	standard := "none"
	if v := c.server.defaultVPC(); v != nil {
		standard = v.id
	}
	var out accountOut
	for _, a := range [...][2]string{
		{"supported-platforms", "VPC"}, {"vpc-max-security-groups-per-interface", itoa(maxGroupsPerInterface)}, {"max-elastic-ips", "5"},
		{"max-instances", "20"}, {"vpc-max-elastic-ips", "5"}, {"default-vpc", standard},
	} {
		if len(in.AttributeNames) == 0 || slices.Contains(in.AttributeNames, a[0]) {
			out.Attributes = append(out.Attributes, xmlAttribute{a[0], []xmlValue{{a[1]}}})
		}
	}
	return out, nil
}

type keyPairsIn struct {
	DryRun               bool
	Filters              []filter
	KeyNames, KeyPairIds []string
	IncludePublicKey     bool
}

type xmlKeyPair struct {
	ID          string `xml:"keyPairId"`
	Name        string `xml:"keyName"`
	Fingerprint string `xml:"keyFingerprint"`
	Type        string `xml:"keyType"`
	Created     string `xml:"createTime"`
	Public      string `xml:"publicKey,omitempty"`
}

type keyPairsOut struct {
	Keys []xmlKeyPair `xml:"keySet>item"`
}

func (k xmlKeyPair) attr(name string) ([]string, bool) {
	switch name {
	case "fingerprint":
		return []string{k.Fingerprint}, true
	case "key-name":
		return []string{k.Name}, true
	case "key-pair-id":
		return []string{k.ID}, true
	}
	return nil, false
}

func describeKeyPairs(c *call, in *keyPairsIn) (any, *apiError) {
	if refused := c.checkFilters(in.Filters, xmlKeyPair{}.attr); refused != nil {
		return nil, refused
	}
	for _, name := range in.KeyNames {
		if c.server.keyPairs[name] == "" {
			return nil, refuse("InvalidKeyPair.NotFound", "The key pair '%s' does not exist", name)
		}
	}
	var out keyPairsOut
	for name, id := range c.server.keyPairs {
		k := xmlKeyPair{ID: id, Name: name, Fingerprint: "ZGlnZXN0IG9mIGFuIGVkMjU1MTkga2V5IG5vdCByZWFs", Type: "ed25519", Created: stamp(time.Unix(1700000000, 0))}
		if in.IncludePublicKey {
			k.Public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVjMnRlc3QgaXMgbm90IGEgcmVhbCBrZXkgYXQgYWxs " + name
		}
		if (len(in.KeyNames) == 0 || slices.Contains(in.KeyNames, name)) && (len(in.KeyPairIds) == 0 || slices.Contains(in.KeyPairIds, id)) && c.match(in.Filters, nil, k.attr) {
			out.Keys = append(out.Keys, k)
		}
	}
	return out, nil
}
