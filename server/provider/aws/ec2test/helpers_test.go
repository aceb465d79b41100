package ec2test_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/provisionr/provisionr/server/provider/aws/ec2test"
)

// cloud is a server with the vendor's clients.
type cloud struct {
	*ec2test.Server
	ec2  *ec2.Client
	ssm  *ssm.Client
	sts  *sts.Client
	http *http.Client
}

func start(tb testing.TB, config ec2test.Config) *cloud {
	tb.Helper()
	s := ec2test.Start(tb, config)
	return connect(tb, s)
}

func connect(tb testing.TB, s *ec2test.Server) *cloud {
	c := &cloud{Server: s, http: s.Client(tb)}
	cfg := aws.Config{
		Region: s.Config().Region, HTTPClient: c.http, Retryer: func() aws.Retryer { return aws.NopRetryer{} },
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: s.Config().AccessKeyID, SecretAccessKey: s.Config().SecretAccessKey}, nil
		}),
	}
	c.ec2, c.ssm, c.sts = ec2.NewFromConfig(cfg), ssm.NewFromConfig(cfg), sts.NewFromConfig(cfg)
	return c
}

// code is the error code of an API error; "" for none, "?" for an error that is not of the API.
func code(err error) string {
	var api smithy.APIError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &api):
		return api.ErrorCode()
	}
	return "?"
}

func wantCode(tb testing.TB, err error, want string) {
	tb.Helper()
	if got := code(err); got != want {
		tb.Fatalf("the error code is %q (%v), not %q", got, err, want)
	}
}

// debian is the id of the newest Debian image.
func (c *cloud) debian(tb testing.TB) string {
	tb.Helper()
	out, err := c.ssm.GetParameter(tb.Context(), &ssm.GetParameterInput{Name: aws.String("/aws/service/debian/release/12/latest/amd64")})
	if err != nil {
		tb.Fatal(err)
	}
	return *out.Parameter.Value
}

// wish is a request that is right in every way.
func (c *cloud) wish(tb testing.TB, token string) *ec2.RunInstancesInput {
	tb.Helper()
	return &ec2.RunInstancesInput{
		ImageId: aws.String(c.debian(tb)), InstanceType: "t3.micro", MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
		ClientToken: aws.String(token), UserData: aws.String(base64.StdEncoding.EncodeToString([]byte("#cloud-config\n"))),
		SubnetId:        aws.String(c.subnet(tb, "default", 0)),
		MetadataOptions: &types.InstanceMetadataOptionsRequest{HttpTokens: "required", HttpEndpoint: "enabled", HttpPutResponseHopLimit: aws.Int32(1)},
		TagSpecifications: []types.TagSpecification{
			{ResourceType: "instance", Tags: tags("provisionr-cluster", "c1", "Name", token)},
			{ResourceType: "volume", Tags: tags("provisionr-cluster", "c1")},
			{ResourceType: "network-interface", Tags: tags("provisionr-cluster", "c1")},
		},
	}
}

func tags(pairs ...string) []types.Tag {
	var out []types.Tag
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, types.Tag{Key: aws.String(pairs[i]), Value: aws.String(pairs[i+1])})
	}
	return out
}

func filters(pairs ...string) []types.Filter {
	var out []types.Filter
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, types.Filter{Name: aws.String(pairs[i]), Values: []string{pairs[i+1]}})
	}
	return out
}

// subnet is the n-th subnet by zone of the default VPC or of the one with a name.
func (c *cloud) subnet(tb testing.TB, vpc string, n int) string {
	tb.Helper()
	out, err := c.ec2.DescribeSubnets(tb.Context(), &ec2.DescribeSubnetsInput{Filters: filters("vpc-id", c.vpc(tb, vpc))})
	if err != nil {
		tb.Fatal(err)
	}
	slices.SortFunc(out.Subnets, func(a, b types.Subnet) int {
		if *a.AvailabilityZone < *b.AvailabilityZone {
			return -1
		}
		return 1
	})
	return *out.Subnets[n].SubnetId
}

func (c *cloud) vpc(tb testing.TB, name string) string {
	tb.Helper()
	f := filters("tag:Name", name)
	if name == "default" {
		f = filters("is-default", "true")
	}
	out, err := c.ec2.DescribeVpcs(tb.Context(), &ec2.DescribeVpcsInput{Filters: f})
	if err != nil || len(out.Vpcs) != 1 {
		tb.Fatalf("VPC %s: %v, %v", name, out, err)
	}
	return *out.Vpcs[0].VpcId
}

func (c *cloud) run(tb testing.TB, in *ec2.RunInstancesInput) types.Instance {
	tb.Helper()
	out, err := c.ec2.RunInstances(tb.Context(), in)
	if err != nil {
		tb.Fatal(err)
	}
	return out.Instances[0]
}

func (c *cloud) group(tb testing.TB, name, vpc string) string {
	tb.Helper()
	out, err := c.ec2.CreateSecurityGroup(tb.Context(), &ec2.CreateSecurityGroupInput{
		GroupName: aws.String(name), Description: aws.String("test"), VpcId: aws.String(vpc),
		TagSpecifications: []types.TagSpecification{{ResourceType: "security-group", Tags: tags("provisionr-cluster", "c1")}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return *out.GroupId
}

// all lists the ids of the instances page by page.
func (c *cloud) all(tb testing.TB, size int32, f ...types.Filter) ([]string, int) {
	tb.Helper()
	pages := 0
	var ids []string
	in := &ec2.DescribeInstancesInput{MaxResults: aws.Int32(size), Filters: f}
	for {
		out, err := c.ec2.DescribeInstances(tb.Context(), in)
		if err != nil {
			tb.Fatal(err)
		}
		pages++
		for _, r := range out.Reservations {
			for _, i := range r.Instances {
				ids = append(ids, *i.InstanceId)
			}
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return ids, pages
		}
	}
}
