package aws

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/aws/ec2test"
)

const machine = "m-aaaabbbbccccdddd"

// TestOneInstanceWhateverHappens repeats a launch after everything that hides what it did, by a process that has crashed.
func TestOneInstanceWhateverHappens(t *testing.T) {
	for name, fault := range map[string]ec2test.Fault{
		"no answer":             {After: ec2test.Dropped()},
		"throttled after it":    {After: ec2test.Throttled()},
		"unavailable after it":  {After: ec2test.Unavailable()},
		"a gateway's page":      {After: ec2test.BadGateway()},
		"half of the answer":    {Truncate: true},
		"no answer, did not":    {Before: ec2test.Dropped()},
		"throttled":             {Before: ec2test.Throttled()},
		"internal error, not":   {Before: ec2test.Internal()},
		"internal error, after": {After: ec2test.Internal()},
	} {
		t.Run(name, func(t *testing.T) {
			c := startCloud(t, ec2test.Config{})
			request := requestFor(t, c.provider(t, "c1", nil), machine, &provisionrv1.Wish{})
			c.Inject(func(call ec2test.Call) ec2test.Fault {
				if call.Action == "RunInstances" && call.N == 1 {
					return fault
				}
				return ec2test.Fault{}
			})
			_, err := c.provider(t, "c1", nil).Launch(t.Context(), request)
			if kind := provider.KindOf(err); kind != provider.Unknown && kind != provider.RateLimited {
				t.Errorf("the first call: %v", err)
			}
			again := c.provider(t, "c1", nil) // the process is another one
			first, err := again.Launch(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			second, err := again.Launch(t.Context(), request)
			if err != nil || second.ProviderID != first.ProviderID {
				t.Errorf("a third call made %v, %v", second, err)
			}
			if all := c.Instances(); len(all) != 1 || all[0].ID != first.ProviderID || all[0].Token != machine {
				t.Errorf("there are %v", all)
			}
		})
	}
}

func TestChangedParametersAreRefused(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	p := c.provider(t, "c1", nil)
	request := requestFor(t, p, machine, &provisionrv1.Wish{})
	if _, err := p.Launch(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	request.UserData = []byte("#cloud-config\n{a: b}\n")
	_, err := p.Launch(t.Context(), request)
	if provider.KindOf(err) != provider.Unknown || !strings.Contains(err.Error(), "other parameters") {
		t.Errorf("other user-data with the same token: %v", err)
	}
	if len(c.Instances()) != 1 {
		t.Errorf("there are %v", c.Instances())
	}
}

// TestTerminatedIsNotReplayed launches late, as a deposed leader does, on both kinds of EC2.
func TestTerminatedIsNotReplayed(t *testing.T) {
	for _, replay := range []bool{false, true} {
		c := startCloud(t, ec2test.Config{ReplayTerminated: replay})
		p := c.provider(t, "c1", nil)
		request := requestFor(t, p, machine, &provisionrv1.Wish{})
		i, err := p.Launch(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Terminate(t.Context(), machine, i.ProviderID); err != nil {
			t.Fatal(err)
		}
		late, err := c.provider(t, "c1", nil).Launch(t.Context(), request)
		if provider.KindOf(err) != provider.Unknown || !strings.Contains(err.Error(), "terminated") {
			t.Errorf("replay %t: a late launch is %v, %v", replay, late, err)
		}
		if len(c.Instances()) != 1 || len(listed(t, p)) != 0 {
			t.Errorf("replay %t: there are %v", replay, c.Instances())
		}
	}
}

// TestNextChoice takes the next choice as another attempt, and adopts what that made.
func TestNextChoice(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	p := c.provider(t, "c1", nil)
	wish := &provisionrv1.Wish{Hardware: &provisionrv1.Hardware{Types: []string{"m7i.large", "m5.large"}}, Spot: &provisionrv1.Spot{Fallback: true}}
	request := requestFor(t, p, machine, wish)
	offer, err := p.Resolve(t.Context(), wish)
	if err != nil {
		t.Fatal(err)
	}
	c.SetSpotCapacity("", "", 0)
	c.SetCapacity("m7i.large", "", 0)
	attempts := 0
	var made provider.Instance
	for n, choice := range offer.GetChoices() {
		request.Request.Attempt, request.Request.Choice = uint32(n+1), choice
		if made, err = p.Launch(t.Context(), request); err == nil {
			break
		}
		if provider.KindOf(err) != provider.NoCapacity {
			t.Fatalf("choice %d: %v", n, err)
		}
		attempts++
	}
	if want := 3*2 + 3; attempts != want { // spot and on demand of the first type in three zones, spot of the second
		t.Errorf("%d choices had no capacity, want %d", attempts, want)
	}
	all := c.Instances()
	if len(all) != 1 || all[0].Type != "m5.large" || all[0].Spot {
		t.Fatalf("there are %+v", all)
	}
	request.Request.Attempt++
	if again, err := c.provider(t, "c1", nil).Launch(t.Context(), request); err != nil || again.ProviderID != made.ProviderID {
		t.Errorf("a further attempt made %v, %v", again, err)
	}
}

// TestEverything launches with all that a pool can say, and looks at what EC2 made of it.
func TestEverything(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	p := c.provider(t, "c1", nil)
	request := requestFor(t, p, machine, &provisionrv1.Wish{
		Hardware: &provisionrv1.Hardware{
			Types: []string{"m5.large"}, DiskGib: 20, RootDisk: &provisionrv1.Disk{Type: "gp3", Iops: 4000, Encrypted: true},
			Disks: []*provisionrv1.Disk{{SizeGib: 100, Keep: true}, {SizeGib: 50, Type: "io2", Iops: 1000}},
		},
		Placement: &provisionrv1.Placement{Zones: []string{"eu-central-1b"}, PublicAddress: true, KeyPair: "ops", Identity: "machines"},
		Spot:      &provisionrv1.Spot{MaxPrice: "0.5"},
	})
	request.Request.Labels = map[string]string{"team": "search"}
	made, err := p.Launch(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	i := c.Instances()[0]
	if i.Zone != "eu-central-1b" || !i.Spot || i.KeyName != "ops" || !strings.HasSuffix(i.Profile, "machines") || i.HTTPTokens != "required" ||
		!i.Public.IsValid() || i.Address != made.Address || i.Tags["team"] != "search" || i.Tags[tagSlot] != "zk-1" || string(i.UserData) != string(request.UserData) {
		t.Errorf("the instance is %+v, launched as %+v", i, made)
	}
	if group := c.group("c1", "zk"); len(i.Groups) != 1 || i.Groups[0] != group.ID {
		t.Errorf("its groups are %v", i.Groups)
	}
	sizes := map[int]ec2test.Volume{}
	for _, v := range c.Volumes() {
		if v.Tags[tagMachine] != machine || v.Tags[tagCluster] != "c1" {
			t.Errorf("volume %s has the tags %v", v.ID, v.Tags)
		}
		sizes[v.Size] = v
	}
	if root := sizes[20]; root.Type != "gp3" || root.IOPS != 4000 || !root.Encrypted || !root.DeleteOnTermination {
		t.Errorf("the root disk is %+v", root)
	}
	if sizes[100].DeleteOnTermination || sizes[100].Device != "/dev/sdf" || sizes[50].Type != "io2" || sizes[50].IOPS != 1000 {
		t.Errorf("the disks are %+v", sizes)
	}
	for _, n := range c.Interfaces() {
		if n.Tags[tagMachine] != machine {
			t.Errorf("interface %s has the tags %v", n.ID, n.Tags)
		}
	}
	// What is to be kept stays, and is no leftover.
	for range 2 {
		if err := p.Terminate(t.Context(), machine, made.ProviderID); err != nil {
			t.Fatal(err)
		}
	}
	if all := c.Volumes(); len(all) != 1 || all[0].Size != 100 || len(c.Interfaces()) != 0 {
		t.Errorf("left are %+v and %+v", all, c.Interfaces())
	}
	if all := listed(t, p); len(all) != 0 {
		t.Errorf("listed are %v", all)
	}
}

// TestListShowsWhatWasLaunched: reads that are late do not deny what this process has made, nor show what it has ended.
func TestListShowsWhatWasLaunched(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	p := c.provider(t, "c1", nil)
	request := requestFor(t, p, machine, &provisionrv1.Wish{})
	c.Inject(func(call ec2test.Call) ec2test.Fault {
		return ec2test.Fault{Empty: call.Action == "DescribeInstances"}
	})
	made, err := p.Launch(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if got := listed(t, p)[machine]; got.ProviderID != made.ProviderID || got.State != provider.Starting || got.Address != made.Address {
		t.Errorf("launched %+v, listed %+v", made, got)
	}
	if all := listed(t, c.provider(t, "c1", nil)); len(all) != 0 {
		t.Errorf("another process knows of %v", all)
	}
	// It is ended by what this process knows of it.
	if err := p.Terminate(t.Context(), machine, ""); err != nil {
		t.Fatal(err)
	}
	if all := c.Instances(); all[0].Alive() || len(listed(t, p)) != 0 {
		t.Errorf("after its end there is %+v, listed %v", all[0], listed(t, p))
	}
}

func TestRecentForgets(t *testing.T) {
	var r recent
	now := time.Now()
	r.launched(provider.Instance{MachineID: "m-1", ProviderID: "i-1"}, now)
	r.launched(provider.Instance{MachineID: "m-1", ProviderID: "i-1"}, now.Add(consistencyWindow)) // repeated: no younger
	if got := r.of("m-1", now.Add(consistencyWindow)); len(got) != 1 {
		t.Errorf("within the window: %v", got)
	}
	if got := r.unseen(nil, now.Add(consistencyWindow+1)); len(got) != 0 {
		t.Errorf("after the window: %v", got)
	}
	r.launched(provider.Instance{MachineID: "m-2", ProviderID: "i-2"}, now.Add(2*consistencyWindow))
	if len(r.made) != 1 {
		t.Errorf("kept are %v", r.made)
	}
}

// TestTerminateIsOurs: an id that another cluster's instance has ends nothing.
func TestTerminateIsOurs(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	p := c.provider(t, "c1", nil)
	request := requestFor(t, p, machine, &provisionrv1.Wish{})
	made, err := p.Launch(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	for _, foreign := range []struct{ cluster, machine string }{{"c2", machine}, {"c1", "m-other"}} {
		if err := c.provider(t, foreign.cluster, nil).Terminate(t.Context(), foreign.machine, made.ProviderID); err != nil {
			t.Error(err)
		}
	}
	if err := p.Terminate(t.Context(), "", made.ProviderID); provider.KindOf(err) != provider.Invalid {
		t.Errorf("Terminate of no machine: %v", err)
	}
	if !c.Instances()[0].Alive() {
		t.Error("it was terminated")
	}
	if err := p.Prune(t.Context(), machine, "i-0123456789abcdef0"); provider.KindOf(err) != provider.Unknown || !c.Instances()[0].Alive() {
		t.Errorf("Prune of all: %v", err)
	}
}

func TestConsole(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	p := c.provider(t, "c1", nil)
	made, err := p.Launch(t.Context(), requestFor(t, p, machine, &provisionrv1.Wish{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetConsole(made.ProviderID, "booting\n\xffLinux\n"); err != nil {
		t.Fatal(err)
	}
	if text, err := p.Console(t.Context(), machine, made.ProviderID); err != nil || text != "booting\nLinux\n" {
		t.Errorf("the console is %q, %v", text, err)
	}
}

// TestSameRequestSameChoice: Launch does not change the request, which others hold.
func TestSameRequestSameChoice(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	p := c.provider(t, "c1", nil)
	request := requestFor(t, p, machine, &provisionrv1.Wish{})
	before := proto.CloneOf(request.Request)
	if _, err := p.Launch(t.Context(), request); err != nil || !proto.Equal(before, request.Request) {
		t.Errorf("%v; the request became %v", err, request.Request)
	}
}
