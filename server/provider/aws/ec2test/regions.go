package ec2test

import "slices"

type describeZonesIn struct {
	DryRun               bool
	Filters              []filter
	ZoneNames            []string
	ZoneIds              []string
	AllAvailabilityZones bool
}

type xmlZone struct {
	State  string `xml:"zoneState"`
	Opt    string `xml:"optInStatus"`
	Region string `xml:"regionName"`
	Name   string `xml:"zoneName"`
	ID     string `xml:"zoneId"`
	Group  string `xml:"groupName"`
	Border string `xml:"networkBorderGroup"`
	Type   string `xml:"zoneType"`
}

type describeZonesOut struct {
	Zones []xmlZone `xml:"availabilityZoneInfo>item"`
}

func (z xmlZone) attr(name string) ([]string, bool) {
	switch name {
	case "group-name":
		return []string{z.Group}, true
	case "opt-in-status":
		return []string{z.Opt}, true
	case "region-name":
		return []string{z.Region}, true
	case "state":
		return []string{z.State}, true
	case "zone-id":
		return []string{z.ID}, true
	case "zone-type":
		return []string{z.Type}, true
	case "zone-name":
		return []string{z.Name}, true
	}
	return nil, false
}

func describeZones(c *call, in *describeZonesIn) (any, *apiError) {
	if refused := c.checkFilters(in.Filters, xmlZone{}.attr); refused != nil {
		return nil, refused
	}
	region := c.server.config.Region
	var out describeZonesOut
	var names, ids []string
	for _, name := range c.server.zones() {
		z := xmlZone{"available", "opt-in-not-required", region, name, zoneID(name), region, region, "availability-zone"}
		names, ids = append(names, z.Name), append(ids, z.ID)
		if len(in.ZoneNames) > 0 && !slices.Contains(in.ZoneNames, z.Name) || len(in.ZoneIds) > 0 && !slices.Contains(in.ZoneIds, z.ID) {
			continue
		}
		if c.match(in.Filters, nil, z.attr) {
			out.Zones = append(out.Zones, z)
		}
	}
	for _, name := range in.ZoneNames {
		if !slices.Contains(names, name) {
			return nil, refuse("InvalidParameterValue", "Invalid availability zone: [%s]", name)
		}
	}
	for _, id := range in.ZoneIds {
		if !slices.Contains(ids, id) {
			return nil, refuse("InvalidParameterValue", "Invalid availability zone-id: [%s]", id)
		}
	}
	return out, nil
}

type describeRegionsIn struct {
	DryRun      bool
	Filters     []filter
	RegionNames []string
	AllRegions  bool
}

type xmlRegion struct {
	Endpoint string `xml:"regionEndpoint"`
	Name     string `xml:"regionName"`
	Opt      string `xml:"optInStatus"`
}

type describeRegionsOut struct {
	Regions []xmlRegion `xml:"regionInfo>item"`
}

func (r xmlRegion) attr(name string) ([]string, bool) {
	switch name {
	case "endpoint":
		return []string{r.Endpoint}, true
	case "opt-in-status":
		return []string{r.Opt}, true
	case "region-name":
		return []string{r.Name}, true
	}
	return nil, false
}

func describeRegions(c *call, in *describeRegionsIn) (any, *apiError) {
	if refused := c.checkFilters(in.Filters, xmlRegion{}.attr); refused != nil {
		return nil, refused
	}
	all := []string{c.server.config.Region}
	for _, name := range []string{"eu-central-1", "eu-west-1", "us-east-1", "us-west-2", "ap-northeast-1"} {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	for _, name := range in.RegionNames {
		if !slices.Contains(all, name) {
			return nil, refuse("InvalidParameterValue", "Invalid region name: %s", name)
		}
	}
	var out describeRegionsOut
	for _, name := range all {
		r := xmlRegion{"ec2." + name + ".amazonaws.com", name, "opt-in-not-required"}
		if (len(in.RegionNames) == 0 || slices.Contains(in.RegionNames, name)) && c.match(in.Filters, nil, r.attr) {
			out.Regions = append(out.Regions, r)
		}
	}
	return out, nil
}
