package spec

import (
	"slices"
	"strconv"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// checkMachines checks what a pool wants of its provider, by the rules that hold for every kind of provider.
func checkMachines(d *document, spec *provisionrv1.PoolSpec) {
	h := spec.GetHardware()
	for i, t := range h.GetTypes() {
		checkWord(d, at("spec.hardware.types", i), t, "a machine type", "as m7i.large")
	}
	if root := h.GetRootDisk(); root.GetSizeGib() != 0 {
		d.complain("spec.hardware.rootDisk.sizeGib", "write spec.hardware.diskGib", "the size of the root disk is given elsewhere")
	}
	checkDisk(d, "spec.hardware.rootDisk", h.GetRootDisk())
	for i, disk := range h.GetDisks() {
		p := at("spec.hardware.disks", i)
		if disk.GetSizeGib() == 0 {
			d.complain(p+".sizeGib", "as sizeGib: 100", "is missing")
		}
		checkDisk(d, p, disk)
	}
	checkImage(d, spec.GetImage())
	for i, z := range spec.GetPlacement().GetZones() {
		checkWord(d, at("spec.placement.zones", i), z, "a zone", "as eu-central-1a")
	}
	p := spec.GetPlacement()
	for _, f := range []struct{ name, is string }{
		{"group", p.GetGroup()}, {"keyPair", p.GetKeyPair()}, {"identity", p.GetIdentity()}, {"publicNetwork", p.GetPublicNetwork()},
	} {
		checkLine(d, "spec.placement."+f.name, f.is)
	}
	if price := spec.GetSpot().GetMaxPrice(); price != "" {
		if v, err := strconv.ParseFloat(price, 64); err == nil && v == 0 {
			d.complain("spec.spot.maxPrice", "leave it out to pay at most the on-demand price", "nothing can be had for %s", show(price))
		}
	}
	if s := spec.GetSafety(); s != nil && s.MaxSurge != nil && spec.Size > 0 && s.GetMaxSurge() > spec.Size {
		d.complain("spec.safety.maxSurge", "", "is %d, but the pool has only size %d", s.GetMaxSurge(), spec.Size)
	}
}

func checkDisk(d *document, path string, disk *provisionrv1.Disk) {
	if disk.GetType() != "" {
		checkWord(d, path+".type", disk.GetType(), "a type of disk", "as gp3")
	}
}

// checkWord complains about a name of the provider's that cannot be one.
func checkWord(d *document, path, word, what, hint string) {
	if strings.ContainsAny(word, " \t,;\"'`$&|<>") || hasControl(word) {
		d.complain(path, hint, "%s is not %s", show(word), what)
	}
}

// selector is one way to choose an image.
type selector struct{ name, value string }

func selectors(i *provisionrv1.Image) []selector {
	all := []selector{
		{"id", i.GetId()}, {"parameter", i.GetParameter()}, {"family", i.GetFamily()}, {"url", i.GetUrl()}, {"name", i.GetName()},
	}
	return slices.DeleteFunc(all, func(s selector) bool { return s.value == "" })
}

func checkImage(d *document, i *provisionrv1.Image) {
	if i == nil {
		return
	}
	const path = "spec.image"
	given := selectors(i)
	var names []string
	for _, s := range given {
		names = append(names, s.name)
		if s.name != "url" && s.name != "name" {
			checkWord(d, join(path, s.name), s.value, "an image's "+s.name, "")
		}
	}
	by := ""
	if len(names) == 1 {
		by = names[0]
	}
	switch {
	case len(names) > 1:
		d.complain(path, "give one of them", "chooses by %s at once", list(names))
		return
	case by == "" && (i.GetOwner() != "" || i.GetSha256() != ""):
		d.complain(path, "give id, parameter, family, url or name", "does not say which image")
		return
	case i.GetOwner() != "" && by != "name" && by != "family":
		d.complain(path+".owner", "remove it", "%s alone says which image", by)
	case i.GetSha256() != "" && by != "url":
		d.complain(path+".sha256", "remove it", "only an image given by url has it")
	case by == "url" && i.GetSha256() == "":
		d.complain(path+".sha256", "what `sha256sum FILE` prints", "is missing")
	case by == "name" && strings.Trim(i.GetName(), "*? ") == "":
		d.complain(path+".name", "as debian-12-amd64-*", "%s stands for every image", show(i.GetName()))
	}
	checkLine(d, path+".name", i.GetName())
	checkLine(d, path+".owner", i.GetOwner())
}
