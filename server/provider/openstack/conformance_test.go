//go:build openstack

package openstack

import (
	"net/http"
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
)

// testRate keeps the limiter out of the way but in use.
const testRate = 500

// network is the lab's. Its subnet gives out .240 to .250 by itself; the suite takes addresses from the beginning.
var network = &provisionrv1.Network{
	Metadata: &provisionrv1.Metadata{Name: "lab", Generation: 1},
	Spec:     &provisionrv1.NetworkSpec{Id: "provisionr-net", Subnets: []string{"provisionr-subnet"}, Cidr: "10.55.4.0/22", Managed: true},
}

func (l *lab) provider(t *testing.T, cluster, cloud string, transport http.RoundTripper) *Provider {
	t.Helper()
	return must[*Provider](t)(New(Config{
		ClusterID: cluster, Spec: &provisionrv1.OpenstackProvider{Cloud: cloud}, CallsPerSecond: testRate, HTTP: &http.Client{Transport: transport},
	}))
}

// TestConformance runs the contract's suite against a real control plane.
func TestConformance(t *testing.T) {
	l := newLab(t)
	w := &wire{}
	c := providertest.Config{
		Name:    "openstack",
		New:     func(t *testing.T, cluster string) provider.Provider { return l.provider(t, cluster, "provisionr", w) },
		Network: network,
		Many:    60, // in pages of 25
		Timeout: 2 * time.Minute,
		Typos: []providertest.Typo{
			{Name: "image", Change: func(w *provisionrv1.Wish) { w.Image = &provisionrv1.Image{Name: "debian-12-genric"} }, Nearest: "debian-12-generic"},
			{Name: "zone", Change: func(w *provisionrv1.Wish) { w.Placement = &provisionrv1.Placement{Zones: []string{"novo"}} }, Nearest: "nova"},
			{Name: "network", Change: func(w *provisionrv1.Wish) { w.Network.Spec.Id = "provisioner-net" }, Nearest: "provisionr-net"},
			{Name: "public network", Change: func(w *provisionrv1.Wish) {
				w.Placement = &provisionrv1.Placement{PublicAddress: true, PublicNetwork: "publc"}
			}, Nearest: "public"},
		},
		Cloud: providertest.Controls{
			Capacity: l.capacity(), Quota: l.quota, Fill: l.fill, Duplicate: l.server, Leftover: l.leftover, Sent: l.sent,
			Rules: l.rules, AddRule: l.addRule,
			Limited: func(p provider.Provider) uint64 { return p.(*Provider).limiter.Calls() },
			NoCredentials: func(t *testing.T, cluster string) provider.Provider {
				p := l.provider(t, cluster, "", w)
				p.getenv = func(string) string { return "" }
				return p
			},
			WrongCredentials: func(t *testing.T, cluster string) provider.Provider {
				p := l.provider(t, cluster, "", w)
				p.getenv = func(name string) string {
					return map[string]string{
						"OS_AUTH_URL": "http://127.0.0.1:5000/v3", "OS_USERNAME": "tester", "OS_PASSWORD": "not-the-password",
						"OS_PROJECT_NAME": "provisionr", "OS_USER_DOMAIN_NAME": "Default", "OS_PROJECT_DOMAIN_NAME": "Default",
					}[name]
				}
				return p
			},
			Secrets: []string{"tester-password", "not-the-password", "tester-secret"},
		},
		Without: map[providertest.Case]string{
			providertest.ResolveSpot: "OpenStack has no spot capacity: the wish is refused, or falls back to on-demand where it may",
		},
	}
	w.controls(&c.Cloud)
	providertest.Run(t, c)
}
