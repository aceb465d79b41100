package gcetest

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"google.golang.org/api/compute/v1"
)

type disk struct {
	*compute.Disk
	zone             string
	created, deleted time.Time
	deleting         bool
	body             map[string]any
}

// entry is made once for each state: lists of many disks are asked for often.
func (d *disk) entry() entry {
	if d.body == nil {
		generic, _ := decoded(d.Disk)
		d.body, _ = generic.(map[string]any)
	}
	return entry{"zones/" + d.zone, d.body}
}

func (d *disk) key() string { return d.zone + "/disks/" + d.Name }

// createDisk makes a disk of an instance.
func (s *Server) createDisk(now time.Time, p *plan, n int, wanted *compute.AttachedDisk, user string) *compute.AttachedDisk {
	init := wanted.InitializeParams
	d := &disk{zone: p.zone, created: now, Disk: &compute.Disk{
		Kind: "compute#disk", Id: s.next(), Name: diskName(p.wanted.Name, n, wanted), SizeGb: p.sizes[n], Labels: init.Labels, Status: "READY",
		CreationTimestamp: now.Format(stamp), Zone: s.link("zones/" + p.zone), Users: []string{user}, ProvisionedIops: init.ProvisionedIops,
		ProvisionedThroughput: init.ProvisionedThroughput, LabelFingerprint: fingerprint(1), PhysicalBlockSizeBytes: 4096,
		Type: s.link(cmp.Or(init.DiskType, "zones/"+p.zone+"/diskTypes/pd-standard")),
	}}
	if init.SourceImage != "" {
		d.SourceImage = s.link(init.SourceImage)
	}
	d.SelfLink = s.link("zones/" + p.zone + "/disks/" + d.Name)
	s.disks = append(s.disks, d)
	s.diskNamed[d.key()] = d
	return &compute.AttachedDisk{
		Kind: "compute#attachedDisk", AutoDelete: wanted.AutoDelete, Boot: wanted.Boot, DeviceName: cmp.Or(wanted.DeviceName, d.Name), DiskSizeGb: d.SizeGb,
		Index: int64(n), Interface: "SCSI", Mode: "READ_WRITE", Type: "PERSISTENT", Source: d.SelfLink,
	}
}

func (s *Server) removeDisk(d *disk, now time.Time) {
	d.deleted = now
	delete(s.diskNamed, d.key())
}

func (s *Server) listedDisks(c *call) []entry {
	at := c.now.Add(-s.config.Lag - c.stale)
	var all []*disk
	for _, d := range s.disks {
		if d.created.After(at) || !d.deleted.IsZero() && !d.deleted.After(at) {
			continue
		}
		if zone := c.path["zone"]; zone == "" || zone == d.zone {
			all = append(all, d)
		}
	}
	slices.SortStableFunc(all, func(a, b *disk) int { return strings.Compare(a.key(), b.key()) })
	list := make([]entry, len(all))
	for i, d := range all {
		list[i] = d.entry()
	}
	return list
}

func (s *Server) listDisks(c *call) (any, *apiError) { return s.list(c, "diskList", s.listedDisks(c)) }

func (s *Server) aggregateDisks(c *call) (any, *apiError) {
	return s.aggregate(c, "diskAggregatedList", "disks", s.listedDisks(c))
}

func (s *Server) getDisk(c *call) (any, *apiError) {
	d := s.diskNamed[c.path["zone"]+"/disks/"+c.path["disk"]]
	if d == nil {
		return nil, notFound(s.link("zones/" + c.path["zone"] + "/disks/" + c.path["disk"]))
	}
	return d.Disk, nil
}

func (s *Server) deleteDisk(c *call) (any, *apiError) {
	if o, failed := s.replay(c); o != nil || failed != nil {
		return operationOf(o), failed
	}
	if _, failed := s.getDisk(c); failed != nil {
		return nil, failed
	}
	d := s.diskNamed[c.path["zone"]+"/disks/"+c.path["disk"]]
	switch {
	case len(d.Users) > 0:
		return nil, errorf(400, "resourceInUseByAnotherResource", "The disk resource '%s' is already being used by '%s'", d.SelfLink[len(linkBase):], d.Users[0])
	case d.deleting:
		return nil, errorf(400, "resourceNotReady", "The resource '%s' is not ready", d.SelfLink[len(linkBase):])
	}
	o := s.start(c.now, "delete", "zones/"+d.zone, d.SelfLink, d.Id, c.query.Get("requestId"))
	o.begin = func(time.Time) *opError { d.deleting, d.Status, d.body = true, "DELETING", nil; return nil }
	o.finish = func(now time.Time) *opError { s.removeDisk(d, now); return nil }
	s.remember(c, o)
	return o.Operation, nil
}
