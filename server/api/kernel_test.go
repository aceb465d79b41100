package api

import (
	"fmt"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// What is global to a host is refused for machines that share its kernel, by the plan and by apply.
func TestSharedKernel(t *testing.T) {
	c := newCluster(t)
	api := provisionrv1.NewManifestServiceClient(c.as(operator))
	for field, change := range map[string]func(*provisionrv1.PoolSpec){
		`spec.sysctl["vm.swappiness"]`: func(s *provisionrv1.PoolSpec) { s.Sysctl = map[string]string{"vm.swappiness": "1"} },
		"spec.modules":                 func(s *provisionrv1.PoolSpec) { s.Modules = []*provisionrv1.KernelModule{{Name: "br_netfilter"}} },
		"spec.swap":                    func(s *provisionrv1.PoolSpec) { s.Swap = &provisionrv1.Swap{SizeMib: 64} },
		"spec.filesystems": func(s *provisionrv1.PoolSpec) {
			s.Filesystems = []*provisionrv1.Filesystem{{Path: "/data", Device: "/dev/sdz"}}
		},
		"spec.osPolicy.selinux":  func(s *provisionrv1.PoolSpec) { s.OsPolicy = &provisionrv1.OsPolicy{Selinux: "enforcing"} },
		"spec.osPolicy.apparmor": func(s *provisionrv1.PoolSpec) { s.OsPolicy = &provisionrv1.OsPolicy{Apparmor: "disabled"} },
		"spec.osPolicy.reboot":   func(s *provisionrv1.PoolSpec) { s.OsPolicy = &provisionrv1.OsPolicy{Reboot: "coordinated"} },
	} {
		o := pool("web", 1)
		o.GetPool().Spec.Provider = "local"
		change(o.GetPool().Spec)
		objects := []*provisionrv1.Object{o}
		plan, err := api.Plan(t.Context(), &provisionrv1.PlanRequest{Objects: objects})
		if text := fmt.Sprint(err, plan); !strings.Contains(text, field) || !strings.Contains(text, "qemu") {
			t.Errorf("%s: plan: %s", field, text)
		}
		_, err = api.Apply(t.Context(), &provisionrv1.ApplyRequest{Objects: objects})
		if !errs.Is(errs.FromRPC(err), errs.Invalid) || !strings.Contains(err.Error(), field) || !strings.Contains(err.Error(), "qemu") {
			t.Errorf("%s: apply: %v", field, err)
		}
	}
	if c.store.Read().Pool("web") != nil {
		t.Error("the pool was made")
	}
	// What is a container's own is none of that, and a machine with a kernel of its own may have all of it.
	c.cloud("amazon", &fakeCloud{offer: twoChoices()})
	far := poolAt("far", 1, "amazon")
	far.GetPool().Spec.Modules = []*provisionrv1.KernelModule{{Name: "br_netfilter"}}
	far.GetPool().Spec.OsPolicy = &provisionrv1.OsPolicy{Reboot: "coordinated"}
	_, err := api.Apply(t.Context(), &provisionrv1.ApplyRequest{Objects: []*provisionrv1.Object{far}})
	c.ok(err)
	near := pool("near", 1)
	near.GetPool().Spec.Provider = "local"
	near.GetPool().Spec.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	near.GetPool().Spec.OsPolicy = &provisionrv1.OsPolicy{UnattendedUpgrades: "security", Reboot: "never"}
	plan, err := api.Plan(t.Context(), &provisionrv1.PlanRequest{Objects: []*provisionrv1.Object{near}})
	c.ok(err)
	if text := fmt.Sprint(plan.Changes[0].Errors); strings.Contains(text, "kernel") {
		t.Error(text)
	}
}
