package ec2test_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/provisionr/provisionr/server/provider/aws/ec2test"
)

func TestPagesAndFilters(t *testing.T) {
	for _, short := range []bool{false, true} {
		t.Run(fmt.Sprint("short ", short), func(t *testing.T) {
			c := start(t, ec2test.Config{ShortPages: short, Seed: 7})
			in := c.wish(t, "mine")
			in.MinCount, in.MaxCount = aws.Int32(12), aws.Int32(12)
			c.run(t, in)
			other := c.wish(t, "other")
			other.TagSpecifications[0].Tags = tags("provisionr-cluster", "c2")
			c.run(t, other)
			ids, pages := c.all(t, 5, filters("tag:provisionr-cluster", "c1")...)
			slices.Sort(ids)
			if n := len(slices.Compact(ids)); n != 12 || pages < 3 {
				t.Errorf("%d instances on %d pages", n, pages)
			}
		})
	}
	c := start(t, ec2test.Config{})
	ctx := t.Context()
	id := *c.run(t, c.wish(t, "m-1")).InstanceId
	for _, f := range [][]types.Filter{
		filters("tag:Name", "m-*"), filters("tag-key", "provisionr-cluste?"), filters("client-token", "m-1"), filters("instance-state-name", "running"),
		filters("availability-zone", "eu-central-1a", "instance-type", "t3.*"), filters("image-id", c.debian(t)),
	} {
		if ids, _ := c.all(t, 1000, f...); len(ids) != 1 {
			t.Errorf("filter %s=%s finds %v", *f[0].Name, f[0].Values, ids)
		}
	}
	if ids, _ := c.all(t, 1000, filters("tag:Name", "M-1")...); len(ids) != 0 {
		t.Error("values are not case-sensitive")
	}
	c.Expect("InvalidParameterCombination", "InvalidParameterValue")
	for want, in := range map[string]*ec2.DescribeInstancesInput{
		"InvalidParameterCombination": {InstanceIds: []string{id}, MaxResults: aws.Int32(5)},
		"InvalidParameterValue":       {MaxResults: aws.Int32(4)},
		"InvalidNextToken":            {MaxResults: aws.Int32(5), NextToken: aws.String("eyJ9")},
		"InvalidInstanceID.Malformed": {InstanceIds: []string{"m-1"}},
		"InvalidInstanceID.NotFound":  {InstanceIds: []string{id, "i-00000000000000000"}},
	} {
		_, err := c.ec2.DescribeInstances(ctx, in)
		wantCode(t, err, want)
	}
	_, err := c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{Filters: filters("color", "red")})
	wantCode(t, err, "InvalidParameterValue")
	many := filters("instance-id", id)
	many[0].Values = slices.Repeat(many[0].Values, 201)
	_, err = c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{Filters: many})
	wantCode(t, err, "FilterLimitExceeded")
}

func TestEventualConsistency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lag = 10 * time.Second
		c := start(t, ec2test.Config{Lag: lag})
		ctx := t.Context()
		id := *c.run(t, c.wish(t, "m-1")).InstanceId
		var missing, flicker int
		seen := false
		for range 40 {
			_, err := c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
			switch code(err) {
			case "":
				seen = true
			case "InvalidInstanceID.NotFound":
				missing++
				if seen {
					flicker++
				}
			default:
				t.Fatal(err)
			}
			time.Sleep(lag / 40)
		}
		if missing == 0 || flicker == 0 || !seen {
			t.Errorf("missing %d times, gone again %d times, seen %v", missing, flicker, seen)
		}
		time.Sleep(lag)
		if ids, _ := c.all(t, 1000); len(ids) != 1 {
			t.Errorf("after the lag %v is listed", ids)
		}
		c.Inject(func(call ec2test.Call) ec2test.Fault { return ec2test.Fault{Empty: true} })
		if ids, _ := c.all(t, 1000); len(ids) != 0 {
			t.Errorf("an empty list has %v", ids)
		}
		c.Inject(nil)
		group := c.group(t, "web", c.vpc(t, "default"))
		c.Inject(func(call ec2test.Call) ec2test.Fault { return ec2test.Fault{Stale: time.Second} })
		in := c.wish(t, "m-2")
		in.SecurityGroupIds = []string{group}
		_, err := c.ec2.RunInstances(ctx, in)
		wantCode(t, err, "InvalidGroup.NotFound")
	})
}

func TestCatalog(t *testing.T) {
	c := start(t, ec2test.Config{ShortPages: true})
	ctx := t.Context()
	images, err := c.ec2.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"136693071363"}, Filters: filters("name", "debian-12-amd64-*", "state", "available")})
	if err != nil || len(images.Images) != 2 {
		t.Errorf("images %v, %v", images, err)
	}
	amazon, err := c.ec2.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"amazon"}})
	if err != nil || len(amazon.Images) != 1 {
		t.Errorf("images %v, %v", amazon, err)
	}
	own := c.AddImage(ec2test.Image{Name: "mine"})
	self, err := c.ec2.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"self"}})
	if err != nil || len(self.Images) != 1 || *self.Images[0].ImageId != own {
		t.Errorf("images %v, %v", self, err)
	}
	names := make(map[types.InstanceType]bool)
	in := &ec2.DescribeInstanceTypesInput{MaxResults: aws.Int32(5), Filters: filters("current-generation", "true", "processor-info.supported-architecture", "arm64")}
	for {
		out, err := c.ec2.DescribeInstanceTypes(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range out.InstanceTypes {
			names[i.InstanceType] = true
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if len(names) != 3 {
		t.Errorf("types %v", names)
	}
	_, err = c.ec2.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{"t3.micro", "t99.huge"}})
	wantCode(t, err, "InvalidInstanceType")
	offers, err := c.ec2.DescribeInstanceTypeOfferings(ctx, &ec2.DescribeInstanceTypeOfferingsInput{LocationType: "availability-zone", Filters: filters("instance-type", "m6g.large")})
	if err != nil || len(offers.InstanceTypeOfferings) != 2 {
		t.Errorf("offerings %v, %v", offers, err)
	}
	zones, err := c.ec2.DescribeAvailabilityZones(ctx, &ec2.DescribeAvailabilityZonesInput{})
	if err != nil || len(zones.AvailabilityZones) != 3 {
		t.Errorf("zones %v, %v", zones, err)
	}
	_, err = c.ec2.DescribeRegions(ctx, &ec2.DescribeRegionsInput{RegionNames: []string{"mars-1"}})
	wantCode(t, err, "InvalidParameterValue")
	if out, err := c.ec2.DescribeRegions(ctx, &ec2.DescribeRegionsInput{}); err != nil || len(out.Regions) < 2 {
		t.Errorf("regions %v, %v", out, err)
	}
	keys, err := c.ec2.DescribeKeyPairs(ctx, &ec2.DescribeKeyPairsInput{KeyNames: []string{"ops"}})
	if err != nil || len(keys.KeyPairs) != 1 {
		t.Errorf("keys %v, %v", keys, err)
	}
	if out, err := c.ec2.DescribeAccountAttributes(ctx, &ec2.DescribeAccountAttributesInput{}); err != nil || len(out.AccountAttributes) < 5 {
		t.Errorf("attributes %v, %v", out, err)
	}
	c.DeleteDefaultVPC()
	if out, err := c.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{}); err != nil || len(out.Vpcs) != 1 || out.Vpcs[0].Ipv6CidrBlockAssociationSet == nil {
		t.Errorf("VPCs %v, %v", out, err)
	}
	_, err = c.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("x"), Description: aws.String("x")})
	wantCode(t, err, "VPCIdNotSpecified")
}

func TestSpotInterruption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, ec2test.Config{})
		ctx := t.Context()
		in := c.wish(t, "m-1")
		in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: "spot", SpotOptions: &types.SpotMarketOptions{SpotInstanceType: "one-time", InstanceInterruptionBehavior: "terminate"}}
		in.TagSpecifications = append(in.TagSpecifications, types.TagSpecification{ResourceType: "spot-instances-request", Tags: tags("provisionr-cluster", "c1")})
		made := c.run(t, in)
		if made.InstanceLifecycle != "spot" {
			t.Errorf("lifecycle %q", made.InstanceLifecycle)
		}
		status := func() (types.SpotInstanceState, string) {
			out, err := c.ec2.DescribeSpotInstanceRequests(ctx, &ec2.DescribeSpotInstanceRequestsInput{Filters: filters("tag:provisionr-cluster", "c1")})
			if err != nil || len(out.SpotInstanceRequests) != 1 {
				t.Fatalf("requests %v, %v", out, err)
			}
			return out.SpotInstanceRequests[0].State, *out.SpotInstanceRequests[0].Status.Code
		}
		for _, step := range []struct {
			wait  time.Duration
			state types.SpotInstanceState
			code  string
		}{{0, "active", "fulfilled"}, {8 * time.Minute, "active", "marked-for-termination"}, {2 * time.Minute, "closed", "instance-terminated-no-capacity"}} {
			if step.wait > 0 && step.code == "marked-for-termination" {
				if err := c.InterruptSpot(*made.InstanceId, time.Now().Add(10*time.Minute)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(step.wait)
			if state, code := status(); state != step.state || code != step.code {
				t.Errorf("the request is %s, %s, not %s, %s", state, code, step.state, step.code)
			}
		}
		if i := c.Instances()[0]; i.State != "terminated" || i.Reason != "Server.SpotInstanceTermination" {
			t.Errorf("the instance is %+v", i)
		}
	})
}

func TestStatusConsoleAndMaintenance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, ec2test.Config{BootTime: time.Minute})
		ctx := t.Context()
		id := *c.run(t, c.wish(t, "m-1")).InstanceId
		status := func(all bool) []types.InstanceStatus {
			out, err := c.ec2.DescribeInstanceStatus(ctx, &ec2.DescribeInstanceStatusInput{IncludeAllInstances: aws.Bool(all)})
			if err != nil {
				t.Fatal(err)
			}
			return out.InstanceStatuses
		}
		if a, b := len(status(false)), len(status(true)); a != 0 || b != 1 {
			t.Errorf("while pending %d and %d are listed", a, b)
		}
		time.Sleep(time.Minute)
		if s := status(false); len(s) != 1 || s[0].InstanceStatus.Status != "initializing" {
			t.Errorf("status %v", s)
		}
		if err := c.ScheduleMaintenance(id, "instance-retirement", time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if s := status(false); len(s[0].Events) != 1 || s[0].Events[0].Code != "instance-retirement" || time.Until(*s[0].Events[0].NotBefore) != time.Hour {
			t.Errorf("status %v", s)
		}
		empty, err := c.ec2.GetConsoleOutput(ctx, &ec2.GetConsoleOutputInput{InstanceId: aws.String(id)})
		if err != nil || empty.Output != nil {
			t.Errorf("console %v, %v", empty, err)
		}
		if err := c.SetConsole(id, "login:"); err != nil {
			t.Fatal(err)
		}
		out, err := c.ec2.GetConsoleOutput(ctx, &ec2.GetConsoleOutputInput{InstanceId: aws.String(id), Latest: aws.Bool(true)})
		if err != nil || *out.Output != base64.StdEncoding.EncodeToString([]byte("login:")) {
			t.Errorf("console %v, %v", out, err)
		}
		time.Sleep(time.Hour)
		if i := c.Instances()[0]; i.Alive() {
			t.Errorf("the retired instance is %+v", i)
		}
	})
}

func TestLeftovers(t *testing.T) {
	c := start(t, ec2test.Config{})
	ctx := t.Context()
	in := c.wish(t, "m-1")
	in.NetworkInterfaces = []types.InstanceNetworkInterfaceSpecification{{DeviceIndex: aws.Int32(0), SubnetId: in.SubnetId, DeleteOnTermination: aws.Bool(false), AssociatePublicIpAddress: aws.Bool(false)}}
	in.SubnetId = nil
	in.BlockDeviceMappings = []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sdf"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(20), VolumeType: "gp3", DeleteOnTermination: aws.Bool(false)}}}
	id := *c.run(t, in).InstanceId
	volumes, err := c.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{Filters: filters("tag:provisionr-cluster", "c1", "attachment.instance-id", id)})
	if err != nil || len(volumes.Volumes) != 2 {
		t.Fatalf("volumes %v, %v", volumes, err)
	}
	nics, err := c.ec2.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: filters("tag:provisionr-cluster", "c1"), MaxResults: aws.Int32(1000)})
	if err != nil || len(nics.NetworkInterfaces) != 1 || nics.NetworkInterfaces[0].Association != nil {
		t.Fatalf("interfaces %v, %v", nics, err)
	}
	nic := nics.NetworkInterfaces[0].NetworkInterfaceId
	_, err = c.ec2.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: nic})
	wantCode(t, err, "InvalidNetworkInterface.InUse")
	_, err = c.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: volumes.Volumes[0].VolumeId})
	wantCode(t, err, "VolumeInUse")
	if _, err := c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}}); err != nil {
		t.Fatal(err)
	}
	left := c.Volumes()
	if len(left) != 1 || left[0].State != "available" || left[0].Size != 20 || len(c.Interfaces()) != 1 {
		t.Fatalf("left %+v, %+v", left, c.Interfaces())
	}
	if _, err := c.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: aws.String(left[0].ID)}); err != nil {
		t.Error(err)
	}
	if _, err := c.ec2.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: nic}); err != nil {
		t.Error(err)
	}
	_, err = c.ec2.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: nic})
	wantCode(t, err, "InvalidNetworkInterfaceID.NotFound")
	_, err = c.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: aws.String(left[0].ID)})
	wantCode(t, err, "InvalidVolume.NotFound")
}

func TestTags(t *testing.T) {
	c := start(t, ec2test.Config{})
	ctx := t.Context()
	id := *c.run(t, c.wish(t, "m-1")).InstanceId
	if _, err := c.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{id}, Tags: tags("a", "1", "b", "2")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ec2.DeleteTags(ctx, &ec2.DeleteTagsInput{Resources: []string{id}, Tags: append(tags("a", "other"), types.Tag{Key: aws.String("b")})}); err != nil {
		t.Fatal(err)
	}
	if got := c.Instances()[0].Tags; got["a"] != "1" || got["b"] != "" || got["provisionr-cluster"] != "c1" {
		t.Errorf("tags %v", got)
	}
	_, err := c.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{id, "i-00000000000000000"}, Tags: tags("a", "3")})
	wantCode(t, err, "InvalidInstanceID.NotFound")
	var many []types.Tag
	for i := range 50 {
		many = append(many, tags(fmt.Sprint("k", i), "v")...)
	}
	_, err = c.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{id}, Tags: many})
	wantCode(t, err, "TagLimitExceeded")
	if got := c.Instances()[0].Tags; got["a"] != "1" || len(got) != 3 {
		t.Errorf("tags %v", got)
	}
}

func TestParametersAndRoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, ec2test.Config{})
		ctx := t.Context()
		_, err := c.ssm.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String("/nobody")})
		wantCode(t, err, "ParameterNotFound")
		c.SetParameter("/mine", "x")
		out, err := c.ssm.GetParameters(ctx, &ssm.GetParametersInput{Names: []string{"/mine", "/nobody"}})
		if err != nil || len(out.Parameters) != 1 || len(out.InvalidParameters) != 1 {
			t.Errorf("parameters %v, %v", out, err)
		}
		c.Throttle("GetParameter", 1)
		_, err = c.ssm.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String("/mine")})
		wantCode(t, err, "ThrottlingException")
		_, err = c.sts.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::123456789012:role/nobody"), RoleSessionName: aws.String("test")})
		wantCode(t, err, "AccessDenied")
		role, err := c.sts.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::123456789012:role/provisionr"), RoleSessionName: aws.String("test")})
		if err != nil {
			t.Fatal(err)
		}
		creds := aws.Credentials{AccessKeyID: *role.Credentials.AccessKeyId, SecretAccessKey: *role.Credentials.SecretAccessKey, SessionToken: *role.Credentials.SessionToken}
		who := func() (*sts.GetCallerIdentityOutput, error) {
			return c.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}, func(o *sts.Options) { o.Credentials = credentialsOf(creds) })
		}
		if me, err := who(); err != nil || *me.Arn != "arn:aws:sts::123456789012:assumed-role/provisionr/test" {
			t.Errorf("I am %v, %v", me, err)
		}
		c.Expect("ExpiredToken", "RequestExpired", "InvalidClientTokenId")
		time.Sleep(time.Hour + time.Second)
		_, err = who()
		wantCode(t, err, "ExpiredToken")
		creds.SessionToken = "stolen"
		_, err = who()
		wantCode(t, err, "InvalidClientTokenId")
	})
}
