package aws

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/aws/ec2test"
	"github.com/provisionr/provisionr/server/provider/providertest"
)

// noQuota is why the suite's case about the quota at Resolve is left out.
const noQuota = "EC2's API does not tell the quota of vCPUs (Service Quotas does): a launch finds out"

func TestConforms(t *testing.T) {
	providertest.Run(t, suite(t, startCloud(t, ec2test.Config{Seed: 1, TerminatedFor: time.Second})))
}

// TestConformsSlowly runs the suite against instances that take their time, short pages, and tokens that replay the dead.
func TestConformsSlowly(t *testing.T) {
	c := suite(t, startCloud(t, ec2test.Config{
		Seed: 2, ShortPages: true, BootTime: 50 * time.Millisecond, ShutdownTime: 100 * time.Millisecond, ReplayTerminated: true,
	}))
	c.Many = 100
	c.Without[providertest.Pagination] = "the case counts the calls for full pages"
	providertest.Run(t, c)
}

// suite is the configuration of the suite for a cloud.
func suite(t *testing.T, c *cloud) providertest.Config {
	profiles(t)
	c.Expect("AuthFailure") // the cases about credentials
	return providertest.Config{
		Name: "aws",
		New:  func(t *testing.T, cluster string) provider.Provider { return c.provider(t, cluster, nil) },
		Network: &provisionrv1.Network{
			Metadata: &provisionrv1.Metadata{Name: "default", Generation: 1}, Spec: &provisionrv1.NetworkSpec{Provider: "aws"},
		},
		Typos: []providertest.Typo{
			{Name: "zone", Nearest: c.Config().Region + "a", Change: func(w *provisionrv1.Wish) {
				w.Placement = &provisionrv1.Placement{Zones: []string{c.Config().Region + "aa"}}
			}},
			{Name: "volume type", Nearest: "gp3", Change: func(w *provisionrv1.Wish) {
				w.Hardware = &provisionrv1.Hardware{RootDisk: &provisionrv1.Disk{Type: "gp33"}}
			}},
			{Name: "key pair", Nearest: "ops", Change: func(w *provisionrv1.Wish) { w.Placement = &provisionrv1.Placement{KeyPair: "opps"} }},
			{Name: "image", Nearest: "ami-0", Change: func(w *provisionrv1.Wish) { w.Image = &provisionrv1.Image{Id: "ami-0123456789abcdef0"} }},
			{Name: "parameter", Nearest: "/aws/service/debian/x", Change: func(w *provisionrv1.Wish) {
				w.Image = &provisionrv1.Image{Parameter: "/aws/service/debian/x"}
			}},
			{Name: "network", Nearest: "vpc-", Change: func(w *provisionrv1.Wish) {
				w.Network = &provisionrv1.Network{Spec: &provisionrv1.NetworkSpec{Id: "vpc-0123456789abcdef0"}}
			}},
		},
		Timeout: 20 * time.Second,
		Without: map[providertest.Case]string{providertest.ResolveQuota: noQuota},
		Cloud: providertest.Controls{
			Capacity: func(t *testing.T, more int) {
				c.SetCapacity("", "", more)
				t.Cleanup(func() { c.SetCapacity("", "", -1) })
			},
			Quota: func(t *testing.T, more int) {
				const cpus, plenty = 2, 100000 // of each type of the default wish
				c.SetQuota(more * cpus)
				t.Cleanup(func() { c.SetQuota(plenty) })
			},
			Throttle:     func(_ *testing.T, calls int, _ time.Duration) { c.Throttle("", calls) },
			LoseResponse: c.loseResponse,
			Fail: func(_ *testing.T, skip, calls int) {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.skip, c.fails = skip, calls
			},
			Watch: func(_ *testing.T, f func()) func() {
				set := func(f func()) {
					c.mu.Lock()
					defer c.mu.Unlock()
					c.watch = f
				}
				set(f)
				return func() { set(nil) }
			},
			Calls: func() (n uint64) {
				for _, calls := range c.Calls() {
					n += uint64(calls)
				}
				return n
			},
			Limited:   func(p provider.Provider) uint64 { return p.(*Provider).limiter.Calls() },
			Fill:      c.fill,
			Duplicate: func(t *testing.T, cluster, machineID string) { c.run(t, cluster)(machineID) },
			Leftover:  c.leftover,
			Sent:      c.sentChoice,
			Rules:     c.rules,
			AddRule:   c.addRule,
			NoCredentials: func(t *testing.T, cluster string) provider.Provider {
				return c.provider(t, cluster, func(c *Config) { c.Spec.Profile = "nobody" })
			},
			WrongCredentials: func(t *testing.T, cluster string) provider.Provider {
				return c.provider(t, cluster, func(c *Config) { c.Spec.Profile = "wrong" })
			},
			Secrets: []string{wrongSecret, c.Config().SecretAccessKey},
		},
	}
}

const wrongSecret = "not/the/secret+of+this+key000000000000000"

// profiles writes a shared configuration with a profile whose credentials are refused.
func profiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials")
	text := "[wrong]\naws_access_key_id = AKIAWRONGWRONGWRONG0\naws_secret_access_key = " + wrongSecret + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", path)
}

func (c *cloud) loseResponse(_ *testing.T, op providertest.Op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lose[map[providertest.Op]string{
		providertest.LaunchOp: "RunInstances", providertest.TerminateOp: "TerminateInstances", providertest.FirewallOp: "AuthorizeSecurityGroupIngress",
	}[op]] = true
}

// run returns what launches instances with the tags of a machine, as nobody of ours does, and returns their ids.
func (c *cloud) run(t *testing.T, cluster string) func(machineID string) string {
	t.Helper()
	p := c.provider(t, cluster, nil)
	image, err := p.findImage(t.Context(), debian(), nil, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	client := c.client(t)
	return func(machineID string) string {
		out, err := client.RunInstances(t.Context(), &ec2.RunInstancesInput{
			MinCount: awssdk.Int32(1), MaxCount: awssdk.Int32(1), ImageId: pointer(image.id), InstanceType: types.InstanceTypeT3Micro,
			TagSpecifications: []types.TagSpecification{{
				ResourceType: types.ResourceTypeInstance, Tags: tagsOf(map[string]string{tagCluster: cluster, tagMachine: machineID}),
			}},
		})
		if err != nil {
			t.Error(err)
			return ""
		}
		return awssdk.ToString(out.Instances[0].InstanceId)
	}
}

// fill launches many instances at once and gives each the tags of its machine.
func (c *cloud) fill(t *testing.T, cluster string, n int) (machines []string, empty func()) {
	t.Helper()
	var wait sync.WaitGroup
	run := c.run(t, cluster)
	ids := make([]string, n)
	machines = make([]string, n)
	for worker := range 8 {
		wait.Go(func() {
			for i := worker; i < n; i += 8 {
				machines[i] = fmt.Sprintf("m-fill%012d", i)
				ids[i] = run(machines[i])
			}
		})
	}
	wait.Wait()
	return machines, func() {
		ctx, client := context.WithoutCancel(t.Context()), c.client(t)
		for len(ids) > 0 {
			some := ids[:min(100, len(ids))]
			ids = ids[len(some):]
			if _, err := client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: some}); err != nil {
				t.Error(err)
			}
		}
	}
}

// leftover makes a volume that outlives its instance, and is not marked as one to be kept.
func (c *cloud) leftover(t *testing.T, cluster, machineID string) {
	t.Helper()
	offer, err := c.provider(t, cluster, nil).Resolve(t.Context(), &provisionrv1.Wish{Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}})
	if err != nil {
		t.Fatal(err)
	}
	choice := offer.GetChoices()[0]
	out, err := c.client(t).RunInstances(t.Context(), &ec2.RunInstancesInput{
		MinCount: awssdk.Int32(1), MaxCount: awssdk.Int32(1), ImageId: pointer(choice.GetImage()), InstanceType: types.InstanceTypeT3Micro,
		BlockDeviceMappings: []types.BlockDeviceMapping{{
			DeviceName: pointer(choice.GetRootDevice()), Ebs: &types.EbsBlockDevice{DeleteOnTermination: awssdk.Bool(false)},
		}},
		TagSpecifications: []types.TagSpecification{{
			ResourceType: types.ResourceTypeVolume, Tags: tagsOf(map[string]string{tagCluster: cluster, tagMachine: machineID}),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.client(t).TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{*out.Instances[0].InstanceId}})
	if err != nil {
		t.Fatal(err)
	}
}

// sentChoice reads what a machine was made of.
func (c *cloud) sentChoice(t *testing.T, machineID string) *provisionrv1.Choice {
	t.Helper()
	all := c.instancesOf(machineID)
	if len(all) == 0 {
		t.Fatalf("there is no instance of %s", machineID)
	}
	i := all[len(all)-1]
	return &provisionrv1.Choice{Image: i.Image, Type: i.Type, Zone: i.Zone, Network: i.VPC, Subnet: i.Subnet, Groups: i.Groups, Spot: i.Spot}
}

// rules reads the rules of a pool's group from the server's own words.
func (c *cloud) rules(t *testing.T, cluster, pool string) ([]provider.FirewallRule, bool) {
	t.Helper()
	group := c.group(cluster, pool)
	if group == nil {
		return nil, false
	}
	pools := map[string]string{}
	for _, g := range c.Groups() {
		pools[g.ID] = g.Tags[tagPool]
	}
	var all []provider.FirewallRule
	for _, text := range group.Rules {
		fields := strings.Fields(text)
		if fields[0] != "in" {
			continue
		}
		rule := provider.FirewallRule{Protocol: map[string]string{"-1": "all", "icmpv6": "icmp6"}[fields[1]]}
		if rule.Protocol == "" {
			rule.Protocol = fields[1]
		}
		if source := fields[len(fields)-1]; strings.HasPrefix(source, "sg-") {
			rule.Pool = pools[source]
		} else {
			rule.From = netip.MustParsePrefix(source)
		}
		if len(fields) == 4 && fields[2] != "-1--1" {
			first, last, _ := strings.Cut(fields[2], "-")
			for _, port := range []struct {
				to   *uint16
				text string
			}{{&rule.First, first}, {&rule.Last, last}} {
				n, err := strconv.ParseUint(port.text, 10, 16)
				if err != nil {
					t.Fatalf("rule %q: %v", text, err)
				}
				*port.to = uint16(n)
			}
		}
		all = append(all, rule)
	}
	return all, true
}

func (c *cloud) addRule(t *testing.T, cluster, pool string, r provider.FirewallRule) {
	t.Helper()
	ours, err := ruleOf(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.client(t).AuthorizeSecurityGroupIngress(t.Context(), &ec2.AuthorizeSecurityGroupIngressInput{
		GroupId: pointer(c.group(cluster, pool).ID), IpPermissions: permissions([]rule{ours}),
	})
	if err != nil {
		t.Fatal(err)
	}
}
