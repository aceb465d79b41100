package api

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func providerOf(name string, s *provisionrv1.ProviderSpec) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Provider{Provider: &provisionrv1.Provider{
		Metadata: &provisionrv1.Metadata{Name: name}, Spec: s,
	}}}
}

func qemu(owner string) *provisionrv1.ProviderSpec {
	return &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Qemu{Qemu: &provisionrv1.QemuProvider{Owner: owner}}}
}

// A provider that is bound to a host has an owner: the only member, or one that is named and exists.
func TestOwners(t *testing.T) {
	c := newCluster(t)
	api := provisionrv1.NewManifestServiceClient(c.as(admin))
	apply := func(o *provisionrv1.Object) error {
		_, err := api.Apply(t.Context(), &provisionrv1.ApplyRequest{Objects: []*provisionrv1.Object{proto.CloneOf(o)}})
		return errs.FromRPC(err)
	}
	c.ok(apply(providerOf("vms", qemu(""))))
	if owner := c.store.Read().Provider("vms").GetSpec().GetQemu().GetOwner(); owner != "a" {
		t.Errorf("the owner is %q", owner)
	}
	if err := apply(providerOf("other", qemu("nobody"))); !errs.Is(err, errs.Invalid) || !strings.Contains(errs.HintOf(err), "name one of a") {
		t.Errorf("%v", err)
	}
	c.member("b")
	if err := apply(providerOf("other", qemu(""))); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "spec.qemu.owner is missing") {
		t.Errorf("%v", err)
	}
	c.ok(apply(providerOf("other", qemu("b"))))
	// The same manifest again keeps the owner that was filled in.
	c.ok(apply(providerOf("vms", qemu(""))))
	if owner := c.store.Read().Provider("vms").GetSpec().GetQemu().GetOwner(); owner != "a" {
		t.Errorf("the owner is %q now", owner)
	}
	containers := &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Local{Local: &provisionrv1.LocalProvider{Owner: "a"}}}
	if err := apply(providerOf("containers", containers)); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second provider of containers on one host: %v", err)
	}
}

// Machines are never looked for where they are not.
func TestProviderWithMachinesStays(t *testing.T) {
	c := newCluster(t)
	c.cloud("amazon", &fakeCloud{offer: twoChoices()})
	api := provisionrv1.NewManifestServiceClient(c.as(admin))
	apply := func(o *provisionrv1.Object) error {
		_, err := api.Apply(t.Context(), &provisionrv1.ApplyRequest{Objects: []*provisionrv1.Object{o}})
		return errs.FromRPC(err)
	}
	moved := func() *provisionrv1.Object {
		o := cloudObjects("amazon")[0]
		o.GetProvider().Spec.GetAws().Region = "us-east-1"
		return o
	}
	c.commit(poolAt("web", 1, "amazon"))
	c.machine("web", 1)
	for _, o := range []*provisionrv1.Object{moved(), providerOf("amazon", qemu("a"))} {
		if err := apply(o); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "it has 1 machines") {
			t.Errorf("%v", err)
		}
	}
	slower := cloudObjects("amazon")[0]
	slower.GetProvider().Spec.CallsPerSecond = 3
	c.ok(apply(slower))
	c.commit(providerOf("unused", cloudObjects("unused")[0].GetProvider().Spec))
	unused := moved()
	unused.GetProvider().Metadata.Name = "unused"
	c.ok(apply(unused))
}
