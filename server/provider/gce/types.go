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

// families of general purpose, the cheapest first where they are otherwise alike
// (https://cloud.google.com/compute/docs/general-purpose-machines).
var families = map[string][]string{
	"amd64": {"e2", "n4", "n4d", "n2d", "n2", "t2d", "c4d", "c4", "c3d", "c3", "n1"},
	"arm64": {"n4a", "c4a", "t2a"},
}

// plain types have no accelerators and local disks: their price is for processors and memory alone.
var plain = regexp.MustCompile(`^([a-z0-9]+)-(micro|small|medium|(standard|highmem|highcpu)-[0-9]+)$`)

// offered is how many types are offered to a wish that names none.
const offered = 3

// types of a zone by name.
func (p *Provider) types(ctx context.Context, api *compute.Service, zone string) (map[string]*compute.MachineType, error) {
	return cached(&p.cache, "types "+zone, func() (map[string]*compute.MachineType, error) {
		all, err := collect(func(token string) ([]*compute.MachineType, string, error) {
			page, err := api.MachineTypes.List(p.project, zone).MaxResults(listPage).PageToken(token).Context(ctx).Do()
			if err != nil {
				return nil, "", err
			}
			return page.Items, page.NextPageToken, nil
		})
		if err != nil {
			return nil, p.failed("list the machine types of "+zone, err)
		}
		types := map[string]*compute.MachineType{}
		for _, t := range all {
			if t.Deprecated == nil || t.Deprecated.State == "DEPRECATED" || t.Deprecated.State == "" {
				types[t.Name] = t
			}
		}
		return types, nil
	})
}

// typed is a machine type in a zone.
type typed struct {
	zone string
	*compute.MachineType
}

// hardware returns what fulfils a wish: types in order, each in the zones in order.
func (p *Provider) hardware(ctx context.Context, api *compute.Service, w *provisionrv1.Wish, zones []string) ([]typed, error) {
	byZone := map[string]map[string]*compute.MachineType{}
	all := map[string]*compute.MachineType{}
	for _, zone := range zones {
		types, err := p.types(ctx, api, zone)
		if err != nil {
			return nil, err
		}
		byZone[zone] = types
		for name, t := range types {
			all[name] = t
		}
	}
	names := w.GetHardware().GetTypes()
	if len(names) == 0 {
		names = cheapest(all, w)
		if len(names) == 0 {
			return nil, provider.Errorf(provider.Invalid, "gce: no machine type of %s has %d processors of %s and %d MiB", p.region,
				w.GetHardware().GetCpus(), architectureOf(w), w.GetHardware().GetMemoryMib())
		}
	}
	var fit []typed
	for _, name := range names {
		somewhere := false
		for _, zone := range zones {
			t, err := p.typeIn(ctx, api, zone, name, byZone[zone])
			if err != nil {
				return nil, err
			}
			if t == nil {
				continue
			}
			somewhere = true
			if a := goArch(t.Architecture); a != "" && a != architectureOf(w) {
				return nil, provider.Errorf(provider.Invalid, "gce: machine type %s is %s, not %s", name, a, architectureOf(w))
			}
			if t.GuestCpus < int64(w.GetHardware().GetCpus()) || t.MemoryMb < int64(w.GetHardware().GetMemoryMib()) {
				return nil, provider.Errorf(provider.Invalid, "gce: machine type %s has %d processors and %d MiB, less than what is wanted", name, t.GuestCpus, t.MemoryMb)
			}
			fit = append(fit, typed{zone, t})
		}
		if !somewhere {
			known := make([]string, 0, len(all))
			for other := range all {
				known = append(known, other)
			}
			slices.Sort(known)
			return nil, p.unlike("machine type", name, strings.Join(zones, ", "), known, nil)
		}
	}
	return fit, nil
}

// typeIn returns a type in a zone, or nil. Custom types are in no list.
func (p *Provider) typeIn(ctx context.Context, api *compute.Service, zone, name string, listed map[string]*compute.MachineType) (*compute.MachineType, error) {
	if t := listed[name]; t != nil || !strings.Contains(name, "custom-") {
		return t, nil
	}
	return cached(&p.cache, "type "+zone+" "+name, func() (*compute.MachineType, error) {
		t, err := api.MachineTypes.Get(p.project, zone, name).Context(ctx).Do()
		if absent(err, name) {
			return nil, nil
		}
		return t, p.failed("look for machine type "+name, err)
	})
}

// cheapest names the types that look cheapest of those with the processors and the memory: the fewest processors, then the
// least memory, then the family. Prices are of another API. A shared processor is taken only where no number is asked for.
func cheapest(all map[string]*compute.MachineType, w *provisionrv1.Wish) []string {
	h, architecture := w.GetHardware(), architectureOf(w)
	rank := func(t *compute.MachineType) int {
		if m := plain.FindStringSubmatch(t.Name); m != nil {
			return slices.Index(families[architecture], m[1])
		}
		return -1
	}
	pick := func(accept func(*compute.MachineType) bool) []string {
		var fit []*compute.MachineType
		for _, t := range all {
			if a := goArch(t.Architecture); a != "" && a != architecture || a == "" && architecture != "amd64" {
				continue
			}
			enough := t.GuestCpus >= int64(h.GetCpus()) && t.MemoryMb >= max(1024, int64(h.GetMemoryMib()))
			if enough && len(t.Accelerators) == 0 && t.Deprecated == nil && accept(t) {
				fit = append(fit, t)
			}
		}
		slices.SortFunc(fit, func(a, b *compute.MachineType) int {
			return cmp.Or(cmp.Compare(a.GuestCpus, b.GuestCpus), cmp.Compare(a.MemoryMb, b.MemoryMb), cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name))
		})
		return namesOf(fit[:min(offered, len(fit))], func(t *compute.MachineType) string { return t.Name })
	}
	if names := pick(func(t *compute.MachineType) bool {
		return rank(t) >= 0 && (!t.IsSharedCpu || h.GetCpus() == 0) && !strings.HasPrefix(t.Name, "n1-")
	}); len(names) > 0 {
		return names
	}
	return pick(func(t *compute.MachineType) bool { return !t.IsSharedCpu })
}
