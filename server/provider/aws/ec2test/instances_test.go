package ec2test_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/provisionr/provisionr/server/provider/aws/ec2test"
)

func TestLifeOfAnInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, ec2test.Config{BootTime: 10 * time.Second, ShutdownTime: 30 * time.Second})
		ctx := t.Context()
		made := c.run(t, c.wish(t, "m-1"))
		if made.State.Name != "pending" || *made.ClientToken != "m-1" || made.PublicIpAddress != nil {
			t.Errorf("launched as %+v", made)
		}
		id := *made.InstanceId
		time.Sleep(10 * time.Second)
		out, err := c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
		if err != nil {
			t.Fatal(err)
		}
		i := out.Reservations[0].Instances[0]
		if i.State.Name != "running" || i.PublicIpAddress == nil || len(i.BlockDeviceMappings) != 1 || i.MetadataOptions.HttpTokens != "required" {
			t.Errorf("runs as %+v", i)
		}
		gone, err := c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
		if err != nil {
			t.Fatal(err)
		}
		if change := gone.TerminatingInstances[0]; change.CurrentState.Name != "shutting-down" || change.PreviousState.Name != "running" {
			t.Errorf("terminates as %+v", change)
		}
		if truth := c.Instances()[0]; truth.State != "shutting-down" || !truth.Address.IsValid() {
			t.Errorf("is %+v", truth)
		}
		time.Sleep(30 * time.Second)
		if truth := c.Instances()[0]; truth.State != "terminated" || truth.Reason != "Client.UserInitiatedShutdown" {
			t.Errorf("is %+v", truth)
		}
		if v, n := c.Volumes(), c.Interfaces(); len(v) != 0 || len(n) != 0 {
			t.Errorf("left volumes %v, interfaces %v", v, n)
		}
		again, err := c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
		if err != nil || again.TerminatingInstances[0].CurrentState.Name != "terminated" {
			t.Errorf("terminated again: %v", err)
		}
		if ids, _ := c.all(t, 1000); len(ids) != 1 {
			t.Errorf("a terminated instance is listed for an hour: %v", ids)
		}
		time.Sleep(time.Hour)
		if ids, _ := c.all(t, 1000); len(ids) != 0 {
			t.Errorf("it is still listed: %v", ids)
		}
		_, err = c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
		wantCode(t, err, "InvalidInstanceID.NotFound")
	})
}

func TestClientToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, ec2test.Config{Lag: time.Minute})
		ctx := t.Context()
		first := c.run(t, c.wish(t, "m-1"))
		if second := c.run(t, c.wish(t, "m-1")); *second.InstanceId != *first.InstanceId {
			t.Errorf("%s was launched beside %s", *second.InstanceId, *first.InstanceId)
		}
		changed := c.wish(t, "m-1")
		changed.InstanceType = "t3.small"
		_, err := c.ec2.RunInstances(ctx, changed)
		wantCode(t, err, "IdempotentParameterMismatch")
		elsewhere := c.wish(t, "m-1")
		elsewhere.SubnetId = aws.String(c.subnet(t, "default", 1))
		if other := c.run(t, elsewhere); *other.InstanceId == *first.InstanceId {
			t.Error("the token of one zone counts in another")
		}
		time.Sleep(time.Minute)
		if _, err := c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*first.InstanceId}}); err != nil {
			t.Fatal(err)
		}
		_, err = c.ec2.RunInstances(ctx, c.wish(t, "m-1"))
		wantCode(t, err, "IdempotentInstanceTerminated")
		long := c.wish(t, strings.Repeat("x", 65))
		_, err = c.ec2.RunInstances(ctx, long)
		wantCode(t, err, "InvalidClientToken")
		if n := len(c.Instances()); n != 2 {
			t.Errorf("there were %d instances, not 2", n)
		}
		time.Sleep(25 * time.Hour)
		if again := c.run(t, c.wish(t, "m-1")); *again.InstanceId == *first.InstanceId {
			t.Error("the token is known for ever")
		}
	})
}

func TestReplayOfATerminatedInstance(t *testing.T) {
	c := start(t, ec2test.Config{ReplayTerminated: true})
	first := c.run(t, c.wish(t, "m-1"))
	if _, err := c.ec2.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{*first.InstanceId}}); err != nil {
		t.Fatal(err)
	}
	if again := c.run(t, c.wish(t, "m-1")); *again.InstanceId != *first.InstanceId || again.State.Name != "terminated" {
		t.Errorf("replayed %s %s", *again.InstanceId, again.State.Name)
	}
}

func TestRunInstancesRefusals(t *testing.T) {
	other := func(c *cloud, t *testing.T) string { return c.subnet(t, "other", 0) }
	ebs := func(e types.EbsBlockDevice) []types.BlockDeviceMapping {
		return []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sdf"), Ebs: &e}}
	}
	root := func(e types.EbsBlockDevice) []types.BlockDeviceMapping {
		return []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"), Ebs: &e}}
	}
	nic := types.InstanceNetworkInterfaceSpecification{DeviceIndex: aws.Int32(0)}
	for name, tt := range map[string]struct {
		change    func(*testing.T, *cloud, *ec2.RunInstancesInput)
		want      string
		violation string
	}{
		"image malformed": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) { in.ImageId = aws.String("debian") }, "InvalidAMIID.Malformed", ""},
		"image absent": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.ImageId = aws.String("ami-00000000000000000")
		}, "InvalidAMIID.NotFound", ""},
		"image missing": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) { in.ImageId = nil }, "MissingParameter", "MissingParameter"},
		"type unknown":  {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) { in.InstanceType = "t99.huge" }, "InvalidParameterValue", ""},
		"architecture":  {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) { in.InstanceType = "t4g.micro" }, "InvalidParameterValue", ""},
		"user-data large": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.UserData = aws.String(base64.StdEncoding.EncodeToString(make([]byte, 16385)))
		}, "InvalidParameterValue", ""},
		"user-data limit": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.UserData = aws.String(base64.StdEncoding.EncodeToString(make([]byte, 16384)))
		}, "", ""},
		"user-data raw": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) { in.UserData = aws.String("#cloud-config") }, "InvalidUserData.Malformed", ""},
		"counts":        {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) { in.MinCount = aws.Int32(2) }, "InvalidParameterValue", "InvalidParameterValue"},
		"subnet absent": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.SubnetId = aws.String("subnet-00000000000000000")
		}, "InvalidSubnetID.NotFound", ""},
		"zone and subnet": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.Placement = &types.Placement{AvailabilityZone: aws.String("eu-central-1c")}
		}, "InvalidParameterCombination", ""},
		"zone invalid": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.Placement = &types.Placement{AvailabilityZone: aws.String("eu-west-1a")}
		}, "InvalidParameterValue", ""},
		"group absent": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.SecurityGroupIds = []string{"sg-00000000000000000"}
		}, "InvalidGroup.NotFound", ""},
		"group malformed": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) { in.SecurityGroupIds = []string{"web"} }, "InvalidGroupId.Malformed", ""},
		"group elsewhere": {func(t *testing.T, c *cloud, in *ec2.RunInstancesInput) {
			in.SecurityGroupIds = []string{c.group(t, "x", c.vpc(t, "other"))}
		}, "InvalidParameter", ""},
		"groups and nic": {func(t *testing.T, c *cloud, in *ec2.RunInstancesInput) {
			in.SubnetId = nil
			in.SecurityGroupIds = []string{c.group(t, "x", c.vpc(t, "default"))}
			in.NetworkInterfaces = []types.InstanceNetworkInterfaceSpecification{nic}
		}, "InvalidParameterCombination", ""},
		"subnet and nic": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.NetworkInterfaces = []types.InstanceNetworkInterfaceSpecification{nic}
		}, "InvalidParameterCombination", ""},
		"nic without index": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.NetworkInterfaces = []types.InstanceNetworkInterfaceSpecification{{SubnetId: in.SubnetId}}
			in.SubnetId = nil
		}, "MissingParameter", ""},
		"address outside": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) { in.PrivateIpAddress = aws.String("10.1.2.3") }, "InvalidParameterValue", ""},
		"IPv6 of none":    {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) { in.Ipv6AddressCount = aws.Int32(1) }, "InvalidParameterValue", ""},
		"IPv6": {func(t *testing.T, c *cloud, in *ec2.RunInstancesInput) {
			in.SubnetId = aws.String(c.subnet(t, "other", 1))
			in.Ipv6AddressCount = aws.Int32(1)
		}, "", ""},
		"key pair": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) { in.KeyName = aws.String("nobody") }, "InvalidKeyPair.NotFound", ""},
		"profile": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: aws.String("nobody")}
		}, "InvalidParameterValue", ""},
		"profile and key": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.KeyName = aws.String("ops")
			in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: aws.String("machines")}
		}, "", ""},
		"tag reserved": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.TagSpecifications[0].Tags = tags("aws:x", "y")
		}, "InvalidParameterValue", ""},
		"tag twice": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.TagSpecifications[0].Tags = tags("x", "y", "x", "z")
		}, "InvalidParameterValue", ""},
		"tag of a group": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.TagSpecifications[0].ResourceType = "security-group"
		}, "InvalidParameterValue", ""},
		"tag of no spot": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.TagSpecifications[0].ResourceType = "spot-instances-request"
		}, "InvalidParameterValue", ""},
		"specification twice": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.TagSpecifications[1].ResourceType = "instance"
		}, "InvalidParameterValue", ""},
		"hop limit": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.MetadataOptions.HttpPutResponseHopLimit = aws.Int32(65)
		}, "InvalidParameterValue", "InvalidParameterValue"},
		"IMDS token": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) { in.MetadataOptions.HttpTokens = "always" }, "InvalidParameterValue", "InvalidParameterValue"},
		"volume type": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.BlockDeviceMappings = ebs(types.EbsBlockDevice{VolumeSize: aws.Int32(8), VolumeType: "ssd"})
		}, "InvalidParameterValue", "InvalidParameterValue"},
		"volume size": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.BlockDeviceMappings = ebs(types.EbsBlockDevice{VolumeType: "gp3"})
		}, "MissingParameter", ""},
		"volume iops": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.BlockDeviceMappings = ebs(types.EbsBlockDevice{VolumeSize: aws.Int32(100), VolumeType: "gp2", Iops: aws.Int32(3000)})
		}, "InvalidParameterCombination", ""},
		"volume iops low": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.BlockDeviceMappings = ebs(types.EbsBlockDevice{VolumeSize: aws.Int32(100), VolumeType: "gp3", Iops: aws.Int32(2999)})
		}, "InvalidParameterValue", ""},
		"volume io2": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.BlockDeviceMappings = ebs(types.EbsBlockDevice{VolumeSize: aws.Int32(100), VolumeType: "io2"})
		}, "MissingParameter", ""},
		"root small": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.BlockDeviceMappings = root(types.EbsBlockDevice{VolumeSize: aws.Int32(4)})
		}, "InvalidBlockDeviceMapping", ""},
		"root large": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.BlockDeviceMappings = root(types.EbsBlockDevice{VolumeSize: aws.Int32(40), VolumeType: "gp3", Encrypted: aws.Bool(true), Iops: aws.Int32(4000)})
		}, "", ""},
		"spot": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: "spot"}
		}, "", ""},
		"spot stop": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: "spot", SpotOptions: &types.SpotMarketOptions{InstanceInterruptionBehavior: "stop"}}
		}, "InvalidParameterCombination", ""},
		"spot price": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) {
			in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: "spot", SpotOptions: &types.SpotMarketOptions{MaxPrice: aws.String("0.001")}}
		}, "SpotMaxPriceTooLow", ""},
		"capacity": {func(_ *testing.T, c *cloud, _ *ec2.RunInstancesInput) { c.SetCapacity("t3.micro", "", 0) }, "InsufficientInstanceCapacity", ""},
		"quota":    {func(_ *testing.T, c *cloud, _ *ec2.RunInstancesInput) { c.SetQuota(1) }, "VcpuLimitExceeded", ""},
		"unsupported zone": {func(t *testing.T, c *cloud, in *ec2.RunInstancesInput) {
			in.InstanceType = "m5.metal"
			in.SubnetId = aws.String(c.subnet(t, "default", 2))
		}, "Unsupported", ""},
		"dry run":         {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) { in.DryRun = aws.Bool(true) }, "DryRunOperation", ""},
		"denied":          {func(_ *testing.T, c *cloud, _ *ec2.RunInstancesInput) { c.Deny("RunInstances", true) }, "UnauthorizedOperation", ""},
		"throttled":       {func(_ *testing.T, c *cloud, _ *ec2.RunInstancesInput) { c.Throttle("RunInstances", 1) }, "RequestLimitExceeded", ""},
		"not implemented": {func(_ *testing.T, _ *cloud, in *ec2.RunInstancesInput) { in.KernelId = aws.String("aki-1") }, "UnsupportedOperation", "UnsupportedOperation"},
		"other VPC":       {func(t *testing.T, c *cloud, in *ec2.RunInstancesInput) { in.SubnetId = aws.String(other(c, t)) }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, ec2test.Config{})
			in := c.wish(t, "m-1")
			tt.change(t, c, in)
			if tt.violation != "" {
				c.Expect(tt.violation)
			}
			_, err := c.ec2.RunInstances(t.Context(), in)
			wantCode(t, err, tt.want)
			if n := len(c.Instances()); (tt.want == "") != (n == 1) {
				t.Errorf("%d instances were launched", n)
			}
		})
	}
}
