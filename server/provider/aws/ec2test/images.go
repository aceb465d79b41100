package ec2test

import (
	"slices"
	"strings"
	"time"
)

type image struct {
	Image
	location, root, snapshot string
}

func (s *Server) addImage(i Image) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.putImage(i)
}

func (s *Server) putImage(i Image) string {
	if i.ID == "" {
		i.ID = s.newID("ami")
	}
	if i.Owner == "" {
		i.Owner = s.config.Account
	}
	if i.Architecture == "" {
		i.Architecture = "x86_64"
	}
	if i.Created.IsZero() {
		i.Created = time.Now()
	}
	if i.RootSize == 0 {
		i.RootSize = 8
	}
	if i.State == "" {
		i.State = "available"
	}
	root := "/dev/xvda"
	if i.Owner == ownerUbuntu {
		root = "/dev/sda1"
	}
	s.images = append(s.images, &image{Image: i, location: i.Owner + "/" + i.Name, root: root, snapshot: s.newID("snap")})
	return i.ID
}

func (c *call) image(id string) (*image, *apiError) {
	if !strings.HasPrefix(id, "ami-") {
		return nil, refuse("InvalidAMIID.Malformed", "Invalid id: \"%s\" (expecting \"ami-...\")", id)
	}
	for _, i := range c.server.images {
		if i.ID == id {
			return i, nil
		}
	}
	return nil, refuse("InvalidAMIID.NotFound", "The image id '[%s]' does not exist", id)
}

type describeImagesIn struct {
	DryRun                             bool
	ExecutableUsers                    []string
	Filters                            []filter
	ImageIds                           []string
	Owners                             []string
	IncludeDeprecated, IncludeDisabled bool
	MaxResults                         *int
	NextToken                          *string
}

type xmlImage struct {
	ID             string       `xml:"imageId"`
	Location       string       `xml:"imageLocation"`
	State          string       `xml:"imageState"`
	Owner          string       `xml:"imageOwnerId"`
	Created        string       `xml:"creationDate"`
	Public         bool         `xml:"isPublic"`
	Architecture   string       `xml:"architecture"`
	Type           string       `xml:"imageType"`
	Alias          string       `xml:"imageOwnerAlias,omitempty"`
	Name           string       `xml:"name"`
	Description    string       `xml:"description"`
	RootType       string       `xml:"rootDeviceType"`
	Root           string       `xml:"rootDeviceName"`
	Devices        []xmlImageBD `xml:"blockDeviceMapping>item"`
	Virtualization string       `xml:"virtualizationType"`
	Hypervisor     string       `xml:"hypervisor"`
	ENA            bool         `xml:"enaSupport"`
	SRIOV          string       `xml:"sriovNetSupport"`
	Platform       string       `xml:"platformDetails"`
	Usage          string       `xml:"usageOperation"`
	Boot           string       `xml:"bootMode"`
	Deprecation    string       `xml:"deprecationTime,omitempty"`
	IMDS           string       `xml:"imdsSupport,omitempty"`
}

type xmlImageBD struct {
	Device    string `xml:"deviceName"`
	Snapshot  string `xml:"ebs>snapshotId"`
	Size      int    `xml:"ebs>volumeSize"`
	Delete    bool   `xml:"ebs>deleteOnTermination"`
	Type      string `xml:"ebs>volumeType"`
	Encrypted bool   `xml:"ebs>encrypted"`
}

type describeImagesOut struct {
	Images []xmlImage `xml:"imagesSet>item"`
	Next   string     `xml:"nextToken,omitempty"`
}

func (i *image) attr(name string) ([]string, bool) {
	switch name {
	case "architecture":
		return []string{i.Architecture}, true
	case "creation-date":
		return []string{stamp(i.Created)}, true
	case "ena-support":
		return []string{"true"}, true
	case "hypervisor":
		return []string{"xen"}, true
	case "image-id":
		return []string{i.ID}, true
	case "image-type":
		return []string{"machine"}, true
	case "is-public":
		return []string{"true"}, true
	case "manifest-location":
		return []string{i.location}, true
	case "name":
		return []string{i.Name}, true
	case "owner-alias":
		if i.Alias == "" {
			return nil, true
		}
		return []string{i.Alias}, true
	case "owner-id":
		return []string{i.Owner}, true
	case "platform-details":
		return []string{"Linux/UNIX"}, true
	case "root-device-name":
		return []string{i.root}, true
	case "root-device-type":
		return []string{"ebs"}, true
	case "state":
		return []string{i.State}, true
	case "virtualization-type":
		return []string{"hvm"}, true
	}
	return nil, false
}

func (c *call) owned(i *image, owners []string) bool {
	return len(owners) == 0 || slices.ContainsFunc(owners, func(o string) bool {
		return o == i.Owner || o == "self" && i.Owner == c.server.config.Account || o == i.Alias && o != ""
	})
}

func describeImages(c *call, in *describeImagesIn) (any, *apiError) {
	p := page{in.MaxResults, in.NextToken}
	if refused := c.exclusive(in.ImageIds, p, "imageIds"); refused != nil {
		return nil, refused
	}
	if refused := c.checkFilters(in.Filters, new(image).attr); refused != nil {
		return nil, refused
	}
	if len(in.ExecutableUsers) > 0 || in.IncludeDisabled {
		return nil, c.wrong("UnsupportedOperation", "not implemented here: ExecutableUsers, IncludeDisabled")
	}
	var found []*image
	for _, id := range in.ImageIds {
		i, refused := c.image(id)
		if refused != nil {
			return nil, refused
		}
		found = append(found, i)
	}
	if len(in.ImageIds) == 0 {
		found = slices.Clone(c.server.images)
	}
	found = slices.DeleteFunc(found, func(i *image) bool {
		// Deprecated images are listed for their owner, by id and on demand.
		hidden := i.Deprecated && !in.IncludeDeprecated && len(in.ImageIds) == 0 && i.Owner != c.server.config.Account
		return hidden || !c.owned(i, in.Owners) || !c.match(in.Filters, nil, i.attr)
	})
	found, next, refused := cutPage(c, p, [2]int{1, 1000}, found, func(i *image) string { return i.ID })
	if refused != nil {
		return nil, refused
	}
	out := describeImagesOut{Next: next}
	for _, i := range found {
		x := xmlImage{
			ID: i.ID, Location: i.location, State: i.State, Owner: i.Owner, Created: stamp(i.Created), Public: true,
			Architecture: i.Architecture, Type: "machine", Alias: i.Alias, Name: i.Name, RootType: "ebs", Root: i.root,
			Devices:        []xmlImageBD{{Device: i.root, Snapshot: i.snapshot, Size: i.RootSize, Delete: true, Type: "gp2"}},
			Virtualization: "hvm", Hypervisor: "xen", ENA: true, SRIOV: "simple", Platform: "Linux/UNIX", Usage: "RunInstances", Boot: "uefi-preferred",
		}
		if i.Deprecated {
			x.Deprecation = stamp(i.Created.AddDate(2, 0, 0))
		}
		out.Images = append(out.Images, x)
	}
	return out, nil
}
