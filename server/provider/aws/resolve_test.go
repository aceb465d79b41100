package aws

import (
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/aws/ec2test"
)

func debian() *provisionrv1.OperatingSystem {
	return &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}
}

func choices(t *testing.T, p *Provider, wish *provisionrv1.Wish) []string {
	t.Helper()
	wish.Os = debian()
	offer, err := p.Resolve(t.Context(), wish)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, c := range offer.GetChoices() {
		all = append(all, fmt.Sprintf("%s %s %s", c.GetType(), strings.TrimPrefix(c.GetZone(), "eu-central-1"), c.GetPriceClass()))
	}
	return all
}

func TestChoices(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	p := c.provider(t, "c1", nil)
	for _, test := range []struct {
		name string
		wish *provisionrv1.Wish
		want []string
	}{
		{"types in order, for each the zones", &provisionrv1.Wish{Hardware: &provisionrv1.Hardware{Types: []string{"m7i.large", "m5.large"}}},
			[]string{"m7i.large a on-demand", "m7i.large b on-demand", "m7i.large c on-demand", "m5.large a on-demand", "m5.large b on-demand", "m5.large c on-demand"}},
		{"only where a type is offered", &provisionrv1.Wish{Hardware: &provisionrv1.Hardware{Types: []string{"m6g.large"}, Architecture: "arm64"}},
			[]string{"m6g.large a on-demand", "m6g.large b on-demand"}},
		{"zones in order", &provisionrv1.Wish{
			Hardware: &provisionrv1.Hardware{Types: []string{"m5.large"}}, Placement: &provisionrv1.Placement{Zones: []string{"eu-central-1c", "eu-central-1a"}}},
			[]string{"m5.large c on-demand", "m5.large a on-demand"}},
		{"spot first, then on demand", &provisionrv1.Wish{
			Hardware: &provisionrv1.Hardware{Types: []string{"m5.large"}}, Placement: &provisionrv1.Placement{Zones: []string{"eu-central-1b"}},
			Spot: &provisionrv1.Spot{Fallback: true}},
			[]string{"m5.large b spot", "m5.large b on-demand"}},
		{"the least that suffices", &provisionrv1.Wish{
			Hardware: &provisionrv1.Hardware{Cpus: 2, MemoryMib: 3000}, Placement: &provisionrv1.Placement{Zones: []string{"eu-central-1b"}}},
			[]string{"t3.medium b on-demand", "c5.large b on-demand", "c6i.large b on-demand"}},
	} {
		if d := cmp.Diff(test.want, choices(t, p, test.wish)); d != "" {
			t.Errorf("%s: %s", test.name, d)
		}
	}
}

func TestImages(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	find := func(p *Provider, w *provisionrv1.Image) (string, error) {
		i, err := p.findImage(t.Context(), debian(), w, "amd64")
		return i.name, err
	}
	const newest = "debian-12-amd64-20240717-1811"
	p := c.provider(t, "c1", nil)
	for name, w := range map[string]*provisionrv1.Image{
		"default":        nil,
		"parameter":      {Parameter: "/aws/service/debian/release/12/latest/amd64"},
		"name and owner": {Name: "debian-12-amd64-*", Owner: debianOwner},
	} {
		if got, err := find(p, w); err != nil || got != newest {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	// Anybody can name an image so; without an owner only the account's own are meant.
	if got, err := find(p, &provisionrv1.Image{Name: "debian-12-amd64-*"}); provider.KindOf(err) != provider.Invalid {
		t.Errorf("a name without an owner is %s, %v", got, err)
	}
	for name, w := range map[string]*provisionrv1.Image{
		"family": {Family: "debian-12"}, "parameter": {Parameter: "/aws/service/none"}, "id": {Id: "ami-0123456789abcdef0"},
	} {
		if _, err := p.Resolve(t.Context(), &provisionrv1.Wish{Os: debian(), Image: w}); provider.KindOf(err) != provider.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Debian's own name is what remains without its parameter.
	c.Inject(func(call ec2test.Call) ec2test.Fault {
		if call.Action == "GetParameter" {
			return ec2test.Fault{Before: ec2test.Failure{Code: "ParameterNotFound", Status: http.StatusBadRequest}}
		}
		return ec2test.Fault{}
	})
	if got, err := find(c.provider(t, "c1", nil), nil); err != nil || got != newest {
		t.Errorf("without the parameter: %s, %v", got, err)
	}
}

// TestCached: what is resolved for many machines asks for little more than what may change with each of them.
func TestCached(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	p := c.provider(t, "c1", nil)
	count := func() (n int) {
		for _, calls := range c.Calls() {
			n += calls
		}
		return n
	}
	wish := &provisionrv1.Wish{Os: debian(), Pool: "zk"}
	if _, err := p.Resolve(t.Context(), wish); err != nil {
		t.Fatal(err)
	}
	before := count()
	for range 10 {
		if _, err := p.Resolve(t.Context(), wish); err != nil {
			t.Fatal(err)
		}
	}
	if calls := count() - before; calls > 10 {
		t.Errorf("10 wishes took %d calls", calls)
	}
}

func TestWarnings(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	offer, err := c.provider(t, "c1", nil).Resolve(t.Context(), &provisionrv1.Wish{Os: debian(), Count: 1 << 20})
	if err != nil || !strings.Contains(strings.Join(offer.GetWarnings(), "\n"), "free addresses") {
		t.Errorf("a pool larger than its subnets: %q, %v", offer.GetWarnings(), err)
	}
}

// TestUnknownRegion: a region that does not exist has no address.
func TestUnknownRegion(t *testing.T) {
	credentials(t)
	lookup := roundTripper(func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}
	})
	p := newTestProvider(t, func(c *Config) { c.Spec.Region, c.HTTP = "eu-centrl-1", &http.Client{Transport: lookup} })
	_, err := p.Resolve(t.Context(), &provisionrv1.Wish{Os: debian()})
	if provider.KindOf(err) != provider.Invalid || !strings.Contains(err.Error(), "eu-central-1") {
		t.Errorf("%v", err)
	}
	c := startCloud(t, ec2test.Config{})
	c.Expect("AuthFailure")
	_, err = c.provider(t, "c1", func(c *Config) { c.Spec.Region = "eu-centrl-1" }).Resolve(t.Context(), &provisionrv1.Wish{Os: debian()})
	if err == nil {
		t.Error("a region that the endpoint does not serve is accepted")
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestNetworks(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	p := c.provider(t, "c1", nil)
	ensure := func(spec *provisionrv1.NetworkSpec) (*provisionrv1.NetworkSpec, error) {
		return p.EnsureNetwork(t.Context(), &provisionrv1.Network{Spec: spec})
	}
	other, err := ensure(&provisionrv1.NetworkSpec{Id: "other", Provider: "aws"})
	if err != nil || other.GetCidr() != "10.50.0.0/16" || other.GetProvider() != "aws" || len(other.GetNtpServers()) == 0 {
		t.Errorf("the network named other is %v, %v", other, err)
	}
	if _, err := ensure(&provisionrv1.NetworkSpec{Id: "other", Cidr: "10.99.0.0/16"}); provider.KindOf(err) != provider.Invalid {
		t.Errorf("a range that it does not have: %v", err)
	}
	if _, err := ensure(&provisionrv1.NetworkSpec{Id: "othr"}); provider.KindOf(err) != provider.Invalid || !strings.Contains(err.Error(), "nearest: other") {
		t.Errorf("a misspelt network: %v", err)
	}
	if _, err := ensure(&provisionrv1.NetworkSpec{Subnets: []string{"subnet-0123456789abcdef0"}}); provider.KindOf(err) != provider.Invalid {
		t.Errorf("a subnet that is not there: %v", err)
	}
	c.DeleteDefaultVPC()
	if _, err := c.provider(t, "c1", nil).EnsureNetwork(t.Context(), &provisionrv1.Network{}); provider.KindOf(err) != provider.Invalid {
		t.Errorf("an account without a default network: %v", err)
	}
}

// TestTLSAndRole reaches a server by a certificate authority of its own, with the credentials of a role.
func TestTLSAndRole(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	server := httptest.NewTLSServer(c.Server)
	t.Cleanup(server.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	at := &provisionrv1.Endpoint{Url: server.URL, Ca: ca}
	p := c.provider(t, "c1", func(c *Config) {
		c.Spec.Ec2, c.Spec.Ssm, c.Spec.Sts, c.HTTP = at, at, at, nil
		c.Spec.RoleArn = "arn:aws:iam::123456789012:role/provisionr"
	})
	for range 3 {
		if all := listed(t, p); len(all) != 0 {
			t.Errorf("listed are %v", all)
		}
	}
	if n := c.Calls()["AssumeRole"]; n != 1 {
		t.Errorf("the role was assumed %d times", n)
	}
	untrusted := c.provider(t, "c1", func(c *Config) { c.Spec.Ec2, c.HTTP = &provisionrv1.Endpoint{Url: server.URL}, nil })
	for _, err := range untrusted.List(t.Context()) {
		if provider.KindOf(err) != provider.Unknown {
			t.Errorf("a server that nobody vouches for: %v", err)
		}
	}
	bad := Config{ClusterID: "c1", Spec: &provisionrv1.AwsProvider{Region: "eu-central-1", Ec2: &provisionrv1.Endpoint{Ca: "none"}}}
	if _, err := New(bad); provider.KindOf(err) != provider.Invalid {
		t.Errorf("a certificate authority that is none: %v", err)
	}
}
