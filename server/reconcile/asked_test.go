package reconcile_test

import (
	"slices"
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// A machine is ready once all that its pool asks for is proven, and not before.
func TestMissingProofIsWaitedFor(t *testing.T) {
	const converging, proven = provisionrv1.Phase_PHASE_CONVERGING, provisionrv1.ProofState_PROOF_STATE_PROVEN
	made := func(assumptions ...string) []string {
		s := newScene(1, func(p *provisionrv1.Pool) { p.Spec.Timezone = "UTC" }).machine(1, converging, nil).proof(1, 1, proven)
		for _, a := range assumptions {
			s.tx.Put(&provisionrv1.Proof{Machine: "m-web-1", Observer: "m-web-1", Assumption: a, State: proven, DesiredHash: "h"})
		}
		return s.plan(t, epoch.Add(10*time.Minute))
	}
	if got := made(); len(got) != 0 {
		t.Errorf("without the proof: %v", got)
	}
	if got := made("locale"); len(got) != 0 {
		t.Errorf("with another: %v", got)
	}
	if got := made("timezone"); !slices.Equal(got, []string{"move m-web-1 to ready: every assumption is proven"}) {
		t.Errorf("with it: %v", got)
	}
}
