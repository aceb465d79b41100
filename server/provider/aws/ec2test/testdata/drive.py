"""Drives the EC2 test server through the life of instances with boto3, the vendor's own client for Python.

Usage: drive.py URL REGION KEY SECRET. Everything that boto3 parses is compared with what it must be.
"""

import sys
import uuid

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

URL, REGION, KEY, SECRET = sys.argv[1:]


def client(service, key=KEY, secret=SECRET, token=None):
    return boto3.client(
        service, region_name=REGION, endpoint_url=URL, aws_access_key_id=key, aws_secret_access_key=secret,
        aws_session_token=token, config=Config(retries={"max_attempts": 0}, connect_timeout=5, read_timeout=30))


ec2 = client("ec2")
FAST = {"Delay": 1, "MaxAttempts": 30}


def refused(code, call, **kwargs):
    try:
        call(**kwargs)
    except ClientError as e:
        got = e.response["Error"]["Code"]
        assert got == code, f"{call.__name__}: {got}, not {code}: {e}"
        return e.response
    raise AssertionError(f"{call.__name__} was not refused with {code}")


def tags(kind, **kv):
    return {"ResourceType": kind, "Tags": [{"Key": k, "Value": v} for k, v in kv.items()]}


def catalog():
    vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]
    assert vpc["CidrBlock"] == "172.31.0.0/16" and vpc["State"] == "available", vpc
    pages = ec2.get_paginator("describe_subnets").paginate(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}], PaginationConfig={"PageSize": 5})
    subnets = sorted((s for p in pages for s in p["Subnets"]), key=lambda s: s["AvailabilityZone"])
    assert [s["AvailabilityZone"] for s in subnets] == [REGION + z for z in "abc"], subnets
    assert subnets[0]["AvailableIpAddressCount"] == 4096 - 5 and subnets[0]["DefaultForAz"] is True, subnets[0]
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert {z["State"] for z in zones} == {"available"} and len(zones) == 3
    kinds = [t for p in ec2.get_paginator("describe_instance_types").paginate(PaginationConfig={"PageSize": 5}) for t in p["InstanceTypes"]]
    micro = next(t for t in kinds if t["InstanceType"] == "t3.micro")
    assert micro["VCpuInfo"]["DefaultVCpus"] == 2 and micro["MemoryInfo"]["SizeInMiB"] == 1024, micro
    assert micro["ProcessorInfo"]["SupportedArchitectures"] == ["x86_64"] and len(kinds) > 10
    offers = ec2.describe_instance_type_offerings(LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["m6g.*"]}])
    assert {o["Location"] for o in offers["InstanceTypeOfferings"]} == {REGION + "a", REGION + "b"}, offers
    images = ec2.describe_images(Owners=["136693071363"], Filters=[{"Name": "name", "Values": ["debian-12-amd64-*"]}])["Images"]
    newest = max(images, key=lambda i: i["CreationDate"])
    ssm = client("ssm")
    parameter = ssm.get_parameter(Name="/aws/service/debian/release/12/latest/amd64")["Parameter"]
    assert parameter["Value"] == newest["ImageId"] and parameter["DataType"] == "aws:ec2:image", parameter
    some = ssm.get_parameters(Names=["/aws/service/debian/release/12/latest/arm64", "/none"])
    assert some["InvalidParameters"] == ["/none"] and len(some["Parameters"]) == 1, some
    assert newest["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 8 and newest["RootDeviceName"] == "/dev/xvda", newest
    refused("InvalidParameterValue", ec2.describe_regions, RegionNames=["mars-1"])
    return vpc["VpcId"], [s["SubnetId"] for s in subnets], newest["ImageId"]


def groups(vpc):
    made = ec2.create_security_group(GroupName="provisionr-web", Description="web", VpcId=vpc, TagSpecifications=[tags("security-group", cluster="c1")])
    web = made["GroupId"]
    ec2.get_waiter("security_group_exists").wait(GroupIds=[web], WaiterConfig=FAST)
    refused("InvalidGroup.Duplicate", ec2.create_security_group, GroupName="provisionr-web", Description="web", VpcId=vpc)
    db = ec2.create_security_group(GroupName="provisionr-db", Description="db", VpcId=vpc)["GroupId"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.0.0.0/8", "Description": "ops"}], "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}]}
    rules = ec2.authorize_security_group_ingress(GroupId=web, IpPermissions=[ssh])["SecurityGroupRules"]
    assert len(rules) == 2 and {r.get("CidrIpv4") or r.get("CidrIpv6") for r in rules} == {"10.0.0.0/8", "2001:db8::/32"}, rules
    refused("InvalidPermission.Duplicate", ec2.authorize_security_group_ingress, GroupId=web, IpPermissions=[ssh])
    pair = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": web}]}
    ec2.authorize_security_group_ingress(GroupId=db, IpPermissions=[pair])
    refused("DependencyViolation", ec2.delete_security_group, GroupId=web)
    seen = {g["GroupId"]: g for p in ec2.get_paginator("describe_security_groups").paginate(PaginationConfig={"PageSize": 5}) for g in p["SecurityGroups"]}
    permission = seen[web]["IpPermissions"][0]
    assert (permission["FromPort"], permission["ToPort"], permission["IpProtocol"]) == (22, 22, "tcp"), permission
    assert permission["IpRanges"] == [{"CidrIp": "10.0.0.0/8", "Description": "ops"}], permission
    assert seen[db]["IpPermissions"][0]["UserIdGroupPairs"][0]["GroupId"] == web, seen[db]
    assert seen[web]["Tags"] == [{"Key": "cluster", "Value": "c1"}], seen[web]
    listed = [r for p in ec2.get_paginator("describe_security_group_rules").paginate(Filters=[{"Name": "group-id", "Values": [web]}], PaginationConfig={"PageSize": 5}) for r in p["SecurityGroupRules"]]
    assert len(listed) == 3 and sum(r["IsEgress"] for r in listed) == 1, listed
    ec2.revoke_security_group_ingress(GroupId=db, IpPermissions=[pair])
    refused("InvalidPermission.NotFound", ec2.revoke_security_group_ingress, GroupId=db, IpPermissions=[pair])
    one = next(r["SecurityGroupRuleId"] for r in listed if r.get("CidrIpv6"))
    assert ec2.revoke_security_group_ingress(GroupId=web, SecurityGroupRuleIds=[one])["Return"] is True
    ec2.delete_security_group(GroupId=db)
    refused("InvalidGroup.NotFound", ec2.describe_security_groups, GroupIds=[db])
    return web


def life(subnets, image, group):
    token = "m-" + uuid.uuid4().hex
    user_data = "#cloud-config\n# ü"
    request = dict(
        ImageId=image, InstanceType="t3.micro", MinCount=1, MaxCount=1, ClientToken=token, KeyName="ops", UserData=user_data,
        NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": subnets[0], "Groups": [group], "AssociatePublicIpAddress": True, "DeleteOnTermination": True}],
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 20, "VolumeType": "gp3", "Iops": 3500, "Encrypted": True, "DeleteOnTermination": True}},
            {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 5, "VolumeType": "gp2", "DeleteOnTermination": False}}],
        IamInstanceProfile={"Name": "machines"}, MetadataOptions={"HttpTokens": "required", "HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 2},
        TagSpecifications=[tags("instance", Name="web-1", cluster="c1"), tags("volume", cluster="c1"), tags("network-interface", cluster="c1")])
    reservation = ec2.run_instances(**request)
    made = reservation["Instances"][0]
    iid = made["InstanceId"]
    assert made["State"] == {"Code": 0, "Name": "pending"} and made["ClientToken"] == token, made
    assert reservation["OwnerId"] == "123456789012" and "PublicIpAddress" not in made, reservation
    assert ec2.run_instances(**request)["Instances"][0]["InstanceId"] == iid
    refused("IdempotentParameterMismatch", ec2.run_instances, **{**request, "InstanceType": "t3.small"})
    refused("InvalidParameterCombination", ec2.run_instances, **{**request, "SubnetId": subnets[0], "ClientToken": token + "x"})
    refused("InvalidParameterValue", ec2.run_instances, **{**request, "UserData": "x" * 16385, "ClientToken": token + "y"})
    refused("DryRunOperation", ec2.run_instances, **{**request, "DryRun": True, "ClientToken": token + "z"})
    ec2.get_waiter("instance_running").wait(InstanceIds=[iid], WaiterConfig=FAST)
    i = ec2.describe_instances(InstanceIds=[iid])["Reservations"][0]["Instances"][0]
    assert i["State"]["Name"] == "running" and i["PublicIpAddress"] and i["PrivateIpAddress"].startswith("172.31."), i
    assert i["MetadataOptions"]["HttpTokens"] == "required" and i["MetadataOptions"]["HttpPutResponseHopLimit"] == 2, i
    assert i["SecurityGroups"] == [{"GroupId": group, "GroupName": "provisionr-web"}] and i["IamInstanceProfile"]["Arn"].endswith("/machines"), i
    assert {t["Key"]: t["Value"] for t in i["Tags"]} == {"Name": "web-1", "cluster": "c1"}, i
    assert [d["DeviceName"] for d in i["BlockDeviceMappings"]] == ["/dev/xvda", "/dev/sdf"], i
    assert abs((i["LaunchTime"] - made["LaunchTime"]).total_seconds()) < 1
    disks = {v["Attachments"][0]["Device"]: v for v in ec2.describe_volumes(Filters=[{"Name": "tag:cluster", "Values": ["c1"]}])["Volumes"]}
    assert disks["/dev/xvda"]["Encrypted"] is True and disks["/dev/xvda"]["Iops"] == 3500 and disks["/dev/sdf"]["Size"] == 5, disks
    nic = ec2.describe_network_interfaces(Filters=[{"Name": "attachment.instance-id", "Values": [iid]}])["NetworkInterfaces"][0]
    assert nic["Status"] == "in-use" and nic["Association"]["PublicIp"] == i["PublicIpAddress"], nic
    refused("InvalidParameterCombination", ec2.describe_instances, InstanceIds=[iid], MaxResults=5)
    refused("InvalidInstanceID.NotFound", ec2.describe_instances, InstanceIds=["i-0123456789abcdef0"])
    refused("InvalidInstanceID.Malformed", ec2.describe_instances, InstanceIds=["web-1"])
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=[iid], WaiterConfig=FAST)
    console = ec2.get_console_output(InstanceId=iid)
    assert console["InstanceId"] == iid and not console.get("Output"), console
    ec2.create_tags(Resources=[iid], Tags=[{"Key": "extra", "Value": "1"}])
    assert ec2.describe_instances(Filters=[{"Name": "tag:extra", "Values": ["1"]}])["Reservations"]
    ec2.delete_tags(Resources=[iid], Tags=[{"Key": "extra"}])
    assert not ec2.describe_instances(Filters=[{"Name": "tag:extra", "Values": ["1"]}])["Reservations"]
    change = ec2.terminate_instances(InstanceIds=[iid])["TerminatingInstances"][0]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "shutting-down"), change
    ec2.get_waiter("instance_terminated").wait(InstanceIds=[iid], WaiterConfig=FAST)
    refused("IdempotentInstanceTerminated", ec2.run_instances, **request)
    left = ec2.describe_volumes(Filters=[{"Name": "tag:cluster", "Values": ["c1"]}])["Volumes"]
    assert [v["State"] for v in left] == ["available"], left
    ec2.delete_volume(VolumeId=left[0]["VolumeId"])
    ec2.get_waiter("volume_deleted").wait(VolumeIds=[left[0]["VolumeId"]], WaiterConfig=FAST)
    ec2.delete_security_group(GroupId=group)


def batch(subnets, image):
    made = ec2.run_instances(ImageId=image, InstanceType="t3.small", MinCount=1, MaxCount=23, SubnetId=subnets[1], TagSpecifications=[tags("instance", batch="b")])["Instances"]
    assert sorted(i["AmiLaunchIndex"] for i in made) == list(range(23))
    pages = list(ec2.get_paginator("describe_instances").paginate(Filters=[{"Name": "tag:batch", "Values": ["b"]}], PaginationConfig={"PageSize": 5}))
    ids = {i["InstanceId"] for p in pages for r in p["Reservations"] for i in r["Instances"]}
    assert ids == {i["InstanceId"] for i in made} and len(pages) == 5, (len(pages), ids)
    ec2.terminate_instances(InstanceIds=sorted(ids))


def spot(subnets, image):
    made = ec2.run_instances(
        ImageId=image, InstanceType="t3.micro", MinCount=1, MaxCount=1, SubnetId=subnets[2],
        InstanceMarketOptions={"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time", "MaxPrice": "0.05"}},
        TagSpecifications=[tags("spot-instances-request", cluster="s")])["Instances"][0]
    assert made["InstanceLifecycle"] == "spot", made
    r = ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[made["SpotInstanceRequestId"]])["SpotInstanceRequests"][0]
    assert (r["State"], r["Status"]["Code"], r["InstanceId"], r["SpotPrice"]) == ("active", "fulfilled", made["InstanceId"], "0.05"), r
    ec2.terminate_instances(InstanceIds=[made["InstanceId"]])
    r = ec2.describe_spot_instance_requests(Filters=[{"Name": "tag:cluster", "Values": ["s"]}])["SpotInstanceRequests"][0]
    assert (r["State"], r["Status"]["Code"]) == ("closed", "instance-terminated-by-user"), r


def identity():
    sts = client("sts")
    assert sts.get_caller_identity()["Account"] == "123456789012"
    refused("AccessDenied", sts.assume_role, RoleArn="arn:aws:iam::123456789012:role/none", RoleSessionName="drive")
    role = sts.assume_role(RoleArn="arn:aws:iam::123456789012:role/provisionr", RoleSessionName="drive")["Credentials"]
    as_role = client("ec2", role["AccessKeyId"], role["SecretAccessKey"], role["SessionToken"])
    assert len(as_role.describe_availability_zones()["AvailabilityZones"]) == 3
    e = refused("AuthFailure", client("ec2", secret="wrong").describe_regions)
    assert e["ResponseMetadata"]["HTTPStatusCode"] == 401 and e["ResponseMetadata"]["RequestId"], e
    keys = ec2.describe_key_pairs()["KeyPairs"]
    assert [k["KeyName"] for k in keys] == ["ops"], keys
    names = {a["AttributeName"] for a in ec2.describe_account_attributes()["AccountAttributes"]}
    assert "default-vpc" in names, names


vpc_id, subnet_ids, image_id = catalog()
web_group = groups(vpc_id)
life(subnet_ids, image_id, web_group)
batch(subnet_ids, image_id)
spot(subnet_ids, image_id)
identity()
print("driven by boto3", boto3.__version__)
