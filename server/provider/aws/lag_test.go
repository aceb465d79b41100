package aws

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/aws/ec2test"
)

// again calls again what EC2 does not show yet, as the control plane does after every error of the kind Unknown.
func again(ctx context.Context, call func() error) error {
	for {
		err := call()
		if !hasCode(err, "InvalidInstanceID.NotFound", "InvalidGroup.NotFound") && (err == nil || !strings.Contains(err.Error(), "not shown yet")) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestLag: with reads that see the world of some moment ago, each another one, the process that launches never misses what
// it has launched, and what it has ended ends.
func TestLag(t *testing.T) {
	c := startCloud(t, ec2test.Config{Seed: 3, Lag: 200 * time.Millisecond, ShortPages: true})
	p := c.provider(t, "c1", nil)
	rules := []provider.FirewallRule{
		{Protocol: "tcp", First: 22, Last: 22, From: netip.MustParsePrefix("10.0.0.0/8")},
		{Protocol: "tcp", First: 2181, Last: 2181, Pool: "peer"}, {Protocol: "all", Pool: "zk"},
	}
	for range 3 {
		err := again(t.Context(), func() error {
			return p.EnsureFirewall(t.Context(), provider.Firewall{ClusterID: "c1", Pool: "zk", Rules: rules})
		})
		if err != nil {
			t.Fatal(err)
		}
		if group := c.group("c1", "zk"); len(group.Rules) != len(rules)+1 { // and the one that lets out
			t.Errorf("the rules are %q", group.Rules)
		}
	}
	if n := len(c.Groups()); c.group("c1", "peer") == nil || n != 4 { // two, and the default groups of both networks
		t.Errorf("there are %d groups: %+v", n, c.Groups())
	}
	offer, err := p.Resolve(t.Context(), &provisionrv1.Wish{Os: debian()})
	if err != nil {
		t.Fatal(err)
	}
	choice := offer.GetChoices()[0]
	choice.Groups = []string{c.group("c1", "zk").ID}
	made := map[string]string{}
	for n := range 10 {
		request := provider.LaunchRequest{Request: &provisionrv1.LaunchRequest{
			MachineId: fmt.Sprintf("m-%016d", n), ClusterId: "c1", Attempt: 1, Pool: "zk", Slot: fmt.Sprintf("zk-%d", n+1), Choice: proto.CloneOf(choice),
		}}
		for range 2 {
			i, err := p.Launch(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			if before, ok := made[i.MachineID]; ok && before != i.ProviderID {
				t.Errorf("%s is %s, then %s", i.MachineID, before, i.ProviderID)
			}
			made[i.MachineID] = i.ProviderID
			all := listed(t, p)
			for machine, id := range made {
				if all[machine].ProviderID != id {
					t.Errorf("%s (%s) is not listed: %v", machine, id, all[machine])
				}
			}
			if len(all) != len(made) {
				t.Errorf("%d machines are listed, %d were launched", len(all), len(made))
			}
		}
	}
	for machine := range made {
		if err := again(t.Context(), func() error { return p.Terminate(t.Context(), machine, "") }); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range c.Instances() {
		if i.Alive() {
			t.Errorf("%s is still there", i.ID)
		}
	}
}
