//go:build machine

package interop

import (
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/provisionr/provisionr/dnsserver"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

// seed makes the probes the same each time.
const seed = 1

// maxShown bounds the differences without an explanation that the test prints.
const maxShown = 40

// differentialZones are what all servers have.
func differentialZones(t *testing.T) []*zone.Zone {
	t.Helper()
	signed := build(t, signedOrigin, zone.Presigned, forwardRecords(t, signedOrigin, hosts))
	return []*zone.Zone{
		build(t, plainOrigin, zone.Unsigned, forwardRecords(t, plainOrigin, hosts)), presign(t, newSigner(t, newKey(t, signedOrigin)), signed),
		build(t, reverseOrigin, zone.Unsigned, reverseRecords(t, reverseOrigin)), build(t, nibbleOrigin, zone.Unsigned, reverseRecords(t, nibbleOrigin)),
	}
}

// cookies returns the secret that all servers have.
func cookies(t *testing.T) func() [2][16]byte {
	t.Helper()
	var secrets [2][16]byte
	if _, err := hex.Decode(secrets[0][:], []byte(cookieSecret)); err != nil {
		t.Fatal(err)
	}
	return func() [2][16]byte { return secrets }
}

// TestDifferential has every difference between our answers and those of NSD and Knot explained, and every explanation
// needed.
func TestDifferential(t *testing.T) {
	zones := differentialZones(t)
	us := serve(t, zones, func(c *dnsserver.Config) { c.Readers, c.Cookies = 1, cookies(t) })
	servers := []server{
		{"ours", us.addr, time.Second}, {"nsd", nsd(t, zones).addr, 50 * time.Millisecond}, {"knot", knot(t, zones).addr, 50 * time.Millisecond},
	}
	g := generator{Rand: rand.New(rand.NewPCG(seed, seed))}
	g.questions(4000)
	g.malformed(60)
	used := make([]int, len(explanations))
	strange := map[string]int{}
	for _, tcp := range []bool{false, true} {
		outcomes := make([][]outcome, len(servers))
		var group sync.WaitGroup
		for i, s := range servers {
			group.Go(func() { outcomes[i] = askAll(t, s, g.probes, tcp) })
		}
		group.Wait()
		for i, p := range g.probes {
			ours := read(p, outcomes[0][i], tcp)
			for j, s := range servers[1:] {
				for _, d := range compare(p, tcp, s.name, ours, read(p, outcomes[j+1][i], tcp)) {
					at := slices.IndexFunc(explanations, func(e explanation) bool { return e.explains(d) })
					if at >= 0 {
						used[at]++
						continue
					}
					kind := p.kind + "/" + d.peer + "/" + d.field
					if strange[kind]++; strange[kind] == 1 && len(strange) <= maxShown {
						t.Error(d)
					}
				}
			}
		}
	}
	for kind, n := range strange {
		t.Errorf("%d differences without an explanation: %s", n, kind)
	}
	for i, e := range explanations {
		if used[i] == 0 {
			t.Errorf("nothing is explained by: %s: %s", e.asked, e.why)
		}
	}
	t.Logf("%d probes, differences by explanation: %v", len(g.probes), used)
}
