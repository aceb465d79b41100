package aws

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/aws/ec2test"
)

// cloud is an EC2 on loopback, with what tests do to it.
type cloud struct {
	*ec2test.Server
	url string
	// http reaches the server by whatever name, as if it was AWS's own.
	http *http.Client

	mu sync.Mutex
	// faults decides about each call; lose names the action whose next response is lost; watch sees every call.
	lose  map[string]bool
	skip  int
	fails int
	watch func()
}

// startCloud starts a server that speaks real HTTP on loopback. It sets the environment's credentials.
func startCloud(t *testing.T, c ec2test.Config) *cloud {
	t.Helper()
	one := &cloud{Server: ec2test.Start(t, c), lose: map[string]bool{}}
	one.Setenv(t)
	one.Inject(one.fault)
	listener := httptest.NewServer(one.Server)
	t.Cleanup(listener.Close)
	one.url = listener.URL
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, listener.Listener.Addr().String())
	}
	transport := &http.Transport{DialContext: dial, DialTLSContext: dial, MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	one.http = &http.Client{Transport: transport}
	return one
}

func (c *cloud) fault(call ec2test.Call) ec2test.Fault {
	c.mu.Lock()
	watch := c.watch
	var fault ec2test.Fault
	switch {
	case c.lose[call.Action]:
		delete(c.lose, call.Action)
		fault.After = ec2test.Dropped()
	case c.skip > 0 && c.fails != 0:
		c.skip--
	case c.fails != 0:
		c.fails--
		fault.Before = ec2test.Internal()
	}
	c.mu.Unlock()
	if watch != nil {
		watch()
	}
	return fault
}

// provider returns a new provider of a cluster, for which the server is AWS and which no limit holds up, unless change says
// otherwise.
func (c *cloud) provider(t *testing.T, cluster string, change func(*Config)) *Provider {
	t.Helper()
	config := Config{
		ClusterID: cluster, HTTP: c.http, Limiter: provider.NewLimiter(provider.Bucket{}, nil), SettleWindow: time.Second,
		Logger: slog.New(slog.DiscardHandler),
		Spec:   &provisionrv1.AwsProvider{Region: c.Config().Region},
	}
	if change != nil {
		change(&config)
	}
	p, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// client returns the SDK's client for what tests do behind the provider's back.
func (c *cloud) client(t *testing.T) *ec2.Client {
	t.Helper()
	api, err := c.provider(t, "none", nil).api(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return api.ec2
}

// instancesOf returns all instances that were ever made for a machine.
func (c *cloud) instancesOf(machineID string) []ec2test.Instance {
	var all []ec2test.Instance
	for _, i := range c.Instances() {
		if i.Tags[tagMachine] == machineID {
			all = append(all, i)
		}
	}
	return all
}

// group returns a pool's group, nil if there is none.
func (c *cloud) group(cluster, pool string) *ec2test.Group {
	for _, g := range c.Groups() {
		if g.Tags[tagCluster] == cluster && g.Tags[tagPool] == pool {
			return &g
		}
	}
	return nil
}

// requestFor resolves a wish and returns the request for its first choice.
func requestFor(t *testing.T, p *Provider, machineID string, wish *provisionrv1.Wish) provider.LaunchRequest {
	t.Helper()
	wish.ClusterId, wish.Pool = p.config.ClusterID, "zk"
	if wish.Os == nil {
		wish.Os = &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}
	}
	if err := p.EnsureFirewall(t.Context(), provider.Firewall{ClusterID: p.config.ClusterID, Pool: "zk", Network: wish.GetNetwork()}); err != nil {
		t.Fatal(err)
	}
	offer, err := p.Resolve(t.Context(), wish)
	if err != nil {
		t.Fatal(err)
	}
	return provider.LaunchRequest{UserData: []byte("#cloud-config\n{}\n"), Request: &provisionrv1.LaunchRequest{
		MachineId: machineID, ClusterId: p.config.ClusterID, Attempt: 1, Pool: "zk", Slot: "zk-1", Os: wish.GetOs(), Hardware: wish.GetHardware(),
		Image: wish.GetImage(), Placement: wish.GetPlacement(), Spot: wish.GetSpot(), Choice: offer.GetChoices()[0],
	}}
}

func listed(t *testing.T, p *Provider) map[string]provider.Instance {
	t.Helper()
	all := map[string]provider.Instance{}
	for i, err := range p.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all[i.MachineID] = i
	}
	return all
}

func pointer(s string) *string { return awssdk.String(s) }
