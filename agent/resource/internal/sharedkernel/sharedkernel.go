// Package sharedkernel stands for what a container cannot have of its own: what is global to a host. A resource of such a
// thing is an error that says so, instead of a change to the host and all its other containers.
package sharedkernel

import (
	"context"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/internal/errs"
)

// Of reports whether the machine shares its kernel with others.
func Of(s *desired.State) bool { return s.Machine.GetSharedKernel() }

// Refused returns a resource that is an error of kind errs.Unsupported. Field is what the manifest calls it, as sysctl.vm.swappiness.
func Refused(name, field string) converge.Resource { return refused{name, field} }

type refused struct{ name, field string }

// Name implements converge.Resource.
func (r refused) Name() string { return r.name }

// Check implements converge.Resource.
func (r refused) Check(context.Context) (converge.Diff, error) {
	return converge.Diff{}, Error(r.field)
}

// Apply implements converge.Resource.
func (r refused) Apply(context.Context) error { return Error(r.field) }

// Error is what is said of a field that a machine with a shared kernel cannot have.
func Error(field string) error {
	return errs.New(errs.Unsupported, "cannot keep %s: the machine is a container and shares the kernel of its host", field).
		WithHint("use provider qemu, or take %s out of the manifest", field)
}
