package clouds

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/api/compute/v1"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/gce"
	"github.com/provisionr/provisionr/server/provider/gce/gcetest"
	"github.com/provisionr/provisionr/server/reconcile/reconciletest"
)

// google is Compute Engine.
type google struct {
	*gcetest.Server

	mu sync.Mutex
	// asked has the machine of each instance that was asked for, by name.
	asked map[string]string
}

// newGoogle returns what makes servers that share the vendor's model.
func newGoogle(t *testing.T) func(*testing.T, uint64) vendor {
	t.Helper()
	model, err := gcetest.LoadModel()
	if err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T, seed uint64) vendor {
		t.Helper()
		dice := rand.New(rand.NewPCG(seed, 0x6ce))
		server, err := gcetest.New(gcetest.Config{
			Model: model, Lag: 3 * time.Second, Pending: between(dice, 0, 2*time.Second), Running: between(dice, time.Second, 15*time.Second),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for _, v := range server.Violations() {
				t.Errorf("violation of the API: %s", v)
			}
		})
		return &google{Server: server, asked: map[string]string{}}
	}
}

func (g *google) provider(client *http.Client) (provider.Provider, error) {
	return gce.New(gce.Config{ClusterID: reconciletest.ClusterID, HTTP: client, Spec: &provisionrv1.GceProvider{
		Project: "test-project", Region: gcetest.Region, Unauthenticated: true, Compute: &provisionrv1.Endpoint{Url: "http://compute.test/compute/v1/"},
	}})
}

func (g *google) read(r *http.Request, body []byte) question {
	_, path, _ := strings.Cut(r.URL.Path, "/projects/")
	parts := strings.Split(strings.Trim(path, "/"), "/")[1:]
	zone := ""
	switch {
	case len(parts) > 2 && (parts[0] == "zones" || parts[0] == "regions"):
		zone, parts = parts[1], parts[2:]
	case len(parts) > 1 && (parts[0] == "global" || parts[0] == "aggregated"):
		parts = parts[1:]
	}
	collection := parts[0]
	q := question{action: collection + "." + strings.ToLower(r.Method), kind: reads}
	switch {
	case len(parts) > 2:
		q.action = collection + "." + parts[2]
	case collection == "operations":
	case r.Method == http.MethodGet && len(parts) == 1:
		q.action = collection + ".list"
		if collection == "instances" || collection == "disks" || collection == "firewalls" {
			q.kind = lists
		}
	case r.Method == http.MethodPost && collection == "instances":
		q.action, q.kind = "instances.insert", launches
		var wanted struct {
			Name   string
			Labels map[string]string
		}
		if json.Unmarshal(body, &wanted) == nil {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.asked[wanted.Name] = wanted.Labels["provisionr-machine"]
		}
	case r.Method == http.MethodDelete && collection == "instances":
		q.kind, q.ends = ends, []string{zone + "/" + parts[1]}
	case r.Method != http.MethodGet:
		q.kind = changes
	}
	return q
}

// refused is an answer as of https://cloud.google.com/compute/docs/troubleshooting/api-errors.
func refused(status int, reason, message string) answer {
	return text(status, "application/json; charset=UTF-8", fmt.Sprintf(
		`{"error":{"code":%d,"message":%q,"errors":[{"domain":"usageLimits","reason":%q,"message":%q}]}}`, status, message, reason, message))
}

func (g *google) throttled(_ question, dice *rand.Rand) answer {
	a := refused([]int{http.StatusForbidden, http.StatusTooManyRequests}[dice.IntN(2)], "rateLimitExceeded", "Rate Limit Exceeded")
	if dice.IntN(2) == 0 {
		a.header.Set("Retry-After", fmt.Sprint(1+dice.IntN(20)))
	}
	return a
}

func (g *google) unavailable(_ question, dice *rand.Rand) answer {
	if dice.IntN(3) == 0 {
		return page()
	}
	return refused(http.StatusServiceUnavailable, "backendError", "Backend Error")
}

func last(link string) string { return link[strings.LastIndex(link, "/")+1:] }

func (g *google) instances() []instance {
	var all []instance
	for _, i := range g.Instances() {
		x := instance{id: last(i.Zone) + "/" + i.Name, machine: i.Labels["provisionr-machine"], slot: i.Labels["provisionr-slot"]}
		x.running = i.Status == "RUNNING"
		x.live = x.running || i.Status == "PROVISIONING" || i.Status == "STAGING"
		all = append(all, x)
	}
	return all
}

func (g *google) made() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := map[string]int{}
	for name, machine := range g.asked {
		all[machine] += len(g.Requested(name))
	}
	return all
}

func (g *google) groups() map[string]bool {
	all := map[string]bool{}
	for _, f := range g.Firewalls() {
		for _, tag := range f.TargetTags {
			if pool, ok := strings.CutPrefix(tag, "provisionr-"+reconciletest.ClusterID+"-"); ok {
				all[pool] = true
			}
		}
	}
	return all
}

func (g *google) leftovers() []string {
	exists := map[string]bool{}
	for _, i := range g.Instances() {
		exists[i.SelfLink] = true
	}
	var all []string
	for _, d := range g.Disks() {
		if len(d.Users) == 0 || !exists[d.Users[0]] {
			all = append(all, d.Name)
		}
	}
	return all
}

// kill has the guest shut down, which stops the instance for good.
func (g *google) kill(t failer, i instance) {
	t.Helper()
	if !g.Change(last(i.id), func(i *compute.Instance) { i.Status = "TERMINATED" }) {
		t.Errorf("cannot kill: there is no %s", i.id)
	}
}
