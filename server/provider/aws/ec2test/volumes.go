package ec2test

import (
	"slices"
	"strings"
	"time"
)

// volume is made with an instance. One that is not deleted with it stays, available.
type volume struct {
	id                         string
	plan                       diskPlan
	zone                       string
	instance                   *instance
	deleteWith                 bool
	created, detached, deleted time.Time
	tags                       tagLog
}

func (v *volume) existsAt(t time.Time) bool {
	return !t.Before(v.created) && (v.deleted.IsZero() || t.Before(v.deleted))
}

func (v *volume) attachedAt(t time.Time) bool { return v.detached.IsZero() || t.Before(v.detached) }

func (v *volume) status(t time.Time) string {
	if v.attachedAt(t) {
		return "in-use"
	}
	return "available"
}

// deviceIn is a BlockDeviceMapping of a request.
type deviceIn struct {
	DeviceName, VirtualName, NoDevice string
	Ebs                               *struct {
		DeleteOnTermination, Encrypted   *bool
		Iops, VolumeSize, Throughput     *int
		SnapshotId, VolumeType, KmsKeyId string
	}
}

// diskPlan is how a volume shall be.
type diskPlan struct {
	device, kind, snapshot string
	size, iops, throughput int
	encrypted, deleteWith  bool
}

// Bounds of volumes by type (EbsBlockDevice: VolumeSize in GiB, Iops).
var (
	sizeBounds = map[string][2]int{
		"gp2": {1, 16384}, "gp3": {1, 16384}, "io1": {4, 16384}, "io2": {4, 65536}, "st1": {125, 16384}, "sc1": {125, 16384}, "standard": {1, 1024},
	}
	iopsBounds = map[string][2]int{"gp3": {3000, 16000}, "io1": {100, 64000}, "io2": {100, 256000}}
)

// checkDisks makes the plan of all volumes: the image's root, changed by a mapping of its device, and further ones.
func (p *plan) checkDisks(c *call) *apiError {
	root := diskPlan{device: p.image.root, kind: "gp2", snapshot: p.image.snapshot, size: p.image.RootSize, deleteWith: true}
	p.disks = []diskPlan{root}
	seen := make(map[string]bool)
	for _, m := range p.in.BlockDeviceMappings {
		switch {
		case m.DeviceName == "":
			return refuse("MissingParameter", "The request must contain the parameter deviceName")
		case seen[m.DeviceName]:
			return refuse("InvalidBlockDeviceMapping", "Duplicate device name %s", m.DeviceName)
		case m.VirtualName != "" || m.NoDevice != "":
			return c.wrong("UnsupportedOperation", "not implemented here: VirtualName, NoDevice")
		case m.Ebs == nil:
			return refuse("InvalidBlockDeviceMapping", "The block device mapping of %s has no volume", m.DeviceName)
		}
		seen[m.DeviceName] = true
		d := diskPlan{device: m.DeviceName, kind: "gp2", deleteWith: true}
		if m.DeviceName == root.device {
			d = root
		} else if m.Ebs.VolumeSize == nil && m.Ebs.SnapshotId == "" {
			return refuse("MissingParameter", "The request must contain the parameter size or snapshotId")
		}
		if refused := d.set(c, m, m.DeviceName == root.device); refused != nil {
			return refused
		}
		if m.DeviceName == root.device {
			p.disks[0] = d
		} else {
			p.disks = append(p.disks, d)
		}
	}
	return nil
}

func (d *diskPlan) set(c *call, m deviceIn, isRoot bool) *apiError {
	e := m.Ebs
	if e.SnapshotId != "" && e.SnapshotId != d.snapshot {
		return refuse("InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", e.SnapshotId)
	}
	if e.VolumeType != "" {
		d.kind = e.VolumeType
	}
	if isRoot && (d.kind == "st1" || d.kind == "sc1") {
		return refuse("BootForVolumeTypeUnsupported", "The volume type %s cannot be used as a boot volume", d.kind)
	}
	if e.VolumeSize != nil {
		if *e.VolumeSize < d.size {
			return refuse("InvalidBlockDeviceMapping", "Volume of size %dGB is smaller than snapshot '%s', expect size >= %dGB", *e.VolumeSize, d.snapshot, d.size)
		}
		d.size = *e.VolumeSize
	}
	if b := sizeBounds[d.kind]; d.size < b[0] || d.size > b[1] {
		return refuse("InvalidParameterValue", "Volume of %dGiB is not between %d and %d GiB for volume type %s.", d.size, b[0], b[1], d.kind)
	}
	if e.DeleteOnTermination != nil {
		d.deleteWith = *e.DeleteOnTermination
	}
	if e.Encrypted != nil {
		d.encrypted = *e.Encrypted
	}
	if e.KmsKeyId != "" {
		return c.wrong("UnsupportedOperation", "not implemented here: KmsKeyId")
	}
	return d.performance(e.Iops, e.Throughput)
}

func (d *diskPlan) performance(iops, throughput *int) *apiError {
	bounds, provisioned := iopsBounds[d.kind]
	switch {
	case iops != nil && !provisioned:
		return refuse("InvalidParameterCombination", "The parameter iops is not supported for %s volumes.", d.kind)
	case iops == nil && (d.kind == "io1" || d.kind == "io2"):
		return refuse("MissingParameter", "The parameter iops must be specified for %s volumes.", d.kind)
	case iops != nil && (*iops < bounds[0] || *iops > bounds[1]):
		return refuse("InvalidParameterValue", "Volume iops of %d is not between %d and %d for volume type %s.", *iops, bounds[0], bounds[1], d.kind)
	case throughput != nil && d.kind != "gp3":
		return refuse("InvalidParameterCombination", "The parameter throughput is not supported for %s volumes.", d.kind)
	case throughput != nil && (*throughput < 125 || *throughput > 1000):
		return refuse("InvalidParameterValue", "Volume throughput of %d is not between 125 and 1000.", *throughput)
	}
	switch d.kind {
	case "gp3":
		d.iops, d.throughput = 3000, 125
	case "gp2":
		d.iops = min(max(100, 3*d.size), 16000)
	}
	if iops != nil {
		d.iops = *iops
		// IOPS per GiB: 500 for gp3 and io2 (1,000 on Nitro), 50 for io1 (Amazon EBS User Guide, "Amazon EBS volume types").
		ratio := map[string]int{"gp3": 500, "io1": 50, "io2": 1000}[d.kind]
		if d.iops > max(ratio*d.size, bounds[0]) {
			return refuse("InvalidParameterValue", "Iops to volume size ratio of %d is too high; maximum is %d", d.iops/d.size, ratio)
		}
	}
	if throughput != nil {
		d.throughput = *throughput
		if 4*d.throughput > d.iops {
			return refuse("InvalidParameterValue", "Throughput (MiBps) to iops ratio is too high; maximum is 0.250000 MiBps per iops.")
		}
	}
	return nil
}

func (c *call) volume(id string) (*volume, *apiError) {
	if !wellFormed(id, "vol-") {
		return nil, refuse("InvalidVolumeID.Malformed", "Invalid id: \"%s\"", id)
	}
	for _, v := range c.server.volumes {
		if v.id == id && v.existsAt(c.seen) && v.existsAt(c.now) {
			return v, nil
		}
	}
	return nil, refuse("InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
}

type describeVolumesIn struct {
	DryRun     bool
	Filters    []filter
	VolumeIds  []string
	MaxResults *int
	NextToken  *string
}

type xmlVolume struct {
	ID          string          `xml:"volumeId"`
	Size        int             `xml:"size"`
	Snapshot    string          `xml:"snapshotId"`
	Zone        string          `xml:"availabilityZone"`
	Status      string          `xml:"status"`
	Created     string          `xml:"createTime"`
	Attachments []xmlVolumeLink `xml:"attachmentSet>item"`
	Tags        *xmlTags        `xml:"tagSet"`
	Type        string          `xml:"volumeType"`
	IOPS        int             `xml:"iops,omitempty"`
	Throughput  int             `xml:"throughput,omitempty"`
	Encrypted   bool            `xml:"encrypted"`
	Multi       bool            `xml:"multiAttachEnabled"`
}

type xmlVolumeLink struct {
	Volume   string `xml:"volumeId"`
	Instance string `xml:"instanceId"`
	Device   string `xml:"device"`
	Status   string `xml:"status"`
	Time     string `xml:"attachTime"`
	Delete   bool   `xml:"deleteOnTermination"`
}

type describeVolumesOut struct {
	Volumes []xmlVolume `xml:"volumeSet>item"`
	Next    string      `xml:"nextToken,omitempty"`
}

func (c *call) volumeAttr(v *volume) attribute {
	return func(name string) ([]string, bool) {
		attached := v.instance != nil && v.attachedAt(c.seen)
		if field, ok := strings.CutPrefix(name, "attachment."); ok {
			var value string
			switch field {
			case "delete-on-termination":
				value = boolText(v.deleteWith)
			case "device":
				value = v.plan.device
			case "instance-id":
				if attached {
					value = v.instance.id
				}
			case "status":
				value = "attached"
			default:
				return nil, false
			}
			if !attached {
				return nil, true
			}
			return []string{value}, true
		}
		switch name {
		case "availability-zone":
			return []string{v.zone}, true
		case "encrypted":
			return []string{boolText(v.plan.encrypted)}, true
		case "size":
			return []string{itoa(v.plan.size)}, true
		case "snapshot-id":
			return []string{v.plan.snapshot}, true
		case "status":
			return []string{v.status(c.seen)}, true
		case "volume-id":
			return []string{v.id}, true
		case "volume-type":
			return []string{v.plan.kind}, true
		}
		return nil, false
	}
}

func describeVolumes(c *call, in *describeVolumesIn) (any, *apiError) {
	p := page{in.MaxResults, in.NextToken}
	if refused := c.exclusive(in.VolumeIds, p, "volumeIds"); refused != nil {
		return nil, refused
	}
	if refused := c.checkFilters(in.Filters, c.volumeAttr(new(volume))); refused != nil {
		return nil, refused
	}
	var found []*volume
	for _, id := range in.VolumeIds {
		v, refused := c.volume(id)
		if refused != nil {
			return nil, refused
		}
		found = append(found, v)
	}
	if len(in.VolumeIds) == 0 {
		for _, v := range c.server.volumes {
			if v.existsAt(c.seen) {
				found = append(found, v)
			}
		}
	}
	found = slices.DeleteFunc(found, func(v *volume) bool { return !c.match(in.Filters, v.tags.at(c.seen), c.volumeAttr(v)) })
	found, next, refused := cutPage(c, p, [2]int{5, 1000}, found, func(v *volume) string { return v.id })
	if refused != nil {
		return nil, refused
	}
	out := describeVolumesOut{Next: next}
	for _, v := range found {
		x := xmlVolume{
			ID: v.id, Size: v.plan.size, Snapshot: v.plan.snapshot, Zone: v.zone, Status: v.status(c.seen), Created: stamp(v.created),
			Tags: tagSet(v.tags.at(c.seen)), Type: v.plan.kind, IOPS: v.plan.iops, Throughput: v.plan.throughput, Encrypted: v.plan.encrypted,
		}
		if v.attachedAt(c.seen) {
			x.Attachments = []xmlVolumeLink{{v.id, v.instance.id, v.plan.device, "attached", stamp(v.created), v.deleteWith}}
		}
		out.Volumes = append(out.Volumes, x)
	}
	return out, nil
}

type deleteVolumeIn struct {
	DryRun   bool
	VolumeId string
}

func deleteVolume(c *call, in *deleteVolumeIn) (any, *apiError) {
	v, refused := c.volume(in.VolumeId)
	if refused != nil {
		return nil, refused
	}
	if v.attachedAt(c.now) {
		return nil, refuse("VolumeInUse", "Volume %s is currently attached to %s", v.id, v.instance.id)
	}
	v.deleted = c.now
	return done{true}, nil
}

func (s *Server) truthVolumes() []Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var out []Volume
	for _, v := range s.volumes {
		if !v.existsAt(now) {
			continue
		}
		x := Volume{
			ID: v.id, Type: v.plan.kind, State: v.status(now), Zone: v.zone, Size: v.plan.size, IOPS: v.plan.iops,
			Encrypted: v.plan.encrypted, DeleteOnTermination: v.deleteWith, Tags: v.tags.at(now),
		}
		if v.attachedAt(now) {
			x.Instance, x.Device = v.instance.id, v.plan.device
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b Volume) int { return strings.Compare(a.ID, b.ID) })
	return out
}
