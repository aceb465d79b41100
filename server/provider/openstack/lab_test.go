//go:build openstack

package openstack

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/limits"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/quotasets"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/config"
	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// lab is the control plane that tools/openstack has started, seen by its administrator and by the project's user. It
// shares no code with the provider but the names that things must have.
type lab struct {
	admin, placement, compute, network, image *gophercloud.ServiceClient
	project                                   string
}

func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func newLab(t *testing.T) *lab {
	t.Helper()
	client := func(cloud string) (*gophercloud.ProviderClient, gophercloud.EndpointOpts) {
		auth, endpoint, _, err := clouds.Parse(clouds.WithCloudName(cloud))
		if err != nil {
			t.Fatal(err)
		}
		auth.AllowReauth = true
		return must[*gophercloud.ProviderClient](t)(config.NewProviderClient(t.Context(), auth)), endpoint
	}
	admin, endpoint := client("admin")
	tester, _ := client("provisionr")
	service := must[*gophercloud.ServiceClient](t)
	l := &lab{
		admin: service(openstack.NewComputeV2(admin, endpoint)), placement: service(openstack.NewPlacementV1(admin, endpoint)),
		compute: service(openstack.NewComputeV2(tester, endpoint)), network: service(openstack.NewNetworkV2(tester, endpoint)),
		image: service(openstack.NewImageV2(tester, endpoint)),
	}
	l.placement.Microversion = "1.28"
	identity := service(openstack.NewIdentityV3(admin, endpoint))
	found := must[[]projects.Project](t)(pages(t.Context(), projects.List(identity, projects.ListOpts{Name: "provisionr"}), projects.ExtractProjects))
	l.project = found[0].ID
	return l
}

// quota lets the project have more servers.
func (l *lab) quota(t *testing.T, more int) {
	used := must[*limits.Limits](t)(limits.Get(t.Context(), l.compute, limits.GetOpts{}).Extract()).Absolute.TotalInstancesUsed
	l.instances(t.Context(), t, used+more)
	t.Cleanup(func() { l.instances(context.WithoutCancel(t.Context()), t, -1) })
}

func (l *lab) instances(ctx context.Context, t *testing.T, limit int) {
	if _, err := quotasets.Update(ctx, l.admin, l.project, quotasets.UpdateOpts{Instances: &limit}).Extract(); err != nil {
		t.Error(err)
	}
}

// capacity leaves room for more processors on the one host, by claims in Placement that belong to nothing.
func (l *lab) capacity() func(t *testing.T, more int) {
	var mu sync.Mutex
	var claims []string
	release := func(ctx context.Context, t *testing.T) {
		for _, id := range claims {
			if _, err := l.placement.Delete(ctx, l.placement.ServiceURL("allocations", id), nil); err != nil {
				t.Error(err)
			}
		}
		claims = nil
	}
	return func(t *testing.T, more int) {
		mu.Lock()
		defer mu.Unlock()
		release(t.Context(), t)
		var hosts struct {
			Providers []struct {
				UUID string `json:"uuid"`
			} `json:"resource_providers"`
		}
		l.get(t, l.placement.ServiceURL("resource_providers"), &hosts)
		host := hosts.Providers[0].UUID
		var stock struct {
			Inventories map[string]struct {
				Total    int     `json:"total"`
				Reserved int     `json:"reserved"`
				MaxUnit  int     `json:"max_unit"`
				Ratio    float64 `json:"allocation_ratio"`
			} `json:"inventories"`
		}
		l.get(t, l.placement.ServiceURL("resource_providers", host, "inventories"), &stock)
		var used struct {
			Usages map[string]int `json:"usages"`
		}
		l.get(t, l.placement.ServiceURL("resource_providers", host, "usages"), &used)
		cpus := stock.Inventories["VCPU"]
		left := int(float64(cpus.Total-cpus.Reserved)*cpus.Ratio) - used.Usages["VCPU"] - more
		for left > 0 {
			some, id := min(left, cpus.MaxUnit), uuid()
			body := map[string]any{
				"allocations": map[string]any{host: map[string]any{"resources": map[string]int{"VCPU": some}}},
				"project_id":  l.project, "user_id": l.project, "consumer_generation": nil,
			}
			if _, err := l.placement.Put(t.Context(), l.placement.ServiceURL("allocations", id), body, nil, &gophercloud.RequestOpts{OkCodes: []int{204}}); err != nil {
				t.Fatal(err)
			}
			claims, left = append(claims, id), left-some
		}
		t.Cleanup(func() {
			mu.Lock()
			defer mu.Unlock()
			release(context.WithoutCancel(t.Context()), t)
		})
	}
}

func (l *lab) get(t *testing.T, url string, into any) {
	t.Helper()
	if _, err := l.placement.Get(t.Context(), url, into, nil); err != nil {
		t.Fatal(err)
	}
}

func uuid() string {
	b := make([]byte, 16)
	rand.Read(b)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func machineID() string { return "m-" + uuid()[:8] + "00000000" }

// server makes a server as the provider would have, without a network.
func (l *lab) server(t *testing.T, cluster, machine string) {
	client := *l.compute
	client.Microversion = "2.52"
	all := must[[]images.Image](t)(pages(t.Context(), images.List(l.image, images.ListOpts{Name: "debian-12-generic"}), images.ExtractImages))
	kinds := must[[]flavors.Flavor](t)(pages(t.Context(), flavors.ListDetail(l.compute, flavors.ListOpts{}), flavors.ExtractFlavors))
	tiny := slices.IndexFunc(kinds, func(f flavors.Flavor) bool { return f.Name == "m1.tiny" })
	_, err := servers.Create(t.Context(), &client, servers.CreateOpts{
		Name: "lab-" + machine, ImageRef: all[0].ID, FlavorRef: kinds[tiny].ID, Networks: "none",
		Metadata: map[string]string{"provisionr-cluster": cluster, "provisionr-machine": machine, "provisionr-pool": "pt"},
		Tags:     []string{"provisionr-cluster=" + cluster, "provisionr-machine=" + machine},
	}, nil).Extract()
	if err != nil {
		t.Fatal(err)
	}
}

// fill makes servers, a few at a time.
func (l *lab) fill(t *testing.T, cluster string, n int) (ids []string, empty func()) {
	for range n {
		ids = append(ids, machineID())
	}
	var wait sync.WaitGroup
	work := make(chan string)
	for range 4 {
		wait.Go(func() {
			for id := range work {
				l.server(t, cluster, id)
			}
		})
	}
	for _, id := range ids {
		work <- id
	}
	close(work)
	wait.Wait()
	return ids, func() {
		client := *l.compute
		client.Microversion = "2.52"
		ctx := context.WithoutCancel(t.Context())
		deadline := time.Now().Add(3 * time.Minute)
		for {
			all, err := pages(ctx, servers.List(&client, servers.ListOpts{Tags: "provisionr-cluster=" + cluster}), servers.ExtractServers)
			if err != nil || len(all) == 0 || time.Now().After(deadline) {
				if err != nil || len(all) > 0 {
					t.Errorf("%d servers are left: %v", len(all), err)
				}
				return
			}
			for _, server := range all {
				if server.TaskState != "deleting" {
					if err := servers.Delete(ctx, &client, server.ID).ExtractErr(); err != nil && !gophercloud.ResponseCodeIs(err, 404) {
						t.Error(err)
					}
				}
			}
		}
	}
}

// leftover makes the port of a launch that was interrupted.
func (l *lab) leftover(t *testing.T, cluster, machine string) {
	net := must[[]networks.Network](t)(pages(t.Context(), networks.List(l.network, networks.ListOpts{Name: "provisionr-net"}), networks.ExtractNetworks))
	_, err := ports.Create(t.Context(), l.network, ports.CreateOpts{
		NetworkID: net[0].ID, Name: "pv-" + machine, Description: "provisionr-cluster=" + cluster,
	}).Extract()
	if err != nil {
		t.Fatal(err)
	}
}

// sent is what Nova and Neutron say that they were asked for.
func (l *lab) sent(t *testing.T, machine string) *provisionrv1.Choice {
	client := *l.compute
	client.Microversion = "2.26" // the last ones that tell the flavor's id are before 2.47
	found := must[[]servers.Server](t)(pages(t.Context(), servers.List(&client, servers.ListOpts{Tags: "provisionr-machine=" + machine}), servers.ExtractServers))
	if len(found) != 1 {
		t.Fatalf("machine %s has %d servers", machine, len(found))
	}
	server := found[0]
	image, _ := server.Image["id"].(string)
	flavor, _ := server.Flavor["id"].(string)
	plugged := must[[]ports.Port](t)(pages(t.Context(), ports.List(l.network, ports.ListOpts{Name: "pv-" + machine}), ports.ExtractPorts))
	port := plugged[0]
	return &provisionrv1.Choice{
		Image: image, Type: flavor, Zone: server.AvailabilityZone, Network: port.NetworkID, Subnet: port.FixedIPs[0].SubnetID, Groups: port.SecurityGroups,
	}
}

func (l *lab) group(t *testing.T, cluster, pool string) (groups.SecGroup, map[string]string, bool) {
	all := must[[]groups.SecGroup](t)(pages(t.Context(), groups.List(l.network, groups.ListOpts{}), groups.ExtractGroups))
	names := map[string]string{}
	for _, g := range all {
		names[g.ID] = g.Name
	}
	i := slices.IndexFunc(all, func(g groups.SecGroup) bool { return g.Name == "provisionr-"+cluster+"-"+pool })
	if i < 0 {
		return groups.SecGroup{}, names, false
	}
	return all[i], names, true
}

// rules reads the inbound rules. One from a pool is two of Neutron's, for each version of IP.
func (l *lab) rules(t *testing.T, cluster, pool string) ([]provider.FirewallRule, bool) {
	group, names, ok := l.group(t, cluster, pool)
	var found []provider.FirewallRule
	for _, r := range group.Rules {
		if r.Direction != "ingress" {
			continue
		}
		f := provider.FirewallRule{Protocol: r.Protocol, First: uint16(r.PortRangeMin), Last: uint16(r.PortRangeMax)}
		if f.Protocol == "" {
			f.Protocol = "all"
		}
		switch {
		case r.RemoteGroupID != "":
			f.Pool = names[r.RemoteGroupID][len("provisionr-"+cluster+"-"):]
		case r.RemoteIPPrefix != "":
			f.From = netip.MustParsePrefix(r.RemoteIPPrefix)
		default:
			f.From = netip.MustParsePrefix(map[string]string{"IPv4": "0.0.0.0/0", "IPv6": "::/0"}[r.EtherType])
		}
		if !slices.Contains(found, f) {
			found = append(found, f)
		}
	}
	return found, ok
}

func (l *lab) addRule(t *testing.T, cluster, pool string, f provider.FirewallRule) {
	group, _, _ := l.group(t, cluster, pool)
	_, err := rules.Create(t.Context(), l.network, rules.CreateOpts{
		SecGroupID: group.ID, Direction: rules.DirIngress, EtherType: rules.EtherType4, Protocol: rules.RuleProtocol(f.Protocol),
		PortRangeMin: int(f.First), PortRangeMax: int(f.Last), RemoteIPPrefix: f.From.String(),
	}).Extract()
	if err != nil {
		t.Fatal(err)
	}
}
