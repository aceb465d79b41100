package ec2test

type terminateIn struct {
	DryRun      bool
	InstanceIds []string
}

type xmlChange struct {
	ID       string   `xml:"instanceId"`
	Current  xmlState `xml:"currentState"`
	Previous xmlState `xml:"previousState"`
}

type terminateOut struct {
	Changes []xmlChange `xml:"instancesSet>item"`
}

// terminateInstances ends all instances or none: it refuses if one does not exist or is protected.
func terminateInstances(c *call, in *terminateIn) (any, *apiError) {
	if len(in.InstanceIds) > 1000 {
		return nil, refuse("InvalidParameterValue", "Up to 1000 instances may be terminated at once")
	}
	if len(in.InstanceIds) == 0 {
		return nil, c.wrong("InvalidParameterCombination", "No instances specified")
	}
	found, refused := c.listed(in.InstanceIds)
	if refused != nil {
		return nil, refused
	}
	for _, i := range found {
		if i.protected {
			return nil, refuse("OperationNotPermitted", "The instance '%s' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.", i.id)
		}
	}
	if refused := c.limitResources(len(found)); refused != nil {
		return nil, refused
	}
	var out terminateOut
	for _, i := range found {
		before := c.server.state(i, c.now)
		c.server.end(i, c.now, "Client.UserInitiatedShutdown", "User initiated shutdown")
		after := c.server.state(i, c.now)
		if before != "terminated" && c.server.config.ShutdownTime == 0 {
			after = "shutting-down"
		}
		out.Changes = append(out.Changes, xmlChange{i.id, xmlState{stateCodes[after], after}, xmlState{stateCodes[before], before}})
	}
	return out, nil
}
