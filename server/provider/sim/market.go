package sim

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// place is a zone and a machine type; "" stands for all.
type place struct{ zone, machineType string }

// machineType is what the cloud sells.
type machineType struct {
	name, architecture string
	cpus, memoryMib    uint32
	// price of an hour on demand.
	price float64
}

// catalogue returns all types, smallest first.
func catalogue() []machineType {
	var all []machineType
	for _, family := range []struct {
		name, architecture string
		price              float64
	}{{"s1", "amd64", 0.024}, {"a1", "arm64", 0.02}} {
		for n, size := range []string{"small", "medium", "large", "xlarge", "2xlarge", "4xlarge"} {
			all = append(all, machineType{family.name + "." + size, family.architecture, 1 << n, 2048 << n, family.price * float64(int(1)<<n)})
		}
	}
	return all
}

func zones() []string { return []string{"sim-a", "sim-b", "sim-c"} }

// images returns the names of all images for an architecture. An image's id is its name.
func images(architecture string) []string {
	var all []string
	for _, release := range []string{"11", "12", "13"} {
		all = append(all, "debian-"+release+"-"+architecture)
	}
	return all
}

func (c *Cloud) networks() map[string]netip.Prefix {
	if c.Networks != nil {
		return c.Networks
	}
	return map[string]netip.Prefix{defaultNetwork: netip.MustParsePrefix("172.31.0.0/16")}
}

const defaultNetwork = "default"

// network returns the id and the range of a network; "" is the default one.
func (c *Cloud) network(id string) (string, netip.Prefix, error) {
	id = cmp.Or(id, defaultNetwork)
	all := c.networks()
	if prefix, ok := all[id]; ok {
		return id, prefix, nil
	}
	var names []string
	for name := range all {
		names = append(names, name)
	}
	return "", netip.Prefix{}, unknown("network", id, names)
}

// unknown is the error about what does not exist, with what may be meant.
func unknown(what, name string, candidates []string) error {
	if near := provider.Nearest(name, candidates, 3); len(near) > 0 {
		return provider.Errorf(provider.Invalid, "there is no %s %q; the nearest are %s", what, name, strings.Join(near, ", "))
	}
	return provider.Errorf(provider.Invalid, "there is no %s %q", what, name)
}

// Price is what an hour costs now. Spot prices move from hour to hour, around a third of the price on demand.
func (c *Cloud) Price(zone, machineType string, spot bool, now time.Time) float64 {
	for _, t := range catalogue() {
		if t.name != machineType {
			continue
		}
		if !spot {
			return t.price
		}
		hour := strconv.FormatInt(now.Unix()/3600, 10)
		return t.price * (0.2 + 0.25*c.random("price", zone, machineType, hour).Float64())
	}
	return 0
}

// check refuses a choice that names what does not exist. A choice without a type or a zone is of any.
func (c *Cloud) check(choice *provisionrv1.Choice) error {
	known := slices.ContainsFunc(catalogue(), func(t machineType) bool { return t.name == choice.GetType() })
	if choice.GetType() != "" && !known {
		return provider.Errorf(provider.Invalid, "there is no machine type %q", choice.GetType())
	}
	if choice.GetZone() != "" && !slices.Contains(zones(), choice.GetZone()) {
		return unknown("zone", choice.GetZone(), zones())
	}
	for _, id := range choice.GetGroups() {
		if c.groupOf(id) == nil {
			return provider.Errorf(provider.Invalid, "there is no firewall group %q", id)
		}
	}
	return nil
}

// fits refuses a launch that there is no room, no quota or too small a price for.
func (c *Cloud) fits(choice *provisionrv1.Choice) error {
	if c.quota.set && len(c.instances) >= c.quota.max {
		return provider.Errorf(provider.QuotaExceeded, "the account may have %d machines and has %d", c.quota.max, len(c.instances))
	}
	for where, most := range c.room {
		if where.zone != "" && where.zone != choice.GetZone() || where.machineType != "" && where.machineType != choice.GetType() {
			continue
		}
		if c.count(where) >= most {
			return provider.Errorf(provider.NoCapacity, "there is no room for a machine of type %q in zone %q", choice.GetType(), choice.GetZone())
		}
	}
	if choice.GetSpot() && choice.GetMaxPrice() != "" {
		most, err := strconv.ParseFloat(choice.GetMaxPrice(), 64)
		if err != nil {
			return provider.Errorf(provider.Invalid, "cannot use price %q: %w", choice.GetMaxPrice(), err)
		}
		if price := c.Price(choice.GetZone(), choice.GetType(), true, time.Now()); price > most {
			return provider.Errorf(provider.NoCapacity, "the spot price of %s in %s is %.4f, above %s", choice.GetType(), choice.GetZone(), price, choice.GetMaxPrice())
		}
	}
	return nil
}

func (c *Cloud) count(where place) (n int) {
	if where == (place{}) {
		return len(c.instances)
	}
	for _, i := range c.instances {
		choice := i.Request.GetChoice()
		if (where.zone == "" || where.zone == choice.GetZone()) && (where.machineType == "" || where.machineType == choice.GetType()) {
			n++
		}
	}
	return n
}

// maxTypes is how many types are offered where none was named.
const maxTypes = 3

// offer says what a wish comes to.
func (c *Cloud) offer(w *provisionrv1.Wish) (*provisionrv1.Offer, error) {
	architecture := cmp.Or(w.GetHardware().GetArchitecture(), "amd64")
	types, err := typesFor(w.GetHardware(), architecture)
	if err != nil {
		return nil, err
	}
	image, err := imageFor(w, architecture)
	if err != nil {
		return nil, err
	}
	in := zones()
	if wanted := w.GetPlacement().GetZones(); len(wanted) > 0 {
		for _, z := range wanted {
			if !slices.Contains(in, z) {
				return nil, unknown("zone", z, in)
			}
		}
		in = wanted
	}
	network, _, err := c.network(w.GetNetwork().GetSpec().GetId())
	if err != nil {
		return nil, err
	}
	if err := c.allows(w); err != nil {
		return nil, err
	}
	var groups []string
	if g := c.groups[groupKey{w.GetClusterId(), w.GetPool()}]; g != nil {
		groups = []string{g.id}
	}
	markets := []bool{false}
	switch {
	case w.GetSpot().GetFallback():
		markets = []bool{true, false}
	case w.GetSpot() != nil:
		markets = []bool{true}
	}
	offer := &provisionrv1.Offer{}
	for _, spot := range markets {
		for _, t := range types {
			for _, zone := range in {
				choice := &provisionrv1.Choice{
					Image: image, ImageName: image, Type: t.name, TypeName: t.name, Zone: zone, Network: network, Subnet: network + "-" + zone,
					Groups: groups, Spot: spot, Architecture: t.architecture, Cpus: t.cpus, MemoryMib: t.memoryMib, PriceClass: "on-demand",
				}
				if spot {
					choice.MaxPrice, choice.PriceClass = w.GetSpot().GetMaxPrice(), "spot"
				}
				offer.Choices = append(offer.Choices, choice)
			}
		}
	}
	return offer, nil
}

func typesFor(h *provisionrv1.Hardware, architecture string) ([]machineType, error) {
	all := catalogue()
	if len(h.GetTypes()) == 0 {
		fit := slices.DeleteFunc(all, func(t machineType) bool {
			return t.architecture != architecture || t.cpus < h.GetCpus() || t.memoryMib < h.GetMemoryMib()
		})
		if len(fit) == 0 {
			return nil, provider.Errorf(provider.Invalid, "no machine type has %d processors and %d MiB", h.GetCpus(), h.GetMemoryMib())
		}
		return fit[:min(maxTypes, len(fit))], nil
	}
	var names []string
	for _, t := range all {
		names = append(names, t.name)
	}
	var wanted []machineType
	for _, name := range h.GetTypes() {
		n := slices.Index(names, name)
		if n < 0 {
			return nil, unknown("machine type", name, names)
		}
		if all[n].architecture != architecture {
			return nil, provider.Errorf(provider.Invalid, "machine type %s is %s, not %s", name, all[n].architecture, architecture)
		}
		wanted = append(wanted, all[n])
	}
	return wanted, nil
}

func imageFor(w *provisionrv1.Wish, architecture string) (string, error) {
	all := images(architecture)
	wanted := cmp.Or(w.GetImage().GetId(), w.GetImage().GetName(),
		fmt.Sprintf("%s-%s-%s", w.GetOs().GetDistribution(), w.GetOs().GetRelease(), architecture))
	for _, name := range slices.Backward(all) {
		if ok, err := path.Match(wanted, name); err == nil && ok {
			return name, nil
		}
	}
	return "", unknown("image", wanted, all)
}

// allows refuses a wish for more machines than the quota leaves beside those of other pools.
func (c *Cloud) allows(w *provisionrv1.Wish) error {
	if !c.quota.set {
		return nil
	}
	own := 0
	for _, i := range c.instances {
		if i.Cluster == w.GetClusterId() && i.Request.GetPool() == w.GetPool() {
			own++
		}
	}
	if need := int(w.GetCount()) - own; len(c.instances)+need > c.quota.max {
		return provider.Errorf(provider.QuotaExceeded, "the account may have %d machines, has %d and would need %d more", c.quota.max, len(c.instances), need)
	}
	return nil
}
