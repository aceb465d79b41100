package gce_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/api/compute/v1"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/gce"
	"github.com/provisionr/provisionr/server/provider/gce/gcetest"
	"github.com/provisionr/provisionr/server/provider/providertest"
)

const tokenSecret = "ya29.secret-of-the-test"

const zoneA = gcetest.Region + "-a"

// harness pulls the strings of a server for the suite.
type harness struct {
	*gcetest.Server
	// http is on the way to the server; nil for nothing.
	http *http.Client

	mu         sync.Mutex
	skip, fail int
	lose       []string
}

func newHarness(t *testing.T, c gcetest.Config) *harness {
	// Callers without a token are those that want to be unauthenticated; no token is good.
	c.Auth = func(token string) int {
		if token == "" {
			return 0
		}
		return 401
	}
	h := &harness{Server: gcetest.Start(t, c)}
	h.SetFault(h.fault)
	return h
}

func (h *harness) fault(c gcetest.Call) (f gcetest.Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != 0 {
		if h.skip > 0 {
			h.skip--
		} else {
			h.fail--
			f.Before = &gcetest.Answer{Status: 503}
		}
	}
	if slices.Contains(h.lose, c.Method) {
		h.lose, f.Drop = nil, true
	}
	return f
}

func (h *harness) spec(unauthenticated bool) *provisionrv1.GceProvider {
	return &provisionrv1.GceProvider{
		Project: "test-project", Region: gcetest.Region, Unauthenticated: unauthenticated, Compute: &provisionrv1.Endpoint{Url: h.URL},
	}
}

func (h *harness) new(t *testing.T, cluster string, unauthenticated bool) *gce.Provider {
	t.Helper()
	p, err := gce.New(gce.Config{ClusterID: cluster, Spec: h.spec(unauthenticated), HTTP: h.http, Limiter: provider.NewLimiter(provider.Bucket{}, nil), Sweep: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func labelsOf(cluster, machine string) map[string]string {
	return map[string]string{"provisionr-cluster": cluster, "provisionr-machine": machine, "provisionr-pool": "pt"}
}

func instanceOf(name, machineType string, labels map[string]string) compute.Instance {
	return compute.Instance{
		Name: name, MachineType: machineType, Labels: labels, NetworkInterfaces: []*compute.NetworkInterface{{}},
		Disks: []*compute.AttachedDisk{{Boot: true, AutoDelete: true, InitializeParams: &compute.AttachedDiskInitializeParams{
			SourceImage: "projects/debian-cloud/global/images/" + gcetest.NewestImage, Labels: labels,
		}}},
	}
}

func (h *harness) filled(t *testing.T, cluster string, n int) (ids []string, empty func()) {
	for i := range n {
		id := fmt.Sprintf("m-fill%012d", i)
		ids = append(ids, id)
		zone := gcetest.Region + "-" + string("abc"[i%3])
		if err := h.AddInstance(zone, instanceOf("pv-"+id[2:], "zones/"+zone+"/machineTypes/e2-micro", labelsOf(cluster, id))); err != nil {
			t.Fatal(err)
		}
	}
	empty = func() { h.Remove(map[string]string{"provisionr-cluster": cluster}) }
	t.Cleanup(empty)
	return ids, empty
}

// sent reads the choice off the request's body.
func (h *harness) sent(t *testing.T, machineID string) *provisionrv1.Choice {
	all := h.Requested("pv-" + strings.TrimPrefix(machineID, "m-"))
	if len(all) == 0 {
		t.Fatalf("machine %s was not asked for", machineID)
	}
	i := all[len(all)-1]
	parts := strings.Split(i.MachineType, "/")
	return &provisionrv1.Choice{
		Image: i.Disks[0].InitializeParams.SourceImage, Type: parts[3], Zone: parts[1], Network: i.NetworkInterfaces[0].Network,
		Subnet: i.NetworkInterfaces[0].Subnetwork, Groups: i.Tags.Items, Spot: i.Scheduling != nil && i.Scheduling.ProvisioningModel == "SPOT",
	}
}

// rules reads a group off the firewall rules that target its tag. Without the two denials there is no group.
func (h *harness) rules(_ *testing.T, cluster, pool string) (rules []provider.FirewallRule, ok bool) {
	denied := 0
	for _, f := range h.Firewalls() {
		if !slices.Equal(f.TargetTags, []string{"provisionr-" + cluster + "-" + pool}) {
			continue
		}
		if len(f.Denied) == 1 && f.Denied[0].IPProtocol == "all" && f.Priority == 1001 {
			denied++
		}
		var sources []provider.FirewallRule
		for _, r := range f.SourceRanges {
			sources = append(sources, provider.FirewallRule{From: netip.MustParsePrefix(r)})
		}
		for _, tag := range f.SourceTags {
			sources = append(sources, provider.FirewallRule{Pool: strings.TrimPrefix(tag, "provisionr-"+cluster+"-")})
		}
		for _, r := range sources {
			for _, a := range f.Allowed {
				r.Protocol = a.IPProtocol
				for _, ports := range append(slices.Clone(a.Ports), "")[:max(1, len(a.Ports))] {
					r.First, r.Last = 0, 0
					if n, _ := fmt.Sscanf(ports, "%d-%d", &r.First, &r.Last); n == 1 {
						r.Last = r.First
					}
					rules = append(rules, r)
				}
			}
		}
	}
	return rules, denied == 2
}

func (h *harness) addRule(t *testing.T, cluster, pool string, rule provider.FirewallRule) {
	const name = "made-by-hand"
	h.ChangeFirewall(name, func(f *compute.Firewall) *compute.Firewall {
		f.TargetTags, f.SourceRanges = []string{"provisionr-" + cluster + "-" + pool}, []string{rule.From.String()}
		f.Allowed = []*compute.FirewallAllowed{{IPProtocol: rule.Protocol, Ports: []string{fmt.Sprint(rule.First)}}}
		return f
	})
}

// serviceAccount writes a key file as the vendor's console makes it, and points the default chain to it. Its issuer of
// tokens answers with this status.
func serviceAccount(t *testing.T, status int) {
	t.Helper()
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"access_token": "`+tokenSecret+`", "token_type": "Bearer", "expires_in": 3600, "error": "invalid_grant"}`)
	}))
	t.Cleanup(issuer.Close)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "test-project", "private_key_id": "0123456789abcdef", "client_email": "test@test-project.iam.gserviceaccount.com",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "client_id": "1", "token_uri": issuer.URL,
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
}

func TestConformance(t *testing.T) { providertest.Run(t, newHarness(t, gcetest.Config{}).suite()) }

// suite is the configuration of the suite for this server.
func (h *harness) suite() providertest.Config {
	return providertest.Config{
		Name:    "gce",
		New:     func(t *testing.T, cluster string) provider.Provider { return h.new(t, cluster, true) },
		Network: &provisionrv1.Network{Metadata: &provisionrv1.Metadata{Name: "gce", Generation: 1}, Spec: &provisionrv1.NetworkSpec{Provider: "gce"}},
		Typos: []providertest.Typo{
			{Name: "zone", Change: func(w *provisionrv1.Wish) {
				w.Placement = &provisionrv1.Placement{Zones: []string{gcetest.Region + "-d"}}
			}, Nearest: zoneA},
			{Name: "image", Change: func(w *provisionrv1.Wish) { w.Image = &provisionrv1.Image{Id: "golden1"} }, Nearest: "golden-1"},
			{Name: "image name", Change: func(w *provisionrv1.Wish) { w.Image = &provisionrv1.Image{Name: "goldn-*"} }, Nearest: "golden-1"},
			{Name: "image family", Change: func(w *provisionrv1.Wish) {
				w.Image = &provisionrv1.Image{Family: "debian12", Owner: "debian-cloud"}
			}, Nearest: "debian-12"},
			{Name: "release", Change: func(w *provisionrv1.Wish) { w.Os.Release = "13" }, Nearest: "debian-12"},
			{Name: "network", Change: func(w *provisionrv1.Wish) { w.Network.Spec.Id = "defaul" }, Nearest: "default"},
			{Name: "subnetwork", Change: func(w *provisionrv1.Wish) { w.Network.Spec.Subnets = []string{"defualt"} }, Nearest: "default"},
			{Name: "disk type", Change: func(w *provisionrv1.Wish) {
				w.Hardware = &provisionrv1.Hardware{RootDisk: &provisionrv1.Disk{Type: "pd-sdd"}}
			}, Nearest: "pd-ssd"},
			{Name: "placement group", Change: func(w *provisionrv1.Wish) { w.Placement = &provisionrv1.Placement{Group: "sprad"} }, Nearest: gcetest.Policy},
		},
		Timeout: 30 * time.Second,
		Cloud: providertest.Controls{
			Capacity: func(t *testing.T, more int) {
				h.SetCapacity(zoneA, more)
				t.Cleanup(func() { h.SetCapacity(zoneA, -1) })
			},
			Quota: func(t *testing.T, more int) {
				h.SetQuota(gcetest.Region, "INSTANCES", h.Usage(gcetest.Region, "INSTANCES")+float64(more))
				t.Cleanup(func() { h.SetQuota(gcetest.Region, "INSTANCES", -1) })
			},
			Throttle: func(_ *testing.T, calls int, after time.Duration) { h.Throttle(calls, after) },
			LoseResponse: func(_ *testing.T, op providertest.Op) {
				h.mu.Lock()
				defer h.mu.Unlock()
				h.lose = map[providertest.Op][]string{
					providertest.LaunchOp: {"compute.instances.insert"}, providertest.TerminateOp: {"compute.instances.delete"},
					providertest.FirewallOp: {"compute.firewalls.insert", "compute.firewalls.patch", "compute.firewalls.delete"},
				}[op]
			},
			Fail: func(_ *testing.T, skip, calls int) {
				h.mu.Lock()
				defer h.mu.Unlock()
				h.skip, h.fail = skip, calls
			},
			Watch: func(_ *testing.T, f func()) func() {
				h.SetWatch(func(gcetest.Call) { f() })
				return func() { h.SetWatch(nil) }
			},
			Calls: func() uint64 { return uint64(len(h.Calls())) },
			Limited: func(p provider.Provider) uint64 {
				own, ok := p.(*gce.Provider)
				if !ok {
					return 0
				}
				return own.Limiter().Calls()
			},
			Fill: h.filled,
			Duplicate: func(t *testing.T, cluster, machineID string) {
				name := "pv-" + strings.TrimPrefix(machineID, "m-")
				free := strings.Split("cba", "")
				for _, i := range h.Instances() {
					if i.Name == name {
						free = slices.DeleteFunc(free, func(letter string) bool { return strings.HasSuffix(i.Zone, "-"+letter) })
					}
				}
				zone := gcetest.Region + "-" + free[0]
				if err := h.AddInstance(zone, instanceOf(name, "zones/"+zone+"/machineTypes/e2-micro", labelsOf(cluster, machineID))); err != nil {
					t.Fatal(err)
				}
			},
			Leftover: func(_ *testing.T, cluster, machineID string) {
				h.AddDisk(zoneA, "pv-"+strings.TrimPrefix(machineID, "m-")+"-0", labelsOf(cluster, machineID))
			},
			Sent: h.sent, Rules: h.rules, AddRule: h.addRule,
			NoCredentials: func(t *testing.T, cluster string) provider.Provider {
				t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(t.TempDir(), "none.json"))
				return h.new(t, cluster, false)
			},
			WrongCredentials: func(t *testing.T, cluster string) provider.Provider {
				serviceAccount(t, 200)
				return h.new(t, cluster, false)
			},
			Secrets: []string{"PRIVATE KEY", "private_key", tokenSecret},
		},
	}
}
