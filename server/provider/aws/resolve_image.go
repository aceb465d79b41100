package aws

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// debianOwner is the account that Debian publishes its images from (wiki.debian.org, Cloud/AmazonEC2Image).
const debianOwner = "136693071363"

// usualRootDevice is that of Debian's images, for those that do not name theirs.
const usualRootDevice = "/dev/xvda"

// image is an AMI that machines can boot from.
type image struct {
	id, name   string
	rootDevice string
	rootGiB    uint32 // the least size of the root disk
}

// ec2Architecture of a GOARCH, which is also what a wish without one means.
func ec2Architecture(goarch string) types.ArchitectureValues {
	if goarch == "arm64" {
		return types.ArchitectureValuesArm64
	}
	return types.ArchitectureValuesX8664
}

// findImage finds the one image that a wish means: by id, by parameter, the newest by name and owner, or the operating
// system's own.
func (p *Provider) findImage(ctx context.Context, os *provisionrv1.OperatingSystem, w *provisionrv1.Image, goarch string) (image, error) {
	if w.GetFamily() != "" || w.GetUrl() != "" {
		return image{}, provider.Errorf(provider.Invalid, "provider aws chooses images by id, by name and owner or by parameter, not by family or url")
	}
	key := strings.Join([]string{"image", os.GetDistribution(), os.GetRelease(), goarch, w.GetId(), w.GetParameter(), w.GetOwner(), w.GetName()}, "\x00")
	return cached(ctx, &p.cache, key, often, func(ctx context.Context) (image, error) {
		switch {
		case w.GetId() != "":
			return p.imageByID(ctx, w.GetId(), goarch)
		case w.GetParameter() != "":
			return p.imageByParameter(ctx, w.GetParameter(), goarch)
		case w.GetName() != "" || w.GetOwner() != "":
			return p.newestImage(ctx, w.GetOwner(), w.GetName(), goarch)
		}
		return p.defaultImage(ctx, os, goarch)
	})
}

// defaultImage is Debian's own: by the parameter that it keeps current, or else by its name.
func (p *Provider) defaultImage(ctx context.Context, os *provisionrv1.OperatingSystem, goarch string) (image, error) {
	if os.GetDistribution() != "debian" {
		return image{}, provider.Errorf(provider.Invalid, "provider aws has no image of %s of its own: choose one", os.GetDistribution())
	}
	api, err := p.api(ctx)
	if err != nil {
		return image{}, err
	}
	if api.ssm != nil {
		found, err := p.imageByParameter(ctx, "/aws/service/debian/release/"+os.GetRelease()+"/latest/"+goarch, goarch)
		if provider.KindOf(err) != provider.NotFound {
			return found, err
		}
	}
	name := "debian-" + os.GetRelease() + "-" + goarch + "-*"
	found, err := p.newestImage(ctx, debianOwner, name, goarch)
	if provider.KindOf(err) == provider.Invalid && api.foreign {
		// At AWS anybody may publish an image of that name; such a server's images are its operator's own.
		p.warnOnce(ctx, "debian's account has no image here: any owner's will do", "name", name)
		return p.newestImage(ctx, anyOwner, name, goarch)
	}
	return found, err
}

// imageByParameter reads the id of an image from a public parameter. One that does not exist is NotFound, as all are where
// there is no Parameter Store.
func (p *Provider) imageByParameter(ctx context.Context, name, goarch string) (image, error) {
	api, err := p.api(ctx)
	if err != nil {
		return image{}, err
	}
	if api.ssm == nil {
		return image{}, provider.Errorf(provider.NotFound, "cannot read parameter %s: ec2 is not aws's own, and no endpoint of ssm is configured", name)
	}
	out, err := api.ssm.GetParameter(ctx, &ssm.GetParameterInput{Name: awssdk.String(name)})
	if p.lacks(ctx, err, "there are no parameters") {
		return image{}, provider.Errorf(provider.NotFound, "cannot read parameter %s: the server at the endpoint of ssm has none", name)
	}
	if err != nil {
		return image{}, p.classify(ctx, "read parameter "+name, err)
	}
	if out.Parameter == nil || !strings.HasPrefix(awssdk.ToString(out.Parameter.Value), "ami-") {
		return image{}, provider.Errorf(provider.Invalid, "parameter %s does not hold the id of an image", name)
	}
	return p.imageByID(ctx, *out.Parameter.Value, goarch)
}

func (p *Provider) imageByID(ctx context.Context, id, goarch string) (image, error) {
	api, err := p.api(ctx)
	if err != nil {
		return image{}, err
	}
	out, err := api.ec2.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{id}})
	if err != nil && !hasCode(err, "InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "InvalidAMIID.Unavailable", "InvalidParameterValue") {
		return image{}, p.classify(ctx, "find image "+id, err)
	}
	at := -1
	if err == nil {
		at = slices.IndexFunc(out.Images, func(i types.Image) bool { return awssdk.ToString(i.ImageId) == id })
	}
	if at < 0 {
		return image{}, provider.Errorf(provider.Invalid, "there is no image %q in region %s", id, p.config.Spec.GetRegion())
	}
	if problem := unfit(out.Images[at], goarch); problem != "" {
		return image{}, provider.Errorf(provider.Invalid, "image %s %s", id, problem)
	}
	return imageOf(out.Images[at]), nil
}

// unfit says why machines cannot boot from an image, "" if they can. What a server leaves unsaid is no reason.
func unfit(i types.Image, goarch string) string {
	switch {
	case i.State != "" && i.State != types.ImageStateAvailable:
		return "is " + string(i.State)
	case i.Architecture != "" && i.Architecture != ec2Architecture(goarch):
		return fmt.Sprintf("is for %s, not %s", i.Architecture, ec2Architecture(goarch))
	case i.RootDeviceType != "" && i.RootDeviceType != types.DeviceTypeEbs:
		return "has no ebs root device"
	case i.VirtualizationType != "" && i.VirtualizationType != types.VirtualizationTypeHvm:
		return "is not for hardware virtualization"
	}
	return ""
}

// anyOwner has newestImage take images of all owners.
const anyOwner = "*"

// newestImage returns the newest image of that name, in which * stands for any characters, and owner.
func (p *Provider) newestImage(ctx context.Context, owner, name, goarch string) (image, error) {
	api, err := p.api(ctx)
	if err != nil {
		return image{}, err
	}
	in := &ec2.DescribeImagesInput{
		Filters: []types.Filter{
			filter("architecture", string(ec2Architecture(goarch))), filter("root-device-type", string(types.DeviceTypeEbs)),
			filter("state", string(types.ImageStateAvailable)), filter("virtualization-type", string(types.VirtualizationTypeHvm)),
		},
		MaxResults: awssdk.Int32(pageSize),
	}
	if name != "" {
		in.Filters = append(in.Filters, filter("name", strings.NewReplacer(`\`, `\\`, "?", `\?`).Replace(name)))
	}
	matches, err := regexp.Compile("^" + strings.ReplaceAll(regexp.QuoteMeta(cmp.Or(name, "*")), `\*`, ".*") + "$")
	if err != nil {
		return image{}, provider.Errorf(provider.Invalid, "%q is no name of an image", name)
	}
	switch {
	case owner == anyOwner:
	case owner != "":
		in.Owners = []string{owner}
	case name != "":
		// Anybody may publish an image under any name.
		in.Owners = []string{"self"}
	}
	var newest *types.Image
	pages := ec2.NewDescribeImagesPaginator(api.ec2, in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return image{}, p.classify(ctx, "find image "+name, err)
		}
		for _, i := range page.Images {
			if unfit(i, goarch) == "" && matches.MatchString(awssdk.ToString(i.Name)) && ownedBy(i, owner) && (newest == nil || newer(i, *newest)) {
				newest = &i
			}
		}
	}
	if newest == nil {
		return image{}, provider.Errorf(provider.Invalid, "there is no image %q of owner %q for %s in region %s",
			name, strings.Join(in.Owners, ""), in.Filters[0].Values[0], p.config.Spec.GetRegion())
	}
	return imageOf(*newest), nil
}

// ownedBy reports whether an image is of an owner, who is given by account, by alias or as self: EC2 alone knows the others.
func ownedBy(i types.Image, owner string) bool {
	account := len(owner) > 0 && strings.Trim(owner, "0123456789") == ""
	return !account || awssdk.ToString(i.OwnerId) == owner
}

// newer compares creation dates, which are RFC 3339 in UTC: their order is that of their text.
func newer(a, b types.Image) bool {
	if x, y := awssdk.ToString(a.CreationDate), awssdk.ToString(b.CreationDate); x != y {
		return x > y
	}
	return awssdk.ToString(a.ImageId) > awssdk.ToString(b.ImageId)
}

func imageOf(i types.Image) image {
	found := image{id: awssdk.ToString(i.ImageId), name: awssdk.ToString(i.Name), rootDevice: awssdk.ToString(i.RootDeviceName)}
	if found.rootDevice == "" { // never at AWS
		found.rootDevice = usualRootDevice
		if len(i.BlockDeviceMappings) > 0 {
			found.rootDevice = cmp.Or(awssdk.ToString(i.BlockDeviceMappings[0].DeviceName), usualRootDevice)
		}
	}
	for _, m := range i.BlockDeviceMappings {
		if m.Ebs != nil && awssdk.ToString(m.DeviceName) == found.rootDevice {
			found.rootGiB = uint32(max(0, awssdk.ToInt32(m.Ebs.VolumeSize)))
		}
	}
	return found
}
