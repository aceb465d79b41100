package openstack

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// best is how many flavors are offered where none is named.
const best = 3

// codenames of Debian's releases, which many clouds name their images after.
var codenames = map[string]string{"11": "bullseye", "12": "bookworm", "13": "trixie"}

// architectures as Glance names them (property "architecture" or "hw_architecture") by GOARCH.
var architectures = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// pickImage returns the image that the wish means, the newest where it means several, or nil.
func pickImage(all []images.Image, wish *provisionrv1.Wish) *images.Image {
	want := wish.GetImage()
	var fits func(images.Image) bool
	switch {
	case want.GetId() != "":
		fits = func(i images.Image) bool { return i.ID == want.GetId() }
	case want.GetName() != "":
		name := glob(want.GetName())
		fits = func(i images.Image) bool {
			return name.MatchString(i.Name) && (want.GetOwner() == "" || i.Owner == want.GetOwner()) && architected(i, wish)
		}
	default:
		fits = func(i images.Image) bool {
			return runs(i, wish.GetOs()) && architected(i, wish) && (common(wish) || told(i))
		}
	}
	var found *images.Image
	for n := range all {
		i := &all[n]
		// The API was asked for active ones; one that does not know the filter may list others.
		if i.Status != images.ImageStatusActive || !fits(*i) {
			continue
		}
		if found == nil || cmp.Or(i.CreatedAt.Compare(found.CreatedAt), cmp.Compare(i.ID, found.ID)) > 0 {
			found = i
		}
	}
	return found
}

// glob is a name in which * stands for any characters.
func glob(name string) *regexp.Regexp {
	parts := strings.Split(name, "*")
	for n := range parts {
		parts[n] = regexp.QuoteMeta(parts[n])
	}
	return regexp.MustCompile("(?s)^" + strings.Join(parts, ".*") + "$")
}

// runs reports whether an image is of the operating system, by the properties os_distro and os_version of Glance's "Useful
// image properties", else by its name: "Debian 12", "debian-12-generic", "debian_bookworm".
func runs(i images.Image, os *provisionrv1.OperatingSystem) bool {
	distro, _ := i.Properties["os_distro"].(string)
	version := fmt.Sprint(i.Properties["os_version"])
	if distro != "" && i.Properties["os_version"] != nil {
		return distro == os.GetDistribution() && (version == os.GetRelease() || version == codenames[os.GetRelease()])
	}
	words := strings.FieldsFunc(strings.ToLower(i.Name), func(r rune) bool { return strings.ContainsRune(" -_.()/", r) })
	// debian12 is one word in some clouds.
	whole := slices.Contains(words, os.GetDistribution()+os.GetRelease())
	return whole || slices.Contains(words, os.GetDistribution()) &&
		(slices.Contains(words, os.GetRelease()) || codenames[os.GetRelease()] != "" && slices.Contains(words, codenames[os.GetRelease()]))
}

// architected reports whether nothing says that the image is for another architecture.
func architected(i images.Image, wish *provisionrv1.Wish) bool {
	want := architectures[cmp.Or(wish.GetHardware().GetArchitecture(), "amd64")]
	for _, key := range []string{"architecture", "hw_architecture"} {
		if is, _ := i.Properties[key].(string); is != "" && is != want {
			return false
		}
	}
	return true
}

// common reports whether the wish is for the architecture that images without a word about theirs are of.
func common(wish *provisionrv1.Wish) bool {
	a := wish.GetHardware().GetArchitecture()
	return a == "" || a == "amd64"
}

// told reports whether the image says what architecture it is for.
func told(i images.Image) bool {
	return i.Properties["architecture"] != nil || i.Properties["hw_architecture"] != nil
}

// needsVolume reports whether the root disk must be a volume: as asked for, or as the flavor has none.
func needsVolume(h *provisionrv1.Hardware, f flavors.Flavor) bool {
	return h.GetRootDisk().GetType() != "" || h.GetRootDisk().GetKeep() || f.Disk == 0
}

// unfitFlavor says why a flavor does not do; empty where it does.
func unfitFlavor(f flavors.Flavor, h *provisionrv1.Hardware, image *images.Image) string {
	switch {
	case f.VCPUs < int(h.GetCpus()):
		return fmt.Sprintf("it has %d processors, fewer than %d", f.VCPUs, h.GetCpus())
	case f.RAM < int(h.GetMemoryMib()):
		return fmt.Sprintf("it has %d MiB of memory, less than %d", f.RAM, h.GetMemoryMib())
	case f.RAM < image.MinRAMMegabytes:
		return fmt.Sprintf("it has %d MiB of memory, less than the %d that image %s needs", f.RAM, image.MinRAMMegabytes, image.Name)
	case needsVolume(h, f):
		return ""
	case f.Disk < int(h.GetDiskGib()):
		return fmt.Sprintf("it has a disk of %d GiB, less than %d", f.Disk, h.GetDiskGib())
	case f.Disk < image.MinDiskGigabytes:
		return fmt.Sprintf("it has a disk of %d GiB, less than the %d that image %s needs", f.Disk, image.MinDiskGigabytes, image.Name)
	}
	return ""
}

// pickFlavors returns the flavors that are named, in order, or the best few that are large enough: the fewest processors,
// then the least memory and disk; those with a disk of their own before those that need a volume.
func pickFlavors(all []flavors.Flavor, h *provisionrv1.Hardware, image *images.Image) ([]flavors.Flavor, error) {
	if len(h.GetTypes()) > 0 {
		return namedFlavors(all, h, image)
	}
	var fit []flavors.Flavor
	for _, f := range all {
		// What a flavor's extra specs reserve for special hosts is not for everybody.
		if unfitFlavor(f, h, image) == "" {
			fit = append(fit, f)
		}
	}
	if len(fit) == 0 {
		return nil, provider.Errorf(provider.Invalid, "openstack: no flavor has %d processors, %d MiB of memory and %d GiB of disk; the largest are %s",
			h.GetCpus(), h.GetMemoryMib(), h.GetDiskGib(), largest(all))
	}
	slices.SortFunc(fit, func(a, b flavors.Flavor) int {
		diskless := func(f flavors.Flavor) int {
			if f.Disk == 0 {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(a.VCPUs, b.VCPUs), cmp.Compare(a.RAM, b.RAM), cmp.Compare(diskless(a), diskless(b)),
			cmp.Compare(a.Disk, b.Disk), cmp.Compare(a.Name, b.Name))
	})
	return fit[:min(best, len(fit))], nil
}

func namedFlavors(all []flavors.Flavor, h *provisionrv1.Hardware, image *images.Image) ([]flavors.Flavor, error) {
	var names []string
	for _, f := range all {
		names = append(names, f.Name)
	}
	var found []flavors.Flavor
	for _, want := range h.GetTypes() {
		i := slices.IndexFunc(all, func(f flavors.Flavor) bool { return f.ID == want || f.Name == want })
		if i < 0 {
			return nil, provider.Errorf(provider.Invalid, "openstack: there is no flavor %q%s", want, hint(want, names))
		}
		if why := unfitFlavor(all[i], h, image); why != "" {
			return nil, provider.Errorf(provider.Invalid, "openstack: flavor %s does not do: %s", all[i].Name, why)
		}
		found = append(found, all[i])
	}
	return found, nil
}

func largest(all []flavors.Flavor) string {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b flavors.Flavor) int {
		return cmp.Or(cmp.Compare(b.VCPUs, a.VCPUs), cmp.Compare(b.RAM, a.RAM), cmp.Compare(a.Name, b.Name))
	})
	var names []string
	for _, f := range sorted[:min(best, len(sorted))] {
		names = append(names, fmt.Sprintf("%s (%d, %d MiB, %d GiB)", f.Name, f.VCPUs, f.RAM, f.Disk))
	}
	return strings.Join(names, ", ")
}

// rootGib is the size of a root volume.
func rootGib(h *provisionrv1.Hardware, choice *provisionrv1.Choice) uint32 {
	if n, err := strconv.ParseUint(choice.GetExtra()[extraRootGib], 10, 32); err == nil {
		return uint32(n)
	}
	return cmp.Or(h.GetDiskGib(), defaultRoot)
}
