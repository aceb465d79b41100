package gce_test

import (
	"strings"
	"testing"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/gce/gcetest"
)

func TestResolve(t *testing.T) {
	s := gcetest.Start(t, gcetest.Config{})
	h := &harness{Server: s}
	p := h.new(t, cluster, true)
	hardware := func(h *provisionrv1.Hardware) func(*provisionrv1.Wish) {
		return func(w *provisionrv1.Wish) { w.Hardware = h }
	}
	for _, test := range []struct {
		name string
		wish *provisionrv1.Wish
		// want is type, zone and market of each choice, or what the error says
		want []string
		kind provider.Kind
	}{
		{"nothing said", wish(), []string{"e2-micro a", "e2-micro b", "e2-micro c", "e2-highcpu-2 a", "e2-highcpu-2 b", "e2-highcpu-2 c", "e2-small a", "e2-small b", "e2-small c"}, ""},
		{"processors are not shared", wish(hardware(&provisionrv1.Hardware{Cpus: 2, MemoryMib: 8000}), func(w *provisionrv1.Wish) {
			w.Placement = &provisionrv1.Placement{Zones: []string{gcetest.Region + "-b"}}
		}), []string{"e2-standard-2 b", "n2-standard-2 b", "e2-highmem-2 b"}, ""},
		{"types and zones in order", wish(hardware(&provisionrv1.Hardware{Types: []string{"n2-standard-2", "e2-medium"}}), func(w *provisionrv1.Wish) {
			w.Placement = &provisionrv1.Placement{Zones: []string{gcetest.Region + "-c", gcetest.Region + "-a"}}
		}), []string{"n2-standard-2 c", "n2-standard-2 a", "e2-medium c", "e2-medium a"}, ""},
		{"a type of one zone", wish(hardware(&provisionrv1.Hardware{Types: []string{"c3-standard-4"}})), []string{"c3-standard-4 a"}, ""},
		{"a custom type", wish(hardware(&provisionrv1.Hardware{Types: []string{"n2-custom-4-8192"}}), func(w *provisionrv1.Wish) {
			w.Placement = &provisionrv1.Placement{Zones: []string{gcetest.Region + "-a"}}
		}), []string{"n2-custom-4-8192 a"}, ""},
		{"spot, then not", wish(hardware(&provisionrv1.Hardware{Types: []string{"c3-standard-4"}}), func(w *provisionrv1.Wish) { w.Spot = &provisionrv1.Spot{Fallback: true} }),
			[]string{"c3-standard-4 a spot", "c3-standard-4 a"}, ""},
		{"arm64", wish(hardware(&provisionrv1.Hardware{Architecture: "arm64", Cpus: 2})), []string{"t2a-standard-2 a", "t2a-standard-2 b", "t2a-standard-2 c"}, ""},
		{"a type of another architecture", wish(hardware(&provisionrv1.Hardware{Types: []string{"t2a-standard-1"}})), []string{"arm64"}, provider.Invalid},
		{"too much", wish(hardware(&provisionrv1.Hardware{Cpus: 1000})), []string{"no machine type"}, provider.Invalid},
		{"a type too small", wish(hardware(&provisionrv1.Hardware{Types: []string{"e2-micro"}, MemoryMib: 2048})), []string{"less than"}, provider.Invalid},
		{"a root disk too small", wish(hardware(&provisionrv1.Hardware{DiskGib: 5})), []string{"no room for image"}, provider.Invalid},
		{"key pair", wish(func(w *provisionrv1.Wish) { w.Placement = &provisionrv1.Placement{KeyPair: "me"} }), []string{"key pairs"}, provider.Invalid},
		{"IPv6 where there is none", wish(func(w *provisionrv1.Wish) { w.Placement = &provisionrv1.Placement{Ipv6: true} }), []string{"IPv6"}, provider.Invalid},
		{"an image's parameter", wish(func(w *provisionrv1.Wish) { w.Image = &provisionrv1.Image{Parameter: "/x"} }), []string{"images are chosen"}, provider.Invalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			offer, err := p.Resolve(t.Context(), test.wish)
			if provider.KindOf(err) != test.kind {
				t.Fatalf("%v, want %s", err, test.kind)
			}
			if err != nil {
				if !strings.Contains(err.Error(), test.want[0]) {
					t.Errorf("%q does not say %q", err, test.want[0])
				}
				return
			}
			var got []string
			for _, c := range offer.Choices {
				text := c.Type + " " + strings.TrimPrefix(c.Zone, gcetest.Region+"-")
				if c.Spot {
					text += " spot"
				}
				got = append(got, text)
			}
			if strings.Join(got, ", ") != strings.Join(test.want, ", ") {
				t.Errorf("got %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestResolveImages(t *testing.T) {
	h := &harness{Server: gcetest.Start(t, gcetest.Config{})}
	p := h.new(t, cluster, true)
	const debian = "projects/debian-cloud/global/images/"
	for _, test := range []struct {
		image *provisionrv1.Image
		want  string
	}{
		{nil, debian + gcetest.NewestImage},
		{&provisionrv1.Image{Id: "golden-1"}, "projects/test-project/global/images/golden-1"},
		{&provisionrv1.Image{Id: debian + "debian-11-bullseye-v20240101"}, debian + "debian-11-bullseye-v20240101"},
		{&provisionrv1.Image{Id: "https://www.googleapis.com/compute/v1/" + debian + gcetest.NewestImage}, debian + gcetest.NewestImage},
		{&provisionrv1.Image{Name: "golden-*"}, "projects/test-project/global/images/golden-2"},
		{&provisionrv1.Image{Name: "debian-12-*", Owner: "debian-cloud"}, debian + gcetest.NewestImage},
		{&provisionrv1.Image{Family: "golden"}, "projects/test-project/global/images/golden-2"},
	} {
		offer, err := p.Resolve(t.Context(), wish(func(w *provisionrv1.Wish) { w.Image = test.image }))
		if err != nil || offer.Choices[0].Image != test.want {
			t.Errorf("%v: %s, %v", test.image, offer.GetChoices(), err)
		}
	}
}

func TestQuota(t *testing.T) {
	h := &harness{Server: gcetest.Start(t, gcetest.Config{})}
	p := h.new(t, cluster, true)
	n2 := wish(func(w *provisionrv1.Wish) {
		w.Hardware, w.Count = &provisionrv1.Hardware{Types: []string{"n2-standard-4", "e2-standard-4"}}, 3
	})
	h.SetQuota(gcetest.Region, "N2_CPUS", 11)
	offer, err := p.Resolve(t.Context(), n2)
	if err != nil || len(offer.Choices) != 3 || offer.Choices[0].Type != "e2-standard-4" || len(offer.Warnings) != 1 {
		t.Errorf("one family is short: %v, %v", offer, err)
	}
	h.SetQuota(gcetest.Region, "CPUS", 4)
	if _, err = p.Resolve(t.Context(), n2); provider.KindOf(err) != provider.QuotaExceeded || !strings.Contains(err.Error(), "N2_CPUS is limited to 11, of which 0 are used and 12 more are needed") {
		t.Errorf("both are short: %v", err)
	}
	// What the pool has counts for it.
	if _, err := p.Launch(t.Context(), request(t, p, "m-1", wish(func(w *provisionrv1.Wish) { w.Hardware = &provisionrv1.Hardware{Types: []string{"n2-standard-4"}} }))); err != nil {
		t.Fatal(err)
	}
	n2.Count = 2
	if offer, err := p.Resolve(t.Context(), n2); err != nil || offer.Choices[0].Type != "n2-standard-4" {
		t.Errorf("one of two is there: %v, %v", offer, err)
	}
	if err := p.Terminate(t.Context(), "m-1", ""); err != nil {
		t.Fatal(err)
	}
}

// TestPlacement is everything that a machine's attachment may have.
func TestPlacement(t *testing.T) {
	h := &harness{Server: gcetest.Start(t, gcetest.Config{})}
	p := h.new(t, cluster, true)
	network := &provisionrv1.Network{Spec: &provisionrv1.NetworkSpec{Id: gcetest.DualNetwork}}
	spec, err := p.EnsureNetwork(t.Context(), network)
	if err != nil || spec.Cidr != "10.10.0.0/20" || spec.Managed {
		t.Fatalf("network %v, %v", spec, err)
	}
	if _, err := p.EnsureNetwork(t.Context(), &provisionrv1.Network{Spec: &provisionrv1.NetworkSpec{Id: gcetest.DualNetwork, Cidr: "10.11.0.0/16"}}); provider.KindOf(err) != provider.Invalid {
		t.Errorf("another range: %v", err)
	}
	r := request(t, p, "m-1", wish(func(w *provisionrv1.Wish) {
		w.Network = network
		w.Placement = &provisionrv1.Placement{Ipv6: true, PublicAddress: true, Group: gcetest.Policy, Identity: "robot@test-project.iam.gserviceaccount.com"}
	}))
	i, err := p.Launch(t.Context(), r)
	if err != nil || !i.Address.Is4() || !i.Address6.Is6() {
		t.Fatalf("%+v, %v", i, err)
	}
	sent := h.Requested("pv-1")[0]
	if sent.Labels["team"] != "data-eng" || sent.Labels["provisionr-cluster"] != cluster || sent.Labels["provisionr-slot"] != "web-1" || sent.Labels["name"] != "web-1" {
		t.Errorf("labels %v", sent.Labels)
	}
	if sent.ServiceAccounts[0].Email != r.Request.Placement.Identity || len(sent.ResourcePolicies) != 1 || len(sent.NetworkInterfaces[0].AccessConfigs) != 1 {
		t.Errorf("sent %+v", sent)
	}
	keys := map[string]string{}
	for _, item := range sent.Metadata.Items {
		keys[item.Key] = *item.Value
	}
	if keys["user-data"] != string(r.UserData) || keys["serial-port-enable"] != "TRUE" || !strings.Contains(keys["startup-script"], "cloud-init init") || sent.Hostname != "web-1.provisionr.internal" {
		t.Errorf("metadata %v, hostname %s", keys, sent.Hostname)
	}
	if err := p.Terminate(t.Context(), "m-1", i.ProviderID); err != nil {
		t.Fatal(err)
	}
}
