package gce

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/api/compute/v1"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// image finds what a wish's machines boot from (https://cloud.google.com/compute/docs/images, image families).
func (p *Provider) image(ctx context.Context, api *compute.Service, w *provisionrv1.Wish) (*compute.Image, error) {
	i, architecture := w.GetImage(), architectureOf(w)
	if i.GetParameter() != "" || i.GetUrl() != "" {
		return nil, provider.Errorf(provider.Invalid, "gce: images are chosen by id, by family or by name")
	}
	key := "image " + strings.Join([]string{i.GetId(), i.GetOwner(), i.GetFamily(), i.GetName(), w.GetOs().GetDistribution(), w.GetOs().GetRelease(), architecture}, " ")
	found, err := cached(&p.cache, key, func() (*compute.Image, error) {
		switch {
		case i.GetId() != "":
			project, name := cmp.Or(i.GetOwner(), p.project), i.GetId()
			if parts := strings.Split(path(name), "/"); len(parts) == 5 && parts[0] == "projects" {
				project, name = parts[1], parts[4]
			}
			found, err := api.Images.Get(project, base(name)).Context(ctx).Do()
			return p.imageOr(ctx, api, "image", project, base(name), found, err)
		case i.GetName() != "":
			return p.imageNamed(ctx, api, cmp.Or(i.GetOwner(), p.project), i.GetName(), architecture)
		case i.GetFamily() != "":
			project := cmp.Or(i.GetOwner(), p.project)
			return p.newestOf(ctx, api, project, i.GetFamily(), architecture)
		}
		// The distribution's own images (https://cloud.google.com/compute/docs/images/os-details).
		project, family := w.GetOs().GetDistribution()+"-cloud", w.GetOs().GetDistribution()+"-"+w.GetOs().GetRelease()
		if architecture == "arm64" {
			family += "-arm64"
		}
		return p.newestOf(ctx, api, project, family, architecture)
	})
	if err != nil {
		return nil, err
	}
	if a := goArch(found.Architecture); a != "" && a != architecture {
		return nil, provider.Errorf(provider.Invalid, "gce: image %s is for %s, not %s", found.Name, a, architecture)
	}
	return found, nil
}

// newestOf returns the newest image of a family.
func (p *Provider) newestOf(ctx context.Context, api *compute.Service, project, family, architecture string) (*compute.Image, error) {
	found, err := api.Images.GetFromFamily(project, family).Context(ctx).Do()
	if err != nil && !absent(err, family) && p.lacks(ctx, err, "image families are looked up in the list of images") {
		all, listErr := p.images(ctx, api, project, "")
		if listErr != nil {
			return nil, p.failed("list the images of project "+project, listErr)
		}
		if newest := newest(all, architecture, func(i *compute.Image) bool { return i.Family == family }); newest != nil {
			return newest, nil
		}
		return nil, p.unlike("image family", family, "project "+project, familiesOf(all), nil)
	}
	return p.imageOr(ctx, api, "image family", project, family, found, err)
}

// familiesOf images, without those of none.
func familiesOf(all []*compute.Image) []string {
	return slices.DeleteFunc(namesOf(all, func(i *compute.Image) string { return i.Family }), func(family string) bool { return family == "" })
}

// newest of the images that match, are for the architecture and are not deprecated; nil where there is none.
func newest(all []*compute.Image, architecture string, matches func(*compute.Image) bool) *compute.Image {
	var newest *compute.Image
	for _, i := range all {
		usable := matches(i) && (i.Deprecated == nil || i.Deprecated.State == "ACTIVE" || i.Deprecated.State == "") && (i.Status == "" || i.Status == "READY")
		if a := goArch(i.Architecture); !usable || a != "" && a != architecture {
			continue
		}
		if newest == nil || i.CreationTimestamp > newest.CreationTimestamp {
			newest = i
		}
	}
	return newest
}

// imageOr returns the image, or says which images or families are named alike where there is none.
func (p *Provider) imageOr(ctx context.Context, api *compute.Service, what, project, name string, found *compute.Image, err error) (*compute.Image, error) {
	if !absent(err, name) {
		return found, p.failed("look for "+what+" "+name, err)
	}
	all, err := p.images(ctx, api, project, "")
	names := familiesOf(all)
	if what == "image" {
		names = namesOf(all, func(i *compute.Image) string { return i.Name })
	}
	return nil, p.unlike(what, name, "project "+project, names, err)
}

func (p *Provider) images(ctx context.Context, api *compute.Service, project, filter string) ([]*compute.Image, error) {
	return collect(func(token string) ([]*compute.Image, string, error) {
		page, err := api.Images.List(project).Filter(filter).MaxResults(listPage).PageToken(token).Context(ctx).Do()
		if err != nil {
			return nil, "", err
		}
		return page.Items, page.NextPageToken, nil
	})
}

// imageNamed is the newest image whose name matches and that is not deprecated.
func (p *Provider) imageNamed(ctx context.Context, api *compute.Service, project, pattern, architecture string) (*compute.Image, error) {
	expression := strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*")
	matches, err := regexp.Compile("^(?:" + expression + ")$")
	if err != nil {
		return nil, provider.Errorf(provider.Invalid, "gce: %q is no name of an image", pattern)
	}
	// The filter spares pages; what counts is the match here.
	all, err := p.images(ctx, api, project, "name eq '"+expression+"'")
	if err != nil {
		return nil, p.failed("list the images of project "+project, err)
	}
	if newest := newest(all, architecture, func(i *compute.Image) bool { return matches.MatchString(i.Name) }); newest != nil {
		return newest, nil
	}
	if all, err = p.images(ctx, api, project, ""); err != nil {
		return nil, p.failed("list the images of project "+project, err)
	}
	return nil, p.unlike("image", strings.ReplaceAll(pattern, "*", ""), "project "+project, namesOf(all, func(i *compute.Image) string { return i.Name }), nil)
}

func architectureOf(w *provisionrv1.Wish) string {
	return cmp.Or(w.GetHardware().GetArchitecture(), "amd64")
}

// goArch is GOARCH's name of an architecture, "" for one that is not said.
func goArch(architecture string) string {
	switch architecture {
	case "X86_64":
		return "amd64"
	case "ARM64":
		return "arm64"
	}
	return ""
}
