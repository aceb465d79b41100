// Package converge brings a machine to its desired state and keeps it there.
//
// A [Runner] is given the resources of one desired state. It orders them by what they declare to come after, then for
// each one checks, applies where the check found a difference, and checks again. Its guarantees:
//   - The order is a topological one and stable: among resources that may come next, the one that was given first does.
//   - A resource that fails holds back only what comes after it, directly or not.
//   - A run over a machine that is as desired applies nothing and reports no change.
//   - What failed is tried again after 1 s, doubling up to 60 s; all is checked anew about every minute, and at once when
//     the desired state changes.
//   - At most one run is under way, and one run uses one desired state.
package converge
