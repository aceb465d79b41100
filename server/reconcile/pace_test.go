package reconcile_test

import (
	"context"
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// TestListsArePaced bounds the pages that lists take: with 50 machines on pages of 5, one in three seconds while nothing
// changes, two in a second while much does.
func TestListsArePaced(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.cloud.Capabilities.ListPage = 5
		w.Start(ctx, nil)
		began := time.Now()
		w.Pool("web", 50)
		w.Until("fifty machines are ready", w.Ready("web", 50))
		if pages, most := w.cloud.Calls("list"), 2*time.Since(began).Seconds()+20; float64(pages) > most {
			t.Errorf("%d pages in %s while machines came", pages, time.Since(began))
		}
		time.Sleep(time.Minute)
		before := w.cloud.Calls("list")
		time.Sleep(10 * time.Minute)
		if pages := w.cloud.Calls("list") - before; pages > 210 || pages < 150 {
			t.Errorf("%d pages in ten minutes without change", pages)
		}
	})
}

// TestAdoptedMachineWaits keeps a machine that nobody has had join for as long as it takes.
func TestAdoptedMachineWaits(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.cloud.Capabilities.Adopted = true
		w.Break(func(string) bool { return true })
		w.Start(ctx, nil)
		w.Pool("web", 1)
		w.Until("it waits", func(s *state.Snapshot) bool {
			return s.MachineNamed("web-1").GetStatus().GetReason() == "waiting: provisionr machine adopt web-1"
		})
		m := w.Read().MachineNamed("web-1")
		if m.GetStatus().GetPhase() != provisionrv1.Phase_PHASE_BOOTING || m.GetStatus().GetDeadline() != nil {
			t.Errorf("machine %v", m.GetStatus())
		}
	})
}
