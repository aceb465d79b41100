package aws

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// defaultVolume is the type of disks that name none but want something that the image's or EC2's default may not have.
const defaultVolume = types.VolumeTypeGp3

// token is the ClientToken of a launch attempt, at most 64 characters.
func token(r *provisionrv1.LaunchRequest) string {
	if r.GetAttempt() > 1 {
		return r.GetMachineId() + "-" + strconv.FormatUint(uint64(r.GetAttempt()), 10)
	}
	return r.GetMachineId()
}

// runInput is the request for a machine. It is a pure function: a repeated launch must send the same bytes. Errors are
// Invalid.
func runInput(r *provisionrv1.LaunchRequest, userData []byte) (*ec2.RunInstancesInput, error) {
	choice, placement, hardware := r.GetChoice(), r.GetPlacement(), r.GetHardware()
	tags := machineTags(r)
	refuse := func(format string, args ...any) (*ec2.RunInstancesInput, error) {
		return nil, provider.Errorf(provider.Invalid, "cannot launch machine "+r.GetMachineId()+": "+format, args...)
	}
	switch {
	case r.GetMachineId() == "":
		return refuse("the request names no machine")
	case len(userData) > userDataLimit:
		return refuse("user-data has %d bytes, more than %d", len(userData), userDataLimit)
	case choice.GetImage() == "" || choice.GetType() == "":
		return refuse("the request has no choice of image and type")
	case len(tags) >= tagLimit:
		return refuse("%d labels are too many for tags", len(r.GetLabels()))
	}
	devices, err := blockDevices(choice, hardware)
	if err != nil {
		return refuse("%w", err)
	}
	input := &ec2.RunInstancesInput{
		ClientToken:         awssdk.String(token(r)),
		MinCount:            awssdk.Int32(1),
		MaxCount:            awssdk.Int32(1),
		ImageId:             awssdk.String(choice.GetImage()),
		InstanceType:        types.InstanceType(choice.GetType()),
		UserData:            awssdk.String(base64.StdEncoding.EncodeToString(userData)),
		BlockDeviceMappings: devices,
		NetworkInterfaces:   []types.InstanceNetworkInterfaceSpecification{networkInterface(r)},
		TagSpecifications:   tagSpecifications(choice, hardware, tags),
		// Version 2 of the metadata service answers nobody but the instance itself: not what it forwards requests for.
		MetadataOptions: &types.InstanceMetadataOptionsRequest{
			HttpEndpoint: types.InstanceMetadataEndpointStateEnabled, HttpTokens: types.HttpTokensStateRequired, HttpPutResponseHopLimit: awssdk.Int32(1),
		},
	}
	if name := placement.GetKeyPair(); name != "" {
		input.KeyName = awssdk.String(name)
	}
	if name := placement.GetIdentity(); strings.HasPrefix(name, "arn:") {
		input.IamInstanceProfile = &types.IamInstanceProfileSpecification{Arn: awssdk.String(name)}
	} else if name != "" {
		input.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: awssdk.String(name)}
	}
	if placement.GetGroup() != "" || choice.GetSubnet() == "" && choice.GetZone() != "" {
		input.Placement = &types.Placement{}
		if placement.GetGroup() != "" {
			input.Placement.GroupName = awssdk.String(placement.GetGroup())
		}
		if choice.GetZone() != "" {
			input.Placement.AvailabilityZone = awssdk.String(choice.GetZone())
		}
	}
	if choice.GetSpot() {
		options := &types.SpotMarketOptions{
			SpotInstanceType: types.SpotInstanceTypeOneTime, InstanceInterruptionBehavior: types.InstanceInterruptionBehaviorTerminate,
		}
		if choice.GetMaxPrice() != "" {
			options.MaxPrice = awssdk.String(choice.GetMaxPrice())
		}
		input.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: types.MarketTypeSpot, SpotOptions: options}
	}
	return input, nil
}

// networkInterface is the machine's only one. It says explicitly whether it has a public address: the subnet's own default
// is not what the pool says.
func networkInterface(r *provisionrv1.LaunchRequest) types.InstanceNetworkInterfaceSpecification {
	n := types.InstanceNetworkInterfaceSpecification{
		DeviceIndex:              awssdk.Int32(0),
		DeleteOnTermination:      awssdk.Bool(true),
		AssociatePublicIpAddress: awssdk.Bool(r.GetPlacement().GetPublicAddress()),
		Groups:                   r.GetChoice().GetGroups(), // none: the network's default group, which lets in its own members only
	}
	if subnet := r.GetChoice().GetSubnet(); subnet != "" {
		n.SubnetId = awssdk.String(subnet)
	}
	if address := r.GetAddress(); address != "" {
		n.PrivateIpAddress = awssdk.String(address)
	}
	if r.GetPlacement().GetIpv6() {
		n.Ipv6AddressCount = awssdk.Int32(1)
	}
	return n
}

func tagSpecifications(choice *provisionrv1.Choice, hardware *provisionrv1.Hardware, tags []types.Tag) []types.TagSpecification {
	volumes := tags
	if keeps(hardware) {
		volumes = append(append([]types.Tag(nil), tags...), types.Tag{Key: awssdk.String(tagKeep), Value: awssdk.String("true")})
	}
	all := []types.TagSpecification{
		{ResourceType: types.ResourceTypeInstance, Tags: tags},
		{ResourceType: types.ResourceTypeVolume, Tags: volumes},
		{ResourceType: types.ResourceTypeNetworkInterface, Tags: tags},
	}
	if choice.GetSpot() {
		all = append(all, types.TagSpecification{ResourceType: types.ResourceTypeSpotInstancesRequest, Tags: tags})
	}
	return all
}

func keeps(h *provisionrv1.Hardware) bool {
	for _, d := range h.GetDisks() {
		if d.GetKeep() {
			return true
		}
	}
	return h.GetRootDisk().GetKeep()
}

// blockDevices are the root disk, with what the pool says of it over the image's mapping, and the further disks.
func blockDevices(choice *provisionrv1.Choice, h *provisionrv1.Hardware) ([]types.BlockDeviceMapping, error) {
	if err := checkDisks(h); err != nil {
		return nil, err
	}
	var all []types.BlockDeviceMapping
	if device := choice.GetRootDevice(); device != "" {
		root := ebs(h.GetRootDisk())
		if size := choice.GetExtra()[extraRootGiB]; size != "" {
			gib, err := strconv.ParseInt(size, 10, 32)
			if err != nil || gib <= 0 {
				return nil, fmt.Errorf("the choice has a root disk of %q GiB", size)
			}
			root.VolumeSize = awssdk.Int32(int32(gib))
		}
		all = append(all, types.BlockDeviceMapping{DeviceName: awssdk.String(device), Ebs: root})
	} else if h.GetRootDisk() != nil || h.GetDiskGib() > 0 {
		return nil, fmt.Errorf("the choice does not name the image's root device")
	}
	for i, d := range h.GetDisks() {
		volume := ebs(d)
		volume.VolumeSize = awssdk.Int32(int32(d.GetSizeGib()))
		if volume.VolumeType == "" {
			volume.VolumeType = defaultVolume
		}
		all = append(all, types.BlockDeviceMapping{DeviceName: awssdk.String(deviceName(i)), Ebs: volume})
	}
	return all, nil
}

// ebs is a volume without its size.
func ebs(d *provisionrv1.Disk) *types.EbsBlockDevice {
	volume := &types.EbsBlockDevice{DeleteOnTermination: awssdk.Bool(!d.GetKeep()), VolumeType: types.VolumeType(d.GetType())}
	if d.GetIops() > 0 {
		volume.Iops = awssdk.Int32(int32(d.GetIops()))
	}
	if d.GetThroughputMibps() > 0 {
		volume.Throughput = awssdk.Int32(int32(d.GetThroughputMibps()))
	}
	if volume.VolumeType == "" && (volume.Iops != nil || volume.Throughput != nil) {
		volume.VolumeType = defaultVolume
	}
	if d.GetEncrypted() {
		// False is left out: it is refused for images whose snapshots are encrypted.
		volume.Encrypted = awssdk.Bool(true)
	}
	return volume
}

// deviceName of a further disk: /dev/sdf to /dev/sdp are what EC2 recommends, and /dev/xvdba to /dev/xvdbz are free as well
// ("Device names for volumes on Amazon EC2 instances", EC2 User Guide).
func deviceName(i int) string {
	const recommended = 'p' - 'f' + 1
	if i < recommended {
		return "/dev/sd" + string(rune('f'+i))
	}
	return "/dev/xvdb" + string(rune('a'+i-recommended))
}

// disksLimit is how many names deviceName has.
const disksLimit = 11 + 26

// checkDisks refuses disks that EC2 cannot make. Errors are Invalid.
func checkDisks(h *provisionrv1.Hardware) error {
	if len(h.GetDisks()) > disksLimit {
		return provider.Errorf(provider.Invalid, "%d disks are more than %d", len(h.GetDisks()), disksLimit)
	}
	for i, d := range h.GetDisks() {
		if d.GetSizeGib() == 0 {
			return provider.Errorf(provider.Invalid, "disk %d has no size", i+1)
		}
	}
	var known []string
	for _, v := range types.VolumeType("").Values() {
		known = append(known, string(v))
	}
	for _, d := range append([]*provisionrv1.Disk{h.GetRootDisk()}, h.GetDisks()...) {
		if t := d.GetType(); t != "" && !slices.Contains(known, t) {
			return unknownName("volume type", t, known)
		}
	}
	return nil
}
