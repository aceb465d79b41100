package gcetest

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/api/compute/v1"
)

// instance is one that exists or, for lists that lag, existed.
type instance struct {
	*compute.Instance
	zone             string
	created, deleted time.Time
	deleting         bool
	serialPort       string
	request          *compute.Instance
	body             map[string]any
}

func (i *instance) entry() entry {
	if i.body == nil {
		generic, _ := decoded(i.Instance)
		i.body, _ = generic.(map[string]any)
	}
	return entry{"zones/" + i.zone, i.body}
}

// set changes an instance, whose JSON is made anew then.
func (i *instance) set(change func(*compute.Instance)) {
	change(i.Instance)
	i.body = nil
}

func (s *Server) lookUp(c *call) (*instance, *apiError) {
	name := c.path["instance"]
	if i := s.byName[c.path["zone"]+"/"+name]; i != nil {
		return i, nil
	}
	if id, err := strconv.ParseUint(name, 10, 64); err == nil {
		for _, i := range s.byName {
			if i.Id == id && i.zone == c.path["zone"] {
				return i, nil
			}
		}
	}
	return nil, notFound(s.link("zones/" + c.path["zone"] + "/instances/" + name))
}

func (s *Server) getInstance(c *call) (any, *apiError) {
	i, failed := s.lookUp(c)
	if failed != nil {
		return nil, failed
	}
	return i.entry().body, nil
}

// listed returns the instances as lists show them.
func (s *Server) listed(c *call) []entry {
	at := c.now.Add(-s.config.Lag - c.stale)
	var all []entry
	for _, i := range s.instances {
		if i.created.After(at) || !i.deleted.IsZero() && !i.deleted.After(at) {
			continue
		}
		if zone := c.path["zone"]; zone == "" || zone == i.zone {
			all = append(all, i.entry())
		}
	}
	slices.SortStableFunc(all, func(a, b entry) int {
		return cmp.Or(strings.Compare(a.scope, b.scope), strings.Compare(text(a.body["name"]), text(b.body["name"])))
	})
	return all
}

func (s *Server) listInstances(c *call) (any, *apiError) {
	return s.list(c, "instanceList", s.listed(c))
}

func (s *Server) aggregateInstances(c *call) (any, *apiError) {
	return s.aggregate(c, "instanceAggregatedList", "instances", s.listed(c))
}

// bulkInsert is here to be refused: its instances share their metadata.
func (s *Server) bulkInsert(*call) (any, *apiError) {
	return nil, errorf(403, "forbidden", "bulkInsert is not enabled for this project")
}

func (s *Server) insertInstance(c *call) (any, *apiError) {
	if o, failed := s.replay(c); o != nil || failed != nil {
		return operationOf(o), failed
	}
	var wanted compute.Instance
	if failed := c.decode(&wanted); failed != nil {
		return nil, failed
	}
	zone := c.path["zone"]
	if s.byName[zone+"/"+wanted.Name] != nil {
		return nil, errorf(409, "alreadyExists", "The resource 'projects/%s/zones/%s/instances/%s' already exists", s.project, zone, wanted.Name)
	}
	p, failed := s.plan(zone, &wanted)
	if failed != nil {
		return nil, failed
	}
	id := s.next()
	link := s.link("zones/" + zone + "/instances/" + wanted.Name)
	o := s.start(c.now, "insert", "zones/"+zone, link, id, c.query.Get("requestId"))
	var made *instance
	o.begin = func(now time.Time) *opError {
		if s.byName[zone+"/"+wanted.Name] != nil {
			return &opError{"RESOURCE_ALREADY_EXISTS", 409, "The resource '" + link[len(linkBase):] + "' already exists"}
		}
		if metric := s.exceeded(p); metric != "" {
			return &opError{"QUOTA_EXCEEDED", 403, fmt.Sprintf("Quota '%s' exceeded.  Limit: %.1f in region %s.", metric, s.limit(p.region, metric), p.region)}
		}
		made = s.create(now, p, id, link)
		return nil
	}
	o.finish = func(now time.Time) *opError {
		if made.deleting || !made.deleted.IsZero() {
			return &opError{"RESOURCE_OPERATION_ABORTED", 409, "The instance was deleted while it was created"}
		}
		if left, bounded := s.capacityOf(zone, p.machineType.Name, p.spot); bounded {
			if left <= 0 {
				s.remove(made, now)
				return &opError{"ZONE_RESOURCE_POOL_EXHAUSTED", 503, fmt.Sprintf("The zone '%s' does not have enough resources available to fulfill the request.  Try a different zone, or try again later.", zone)}
			}
			s.take(zone, p.machineType.Name, p.spot)
		}
		made.set(func(i *compute.Instance) { i.Status, i.LastStartTimestamp = "RUNNING", now.Format(stamp) })
		made.serialPort += s.config.Boot
		return nil
	}
	s.remember(c, o)
	return o.Operation, nil
}

func operationOf(o *operation) any {
	if o == nil {
		return nil
	}
	return o.Operation
}

// plan is an insert request that was checked.
type plan struct {
	wanted      *compute.Instance
	zone        string
	region      string
	machineType *compute.MachineType
	subnetwork  *compute.Subnetwork
	spot        bool
	sizes       []int64
}

// create makes the instance as it is while it is provisioned.
func (s *Server) create(now time.Time, p *plan, id uint64, link string) *instance {
	made := *p.wanted
	made.Kind, made.Id, made.SelfLink, made.Zone = "compute#instance", id, link, s.link("zones/"+p.zone)
	made.Status, made.CreationTimestamp, made.Fingerprint, made.LabelFingerprint = "PROVISIONING", now.Format(stamp), fingerprint(id), fingerprint(id)
	made.MachineType, made.CpuPlatform = p.machineType.SelfLink, "Unknown CPU Platform"
	scheduling := compute.Scheduling{}
	if made.Scheduling != nil {
		scheduling = *made.Scheduling
	}
	restart := !p.spot
	scheduling.ProvisioningModel = cmp.Or(scheduling.ProvisioningModel, "STANDARD")
	scheduling.AutomaticRestart, scheduling.Preemptible, scheduling.OnHostMaintenance = &restart, p.spot, "MIGRATE"
	if p.spot {
		scheduling.OnHostMaintenance = "TERMINATE"
	}
	made.Scheduling = &scheduling
	made.NetworkInterfaces = []*compute.NetworkInterface{s.networkInterface(p)}
	made.Disks = nil
	for n, d := range p.wanted.Disks {
		made.Disks = append(made.Disks, s.createDisk(now, p, n, d, link))
	}
	if made.Metadata == nil {
		made.Metadata = &compute.Metadata{}
	}
	metadata := *made.Metadata
	metadata.Kind, metadata.Fingerprint = "compute#metadata", fingerprint(id)
	made.Metadata = &metadata
	tags := compute.Tags{Fingerprint: fingerprint(id)}
	if made.Tags != nil {
		tags.Items = made.Tags.Items
	}
	made.Tags = &tags
	i := &instance{Instance: &made, zone: p.zone, created: now, request: p.wanted}
	s.instances = append(s.instances, i)
	s.byName[p.zone+"/"+made.Name] = i
	return i
}

func (s *Server) networkInterface(p *plan) *compute.NetworkInterface {
	nic := *p.wanted.NetworkInterfaces[0]
	nic.Kind, nic.Name, nic.Network, nic.Subnetwork, nic.Fingerprint = "compute#networkInterface", "nic0", p.subnetwork.Network, p.subnetwork.SelfLink, fingerprint(1)
	nic.StackType = cmp.Or(nic.StackType, "IPV4_ONLY")
	defer func() { s.used[nic.NetworkIP] = true }()
	s.addresses++
	if nic.NetworkIP == "" {
		nic.NetworkIP = s.address(p.subnetwork.IpCidrRange)
	}
	if nic.StackType == "IPV4_IPV6" {
		nic.Ipv6AccessType, nic.Ipv6Address = p.subnetwork.Ipv6AccessType, fmt.Sprintf("fd20:0:1::%x", s.addresses)
	}
	nic.AccessConfigs = nil
	for _, a := range p.wanted.NetworkInterfaces[0].AccessConfigs {
		access := *a
		access.Kind, access.NatIP, access.NetworkTier = "compute#accessConfig", fmt.Sprintf("203.0.113.%d", 1+s.addresses%254), cmp.Or(a.NetworkTier, "PREMIUM")
		nic.AccessConfigs = append(nic.AccessConfigs, &access)
	}
	return &nic
}

// address returns the next one of a range that no instance has.
func (s *Server) address(cidr string) string {
	prefix := netip.MustParsePrefix(cidr)
	a := s.lastAddress[cidr]
	if !a.IsValid() {
		a = prefix.Addr().Next()
	}
	for range 1 << (32 - prefix.Bits()) {
		if a = a.Next(); !prefix.Contains(a.Next()) {
			a = prefix.Addr().Next().Next()
		}
		if !s.used[a.String()] {
			break
		}
	}
	s.lastAddress[cidr] = a
	return a.String()
}

func fingerprint(n uint64) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%08x", n))
}

func (s *Server) deleteInstance(c *call) (any, *apiError) {
	if o, failed := s.replay(c); o != nil || failed != nil {
		return operationOf(o), failed
	}
	i, failed := s.lookUp(c)
	if failed != nil {
		return nil, failed
	}
	if i.DeletionProtection {
		return nil, errorf(400, "invalid", "Invalid resource usage: 'Resource cannot be deleted if it's protected against deletion.'")
	}
	if i.deleting {
		return nil, errorf(400, "resourceNotReady", "The resource '%s' is not ready", i.SelfLink[len(linkBase):])
	}
	o := s.start(c.now, "delete", "zones/"+i.zone, i.SelfLink, i.Id, c.query.Get("requestId"))
	o.begin = func(time.Time) *opError {
		i.deleting = true
		i.set(func(i *compute.Instance) { i.Status = "STOPPING" })
		return nil
	}
	o.finish = func(now time.Time) *opError {
		s.remove(i, now)
		return nil
	}
	s.remember(c, o)
	return o.Operation, nil
}

// remove ends an instance and the disks that go with it.
func (s *Server) remove(i *instance, now time.Time) {
	if !i.deleted.IsZero() {
		return
	}
	i.deleted = now
	delete(s.used, i.NetworkInterfaces[0].NetworkIP)
	delete(s.byName, i.zone+"/"+i.Name)
	for _, d := range i.Disks {
		disk := s.diskNamed[strings.TrimPrefix(d.Source, s.link("zones/"))]
		switch {
		case disk == nil:
		case d.AutoDelete:
			s.removeDisk(disk, now)
		default:
			disk.Users, disk.LastDetachTimestamp, disk.body = nil, now.Format(stamp), nil
		}
	}
}

func (s *Server) setLabels(c *call) (any, *apiError) {
	if o, failed := s.replay(c); o != nil || failed != nil {
		return operationOf(o), failed
	}
	i, failed := s.lookUp(c)
	if failed != nil {
		return nil, failed
	}
	var wanted compute.InstancesSetLabelsRequest
	if failed := c.decode(&wanted); failed != nil {
		return nil, failed
	}
	if wanted.LabelFingerprint != i.LabelFingerprint {
		return nil, errorf(412, "conditionNotMet", "Labels fingerprint either invalid or resource labels have changed")
	}
	if failed := checkLabels("labels", wanted.Labels); failed != nil {
		return nil, failed
	}
	o := s.start(c.now, "setLabels", "zones/"+i.zone, i.SelfLink, i.Id, c.query.Get("requestId"))
	o.finish = func(time.Time) *opError {
		i.set(func(x *compute.Instance) { x.Labels, x.LabelFingerprint = wanted.Labels, fingerprint(s.next()) })
		return nil
	}
	s.remember(c, o)
	return o.Operation, nil
}

// maxSerial is how much of the serial port's output is kept (instances.getSerialPortOutput).
const maxSerial = 1 << 20

func (s *Server) serialPort(c *call) (any, *apiError) {
	i, failed := s.lookUp(c)
	if failed != nil {
		return nil, failed
	}
	all := i.serialPort
	oldest := max(0, len(all)-maxSerial)
	start, _ := strconv.Atoi(cmp.Or(c.query.Get("start"), "0"))
	if start < 0 {
		start += len(all)
	}
	start = min(max(start, oldest), len(all))
	return &compute.SerialPortOutput{
		Kind: "compute#serialPortOutput", SelfLink: i.SelfLink + "/serialPort", Contents: all[start:], Start: int64(start), Next: int64(len(all)),
	}, nil
}
