package api

import "github.com/provisionr/provisionr/internal/errs"

// kernel refuses coordinated reboots of machines that are containers: a kernel that should be exchanged is the host's, and a
// container's reboot would not. What else is global to a host, package spec refuses.
func (q *inquiry) kernel(name string) {
	if q.kind(name) == "local" && q.pool.GetSpec().GetOsPolicy().GetReboot() == "coordinated" {
		q.fail(errs.Invalid, "spec.osPolicy.reboot: machines of provider %s share the kernel of their host: use a provider of kind qemu or a cloud", name)
	}
}
