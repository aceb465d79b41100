package host_test

import (
	"os"
	"testing"

	"github.com/provisionr/provisionr/agent/host"
)

// TestUnsynced has dd sync a device that cannot be synced: it fails, unless the call is never made.
func TestUnsynced(t *testing.T) {
	dd := host.Command{Path: "dd", Args: []string{"if=/dev/null", "of=/dev/null", "conv=fsync"}}
	for range 3 {
		for _, unsynced := range []bool{true, false} {
			dd.Unsynced = unsynced
			r, err := host.Processes{}.Run(t.Context(), dd)
			if err != nil {
				t.Fatal(err)
			}
			// The filter needs a privilege.
			if skipped := r.Exit == 0; skipped != (unsynced && os.Geteuid() == 0) {
				t.Errorf("unsynced %v: exit %d: %s", unsynced, r.Exit, r.Stderr)
			}
		}
	}
}
