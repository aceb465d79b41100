package api

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

func twoChoices() *provisionrv1.Offer {
	choice := func(kind, id string, spot bool) *provisionrv1.Choice {
		c := &provisionrv1.Choice{
			Image: "ami-1", ImageName: "debian-12-amd64-20261101", Type: id, Cpus: 2, MemoryMib: 8192, Zone: "eu-central-1a",
			Network: "vpc-1", Subnet: "subnet-1", PriceClass: kind, Spot: spot,
		}
		if spot {
			c.MaxPrice = "0.045"
		}
		return c
	}
	return &provisionrv1.Offer{
		Choices:  []*provisionrv1.Choice{choice("spot", "m7i.large", true), choice("spot", "m6i.large", true), choice("on-demand", "m7i.large", false)},
		Warnings: []string{"the quota of 64 cpus is nearly used"},
	}
}

func TestPlanTellsWhatTheProviderGives(t *testing.T) {
	c := newCluster(t)
	cloud := c.cloud("amazon", &fakeCloud{offer: twoChoices(), caps: provider.Capabilities{UserDataLimit: 16384}, lines: []string{"allow tcp 22 from 0.0.0.0/0", "- allow tcp 80 from 10.0.0.0/8"}})
	api := provisionrv1.NewManifestServiceClient(c.as(operator))
	objects := []*provisionrv1.Object{poolAt("web", 3, "amazon")}
	plan, err := api.Plan(t.Context(), &provisionrv1.PlanRequest{Objects: objects})
	c.ok(err)
	want := []string{
		"image: debian-12-amd64-20261101 (ami-1)",
		"type: m7i.large: 2 cpus, 8192 MiB, then m6i.large: 2 cpus, 8192 MiB",
		"price: spot up to 0.045 an hour, then on-demand",
		"network: vpc-1",
		"zone: eu-central-1a, subnet subnet-1",
		"firewall: + allow tcp 22 from 0.0.0.0/0",
		"firewall: - allow tcp 80 from 10.0.0.0/8",
	}
	change := plan.Changes[0]
	if diff := cmp.Diff(want, change.Provider); diff != "" || len(change.Errors) > 0 {
		t.Errorf("%s\n%v", diff, change.Errors)
	}
	if !strings.Contains(strings.Join(change.Warnings, "\n"), "nearly used") {
		t.Errorf("warnings: %v", change.Warnings)
	}
	w := cloud.wish
	if w.GetCount() != 3 || w.GetPool() != "web" || w.GetNetwork().GetSpec().GetId() != "vpc-1" || w.GetClusterId() != c.store.Read().Cluster().GetId() {
		t.Errorf("asked for %v", w)
	}
	_, err = api.Apply(t.Context(), &provisionrv1.ApplyRequest{Objects: objects})
	c.ok(err)

	// What does not change is not asked about.
	cloud.wish = nil
	plan, err = api.Plan(t.Context(), &provisionrv1.PlanRequest{Objects: objects})
	c.ok(err)
	if cloud.wish != nil || len(plan.Changes[0].Provider) > 0 {
		t.Errorf("asked about no change: %v", plan.Changes[0])
	}
}

func TestApplyRefusesWhatTheProviderCannot(t *testing.T) {
	c := newCluster(t)
	cloud := c.cloud("amazon", &fakeCloud{})
	api := provisionrv1.NewManifestServiceClient(c.as(operator))
	for _, tt := range []struct {
		name    string
		answer  fakeCloud
		refused errs.Kind
		says    string
	}{
		{"unknown type", fakeCloud{err: provider.Errorf(provider.Invalid, "no machine type m7.large; nearest: m7i.large")}, errs.Invalid, "nearest: m7i.large"},
		{"unknown network", fakeCloud{network: provider.Errorf(provider.NotFound, "no VPC vpc-9")}, errs.Invalid, "vpc-9"},
		{"no credentials", fakeCloud{err: provider.Errorf(provider.Unauthorized, "aws: no credentials in the default chain")}, errs.Invalid, "default chain"},
		{"quota", fakeCloud{err: provider.Errorf(provider.QuotaExceeded, "32 cpus allowed, 30 used, 6 needed")}, errs.Exhausted, "32 cpus"},
		{"large user-data", fakeCloud{offer: twoChoices(), caps: provider.Capabilities{UserDataLimit: 1000}}, errs.Invalid, "the provider takes 1000"},
		{"out of capacity", fakeCloud{err: provider.Errorf(provider.NoCapacity, "none now")}, "", "none now"},
		{"throttled", fakeCloud{err: provider.Errorf(provider.RateLimited, "too fast")}, "", "too fast"},
		{"unreachable", fakeCloud{err: provider.Errorf(provider.Unknown, "connection refused")}, "", "unknown: connection refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			*cloud = tt.answer
			objects := []*provisionrv1.Object{poolAt("p-"+strings.ReplaceAll(tt.name, " ", "-"), 3, "amazon")}
			plan, err := api.Plan(t.Context(), &provisionrv1.PlanRequest{Objects: objects})
			c.ok(err)
			texts := plan.Changes[0].Warnings
			if tt.refused != "" {
				texts = plan.Changes[0].Errors
			}
			if !strings.Contains(strings.Join(texts, "\n"), tt.says) {
				t.Errorf("plan: %v", plan.Changes[0])
			}
			_, err = api.Apply(t.Context(), &provisionrv1.ApplyRequest{Objects: objects})
			err = errs.FromRPC(err)
			if tt.refused == "" {
				c.ok(err)
			} else if !errs.Is(err, tt.refused) || !strings.Contains(err.Error(), tt.says) || errs.HintOf(err) == "" {
				t.Errorf("apply: %v", err)
			}
			if made := c.store.Read().Pool(objects[0].GetPool().Metadata.Name) != nil; made != (tt.refused == "") {
				t.Errorf("in the state: %v", made)
			}
		})
	}
}

// A pool that is to be smaller needs no quota.
func TestScalingDownIgnoresTheQuota(t *testing.T) {
	c := newCluster(t)
	cloud := c.cloud("amazon", &fakeCloud{offer: twoChoices()})
	api := provisionrv1.NewManifestServiceClient(c.as(operator))
	apply := func(size uint32) error {
		_, err := api.Apply(t.Context(), &provisionrv1.ApplyRequest{Objects: []*provisionrv1.Object{poolAt("web", size, "amazon")}})
		return err
	}
	c.ok(apply(2))
	c.machine("web", 1)
	c.machine("web", 2)
	*cloud = fakeCloud{err: provider.Errorf(provider.QuotaExceeded, "all used")}
	c.ok(apply(1))
	if err := errs.FromRPC(apply(3)); !errs.Is(err, errs.Exhausted) {
		t.Errorf("scaled up: %v", err)
	}
}

// A provider and a network of the same manifest are asked as they will be.
func TestPlanOfNewProvider(t *testing.T) {
	c := newCluster(t)
	trial := c.clouds.set("trial", &fakeCloud{offer: twoChoices()})
	api := provisionrv1.NewManifestServiceClient(c.as(admin))
	plan, err := api.Plan(t.Context(), &provisionrv1.PlanRequest{Objects: append(cloudObjects("new"), poolAt("web", 1, "new"))})
	c.ok(err)
	if change := plan.Changes[2]; len(change.Provider) == 0 || trial.wish.GetNetwork().GetMetadata().GetName() != "new" || len(c.clouds.tried) != 1 {
		t.Errorf("%v", change)
	}
	vms := []*provisionrv1.Object{
		{Kind: &provisionrv1.Object_Provider{Provider: &provisionrv1.Provider{
			Metadata: &provisionrv1.Metadata{Name: "vms"}, Spec: &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Qemu{Qemu: &provisionrv1.QemuProvider{}}},
		}}},
		{Kind: &provisionrv1.Object_Network{Network: &provisionrv1.Network{
			Metadata: &provisionrv1.Metadata{Name: "vms"}, Spec: &provisionrv1.NetworkSpec{Provider: "vms", Cidr: "10.89.0.0/24", Managed: true},
		}}},
		poolAt("vm", 1, "vms"),
	}
	plan, err = api.Plan(t.Context(), &provisionrv1.PlanRequest{Objects: vms})
	c.ok(err)
	if w := plan.Changes[2].Warnings; len(w) != 1 || !strings.Contains(w[0], "not applied yet") {
		t.Errorf("%v", plan.Changes[2])
	}
}

// A provider that does not answer leaves a plan without its part, after a bounded time.
func TestSilentProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &inquiry{change: &provisionrv1.Change{Name: "web"}, pool: poolAt("web", 1, "amazon").GetPool()}
		ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
		defer cancel()
		q.resolve(ctx, &fakeCloud{}, nil, "c")
		if w := q.change.Warnings; len(w) != 1 || !strings.Contains(w[0], "did not answer within 15s") || len(q.change.Errors) > 0 {
			t.Errorf("%v", q.change)
		}
	})
}
