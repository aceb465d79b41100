package gcetest

import (
	"strings"

	"google.golang.org/api/compute/v1"
)

func regionLink(r *compute.Region) string         { return r.SelfLink }
func zoneLink(z *compute.Zone) string             { return z.SelfLink }
func networkLink(n *compute.Network) string       { return n.SelfLink }
func subnetLink(n *compute.Subnetwork) string     { return n.SelfLink }
func imageLink(i *compute.Image) string           { return i.SelfLink }
func typeLink(t *compute.MachineType) string      { return t.SelfLink }
func diskTypeLink(t *compute.DiskType) string     { return t.SelfLink }
func policyLink(p *compute.ResourcePolicy) string { return p.SelfLink }

// get answers with the resource whose link is the request's path.
func get[T any](s *Server, c *call, all []T, of func(T) string) (any, *apiError) {
	link := linkBase + strings.TrimPrefix(c.url, s.model.basePath)
	if x, ok := find(all, link, of); ok {
		return x, nil
	}
	return nil, notFound(link)
}

// below lists the resources whose link is below the request's path.
func below[T any](s *Server, c *call, kind string, all []T, of func(T) string) (any, *apiError) {
	prefix := linkBase + strings.TrimPrefix(c.url, s.model.basePath) + "/"
	var some []T
	for _, x := range all {
		if strings.HasPrefix(of(x), prefix) {
			some = append(some, x)
		}
	}
	return s.list(c, kind, entries(some, func(T) string { return "" }))
}

func (s *Server) getImage(c *call) (any, *apiError) { return get(s, c, s.images, imageLink) }
func (s *Server) listImages(c *call) (any, *apiError) {
	return below(s, c, "imageList", s.images, imageLink)
}

// imageFromFamily returns the newest image of the family that is not deprecated (images.getFromFamily).
func (s *Server) imageFromFamily(c *call) (any, *apiError) {
	var newest *compute.Image
	for _, i := range s.images {
		if i.Family == c.path["family"] && i.Deprecated == nil && strings.HasPrefix(i.SelfLink, linkBase+"projects/"+c.path["project"]+"/") {
			if newest == nil || i.CreationTimestamp > newest.CreationTimestamp {
				newest = i
			}
		}
	}
	if newest == nil {
		return nil, notFound(linkBase + strings.TrimPrefix(c.url, s.model.basePath))
	}
	return newest, nil
}

func (s *Server) getMachineType(c *call) (any, *apiError) {
	link := linkBase + strings.TrimPrefix(c.url, s.model.basePath)
	if t, ok := s.machineType(link); ok {
		return t, nil
	}
	return nil, notFound(link)
}

func (s *Server) listMachineTypes(c *call) (any, *apiError) {
	return below(s, c, "machineTypeList", s.machineTypes, typeLink)
}

func (s *Server) aggregateMachineTypes(c *call) (any, *apiError) {
	return s.aggregate(c, "machineTypeAggregatedList", "machineTypes", entries(s.machineTypes, func(t *compute.MachineType) string { return "zones/" + t.Zone }))
}

func (s *Server) getDiskType(c *call) (any, *apiError) { return get(s, c, s.diskTypes, diskTypeLink) }
func (s *Server) listDiskTypes(c *call) (any, *apiError) {
	return below(s, c, "diskTypeList", s.diskTypes, diskTypeLink)
}

func (s *Server) getZone(c *call) (any, *apiError) { return get(s, c, s.zones, zoneLink) }
func (s *Server) listZones(c *call) (any, *apiError) {
	return below(s, c, "zoneList", s.zones, zoneLink)
}

func (s *Server) listRegions(c *call) (any, *apiError) {
	return below(s, c, "regionList", s.regions, regionLink)
}

func (s *Server) getNetwork(c *call) (any, *apiError) { return get(s, c, s.networks, networkLink) }
func (s *Server) listNetworks(c *call) (any, *apiError) {
	return below(s, c, "networkList", s.networks, networkLink)
}

func (s *Server) getSubnetwork(c *call) (any, *apiError) {
	return get(s, c, s.subnetworks, subnetLink)
}

func (s *Server) listSubnetworks(c *call) (any, *apiError) {
	return below(s, c, "subnetworkList", s.subnetworks, subnetLink)
}

func (s *Server) getPolicy(c *call) (any, *apiError) { return get(s, c, s.policies, policyLink) }
func (s *Server) listPolicies(c *call) (any, *apiError) {
	return below(s, c, "resourcePolicyList", s.policies, policyLink)
}
