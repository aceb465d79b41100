//go:build machine

package e2e

import (
	"os"
	"testing"

	"github.com/provisionr/provisionr/server/provider/local"
)

// TestMain is also the helper of the machines that tests boot without a server.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == local.InitCommand {
		os.Exit(local.Init(os.Args[2:]))
	}
	os.Exit(m.Run())
}
