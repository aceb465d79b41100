//go:build machine

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

const (
	crashRounds = 10
	// appliers run at once, each with manifests of batchPools pools, their network and their zone.
	appliers   = 4
	batchPools = 6
)

// batch is a manifest of objects that refer to each other, and their names as `get -o name` prints them.
func batch(name string, number int) (manifest string, pools []string) {
	var b strings.Builder
	fmt.Fprintf(&b, `
apiVersion: provisionr/v1
kind: Zone
metadata: {name: %[1]s}
spec: {domain: %[1]s.example}
---
apiVersion: provisionr/v1
kind: Network
metadata: {name: %[1]s}
spec: {cidr: 10.%[2]d.%[3]d.0/24, provider: nobody}
`, name, 64+number>>8, number&0xff)
	for i := range batchPools {
		pool := fmt.Sprintf("%s-p%d", name, i)
		pools = append(pools, pool)
		fmt.Fprintf(&b, `---
apiVersion: provisionr/v1
kind: Pool
metadata: {name: %s}
spec: {size: 0, zone: %s, network: %s, provider: nobody, os: {distribution: debian, release: "12"}}
`, pool, name, name)
	}
	return b.String(), pools
}

// TestCrash kills the server in the midst of applies, again and again: each is whole or absent, and whole where the
// command succeeded.
func TestCrash(t *testing.T) {
	d := startServers(t, "", 1, 18500)
	d.pv("apply", "--yes", "-f", d.write("provider.yaml", `
apiVersion: provisionr/v1
kind: Provider
metadata: {name: nobody}
spec: {static: {}}
`))
	type attempt struct {
		name         string
		pools        []string
		acknowledged bool
	}
	var all []*attempt
	for round := range crashRounds {
		done := make(chan *attempt)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for a := range appliers {
			running.Go(func() {
				for i := 0; ; i++ {
					name := fmt.Sprintf("r%da%di%d", round, a, i)
					manifest, pools := batch(name, (round*appliers+a)<<6|i&63)
					path := d.write(name+".yaml", manifest)
					// Left alone it would wait for the server to come back, and try again.
					cmd := exec.CommandContext(ctx, binary("provisionr"), "apply", "--yes", "--no-wait", "-f", path)
					cmd.Env = d.env()
					err := cmd.Run()
					done <- &attempt{name: name, pools: pools, acknowledged: err == nil}
					if ctx.Err() != nil {
						return
					}
				}
			})
		}
		// So many applies end, and the others are somewhere in their midst.
		for range 1 + rand.IntN(2*appliers) {
			all = append(all, <-done)
		}
		d.kill()
		stop()
		go func() { running.Wait(); close(done) }()
		for a := range done {
			all = append(all, a)
		}
		d.start()
		pools, zones, networks := d.pv("get", "pools", "-o", "name"), d.pv("get", "zones", "-o", "name"), d.pv("get", "networks", "-o", "name")
		for _, a := range all {
			n := strings.Count(zones+"\n", a.name+"\n") + strings.Count(networks+"\n", a.name+"\n")
			for _, pool := range a.pools {
				n += strings.Count(pools+"\n", pool+"\n")
			}
			if whole := len(a.pools) + 2; n != whole && (n != 0 || a.acknowledged) {
				t.Errorf("round %d: %s has %d of %d objects (acknowledged: %v)", round, a.name, n, whole, a.acknowledged)
			}
		}
	}
	acknowledged := 0
	for _, a := range all {
		if a.acknowledged {
			acknowledged++
		}
	}
	if acknowledged == 0 || acknowledged == len(all) {
		t.Errorf("%d of %d applies succeeded: no crash was within one", acknowledged, len(all))
	}
	t.Logf("%d of %d applies succeeded", acknowledged, len(all))
}
