package ec2test

// ec2Actions are all actions of EC2 that the server has.
func ec2Actions() map[string]handler {
	return map[string]handler{
		"RunInstances":                  typed(runInstances),
		"DescribeInstances":             typed(describeInstances),
		"DescribeInstanceStatus":        typed(describeStatus),
		"TerminateInstances":            typed(terminateInstances),
		"GetConsoleOutput":              typed(consoleOutput),
		"DescribeSpotInstanceRequests":  typed(describeSpot),
		"DescribeImages":                typed(describeImages),
		"DescribeInstanceTypes":         typed(describeTypes),
		"DescribeInstanceTypeOfferings": typed(describeOfferings),
		"DescribeAvailabilityZones":     typed(describeZones),
		"DescribeRegions":               typed(describeRegions),
		"DescribeVpcs":                  typed(describeVpcs),
		"DescribeSubnets":               typed(describeSubnets),
		"DescribeSecurityGroups":        typed(describeGroups),
		"CreateSecurityGroup":           typed(createGroup),
		"DeleteSecurityGroup":           typed(deleteGroup),
		"AuthorizeSecurityGroupIngress": typed(authorize(false)),
		"AuthorizeSecurityGroupEgress":  typed(authorize(true)),
		"RevokeSecurityGroupIngress":    typed(revoke(false)),
		"RevokeSecurityGroupEgress":     typed(revoke(true)),
		"DescribeSecurityGroupRules":    typed(describeRules),
		"CreateTags":                    typed(createTags),
		"DeleteTags":                    typed(deleteTags),
		"DescribeVolumes":               typed(describeVolumes),
		"DeleteVolume":                  typed(deleteVolume),
		"DescribeNetworkInterfaces":     typed(describeInterfaces),
		"DeleteNetworkInterface":        typed(deleteInterface),
		"DescribeAccountAttributes":     typed(describeAccount),
		"DescribeKeyPairs":              typed(describeKeyPairs),
	}
}
