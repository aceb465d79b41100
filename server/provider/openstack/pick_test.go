package openstack

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/limits"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

func image(id, name string, day int, properties ...string) images.Image {
	i := images.Image{ID: id, Name: name, Status: images.ImageStatusActive, CreatedAt: time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC), Properties: map[string]any{}}
	for n := 0; n < len(properties); n += 2 {
		i.Properties[properties[n]] = properties[n+1]
	}
	return i
}

func TestPickImage(t *testing.T) {
	old := image("queued", "Debian 12", 30)
	old.Status = images.ImageStatusQueued
	all := []images.Image{
		image("a", "Debian 12 (bookworm)", 1), image("b", "debian-12-generic-20260101", 2), image("c", "ubuntu-24.04", 9), old,
		image("arm", "debian-12-arm", 8, "architecture", "aarch64"), image("d11", "debian-11", 7), image("trap", "debian-13-on-12", 6, "os_distro", "debian", "os_version", "13"),
	}
	all[0].Owner = "alice"
	os := &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}
	for name, test := range map[string]struct {
		wish *provisionrv1.Wish
		want string
	}{
		"newest of the system":       {&provisionrv1.Wish{Os: os}, "b"},
		"another architecture":       {&provisionrv1.Wish{Os: os, Hardware: &provisionrv1.Hardware{Architecture: "arm64"}}, "arm"},
		"by id":                      {&provisionrv1.Wish{Os: os, Image: &provisionrv1.Image{Id: "c"}}, "c"},
		"by name":                    {&provisionrv1.Wish{Os: os, Image: &provisionrv1.Image{Name: "ubuntu-24.04"}}, "c"},
		"the dot is no wildcard":     {&provisionrv1.Wish{Os: os, Image: &provisionrv1.Image{Name: "ubuntu.24.04"}}, ""},
		"by name and owner":          {&provisionrv1.Wish{Os: os, Image: &provisionrv1.Image{Name: "[Dd]*12*", Owner: "alice"}}, ""},
		"by pattern and owner":       {&provisionrv1.Wish{Os: os, Image: &provisionrv1.Image{Name: "*ebian*12*", Owner: "alice"}}, "a"},
		"by pattern, the newest":     {&provisionrv1.Wish{Os: os, Image: &provisionrv1.Image{Name: "debian-1*"}}, "d11"},
		"a system that is not there": {&provisionrv1.Wish{Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "9"}}, ""},
	} {
		got := ""
		if i := pickImage(all, test.wish); i != nil {
			got = i.ID
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	for name, want := range map[string]bool{"debian12": true, "Debian_Bookworm": true, "debian-120": false, "Debian 1.2": false, "notdebian 12": false} {
		if got := runs(image("x", name, 1), os); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
}

func TestPickFlavors(t *testing.T) {
	all := []flavors.Flavor{
		{ID: "5", Name: "huge", VCPUs: 64, RAM: 65536, Disk: 100}, {ID: "1", Name: "tiny", VCPUs: 1, RAM: 512, Disk: 1},
		{ID: "2", Name: "small", VCPUs: 2, RAM: 2048, Disk: 20}, {ID: "3", Name: "small.volume", VCPUs: 2, RAM: 2048}, {ID: "4", Name: "big", VCPUs: 4, RAM: 8192, Disk: 40},
	}
	img := &images.Image{Name: "i", MinDiskGigabytes: 2}
	names := func(h *provisionrv1.Hardware) (string, error) {
		found, err := pickFlavors(all, h, img)
		var names []string
		for _, f := range found {
			names = append(names, f.Name)
		}
		return strings.Join(names, " "), err
	}
	for _, test := range []struct {
		h           *provisionrv1.Hardware
		want, error string
	}{
		{nil, "small small.volume big", ""},
		{&provisionrv1.Hardware{Cpus: 3}, "big huge", ""},
		{&provisionrv1.Hardware{MemoryMib: 2048, DiskGib: 30}, "small.volume big huge", ""},
		{&provisionrv1.Hardware{Types: []string{"big", "2"}}, "big small", ""},
		{&provisionrv1.Hardware{Types: []string{"smal"}}, "", "nearest: small"},
		{&provisionrv1.Hardware{Types: []string{"tiny"}}, "", "disk of 1 GiB, less than the 2 that image i needs"},
		{&provisionrv1.Hardware{Types: []string{"small"}, Cpus: 4}, "", "2 processors, fewer than 4"},
		{&provisionrv1.Hardware{Cpus: 100}, "", "the largest are huge (64"},
	} {
		got, err := names(test.h)
		if got != test.want || (err == nil) != (test.error == "") || err != nil && (provider.KindOf(err) != provider.Invalid || !strings.Contains(err.Error(), test.error)) {
			t.Errorf("%v: %q %v, want %q %q", test.h, got, err, test.want, test.error)
		}
	}
}

func TestAllowed(t *testing.T) {
	l := limits.Absolute{MaxTotalInstances: 10, TotalInstancesUsed: 4, MaxTotalCores: 20, TotalCoresUsed: 8, MaxTotalRAMSize: -1}
	small, big := flavors.Flavor{Name: "small", VCPUs: 2, RAM: 1}, flavors.Flavor{Name: "big", VCPUs: 4, RAM: 1 << 30}
	fit, why, warnings := allowed(l, 5, []flavors.Flavor{big, small})
	if len(fit) != 1 || fit[0].Name != "small" || why != "cores: 20 more are needed, 8 of 20 are in use (flavor big)" || len(warnings) != 0 {
		t.Errorf("%v %q %q", fit, why, warnings)
	}
	if fit, _, warnings := allowed(l, 6, []flavors.Flavor{small}); len(fit) != 1 || len(warnings) != 2 {
		t.Errorf("%v %q", fit, warnings)
	}
	if fit, why, _ := allowed(l, 7, []flavors.Flavor{small}); len(fit) != 0 || !strings.HasPrefix(why, "instances: 7 more are needed, 4 of 10 are in use; cores") {
		t.Errorf("%v %q", fit, why)
	}
}

func TestUnsupported(t *testing.T) {
	for name, wish := range map[string]*provisionrv1.Wish{
		"spot":              {Spot: &provisionrv1.Spot{}},
		"image.parameter":   {Image: &provisionrv1.Image{Parameter: "/x"}},
		"identity":          {Placement: &provisionrv1.Placement{Identity: "role"}},
		"public_network":    {Placement: &provisionrv1.Placement{PublicAddress: true}},
		"volume type":       {Hardware: &provisionrv1.Hardware{RootDisk: &provisionrv1.Disk{Iops: 1}}},
		"without size_gib":  {Hardware: &provisionrv1.Hardware{Disks: []*provisionrv1.Disk{{}}}},
		"iops, throughput_": {Hardware: &provisionrv1.Hardware{Disks: []*provisionrv1.Disk{{SizeGib: 1, Encrypted: true}}}},
	} {
		if err := unsupported(wish); provider.KindOf(err) != provider.Invalid || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := unsupported(&provisionrv1.Wish{Spot: &provisionrv1.Spot{Fallback: true}}); err != nil {
		t.Error(err)
	}
	p := testProvider(t)
	needs := &provisionrv1.Hardware{RootDisk: &provisionrv1.Disk{Keep: true}}
	if err := p.storable(&session{}, needs, &provisionrv1.Choice{}); provider.KindOf(err) != provider.Invalid || !strings.Contains(err.Error(), "cinder") {
		t.Errorf("volumes without cinder: %v", err)
	}
}

func TestComplete(t *testing.T) {
	found := attached{id: "net", subnets: []subnets.Subnet{
		{ID: "s4", IPVersion: 4, CIDR: "10.0.0.0/16", GatewayIP: "10.0.0.1", DNSNameservers: []string{"192.0.2.53"}},
		{ID: "s6", IPVersion: 6, CIDR: "fd00::/64"},
	}}
	spec, err := complete(&provisionrv1.NetworkSpec{Id: "by-name", Managed: true}, found)
	if err != nil {
		t.Fatal(err)
	}
	got := []any{spec.GetId(), spec.GetSubnets(), spec.GetCidr(), spec.GetGateway(), spec.GetDnsServers(), spec.GetManaged()}
	if diff := cmp.Diff([]any{"net", []string{"s4", "s6"}, "10.0.0.0/16", "10.0.0.1", []string{"192.0.2.53"}, true}, got); diff != "" {
		t.Error(diff)
	}
	for cidr, ok := range map[string]bool{"10.0.128.0/17": true, "10.0.0.0/16": true, "10.0.0.0/8": false, "192.168.0.0/24": false} {
		if _, err := complete(&provisionrv1.NetworkSpec{Cidr: cidr}, found); (err == nil) != ok {
			t.Errorf("%s: %v", cidr, err)
		}
	}
}

func TestChoose(t *testing.T) {
	type thing struct{ id, name string }
	all := []thing{{"1", "a"}, {"2", "twin"}, {"3", "twin"}}
	names := func(x thing) (string, string) { return x.id, x.name }
	for want, says := range map[string]string{"1": "", "a": "", "twin": "give its id", "": "more than one", "twim": "nearest: twin"} {
		_, err := choose("thing", want, all, names, func(thing) bool { return true })
		if (err == nil) != (says == "") || err != nil && (provider.KindOf(err) != provider.Invalid || !strings.Contains(err.Error(), says)) {
			t.Errorf("%q: %v, want %q", want, err, says)
		}
	}
}
