package api

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// maxLines bounds the machines that a plan names one by one.
const maxLines = 100

// consequences says what a change of a pool means for its machines.
func consequences(snapshot *state.Snapshot, before, after *provisionrv1.Pool, c *provisionrv1.Change) {
	name := after.GetMetadata().GetName()
	size := after.GetSpec().GetSize()
	have := make(map[uint32]*provisionrv1.Machine)
	for m := range snapshot.MachinesOf(name) {
		if m.GetStatus().GetPhase() != provisionrv1.Phase_PHASE_GONE {
			have[m.GetSpec().GetIndex()] = m
		}
	}
	respecified := before != nil && !proto.Equal(onlySize(before.GetSpec(), size), after.GetSpec())
	var replaced, deleted int
	line := func(verb string, index uint32) {
		c.Machines = append(c.Machines, fmt.Sprintf("%s %s-%d", verb, name, index))
	}
	for index := uint32(1); index <= size; index++ {
		m := have[index]
		switch {
		case m == nil:
			line("create", index)
		case state.Outdated(after, m) != "":
			line("replace", index)
			replaced++
		case respecified:
			line("converge", index)
		}
	}
	indexes := make([]uint32, 0, len(have))
	for index := range have {
		if index > size {
			indexes = append(indexes, index)
		}
	}
	slices.Sort(indexes)
	for _, index := range indexes {
		line("delete", index)
		deleted++
	}
	if deleted > 0 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("%d machines are deleted, with what is on their disks", deleted))
	}
	if replaced > 0 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("%d machines are replaced, with what is on their disks: the change cannot be made in place", replaced))
	}
	for _, secret := range state.SecretsOf(after) {
		if snapshot.Secret(secret) == nil {
			c.Warnings = append(c.Warnings, fmt.Sprintf("secret %s does not exist yet: what refers to it fails until it is set with `provisionr secret set %s`", secret, secret))
		}
	}
	if n := len(c.Machines); n > maxLines {
		c.Machines = append(c.Machines[:maxLines:maxLines], fmt.Sprintf("and %d more", n-maxLines))
	}
}

// onlySize returns the specification with another size; all else is shared.
func onlySize(s *provisionrv1.PoolSpec, size uint32) *provisionrv1.PoolSpec {
	out := &provisionrv1.PoolSpec{}
	// share fails for different types only.
	if err := share(out, s); err != nil {
		return s
	}
	out.Size = size
	return out
}
