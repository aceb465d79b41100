package model_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/server/provider/aws/ec2test/model"
)

func load(tb testing.TB) *model.Models {
	tb.Helper()
	m, err := model.Load()
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func texts(problems []model.Problem) []string {
	var out []string
	for _, p := range problems {
		out = append(out, p.Code+" "+p.Path)
	}
	return out
}

func TestQuery(t *testing.T) {
	m := load(t)
	for name, tt := range map[string]struct {
		service *model.Service
		action  string
		form    string
		want    map[string]any
		wrong   []string
	}{
		"nested": {m.EC2, "RunInstances", "MinCount=1&MaxCount=2&NetworkInterface.1.SecurityGroupId.1=sg-1&NetworkInterface.1.DeviceIndex=0&TagSpecification.1.Tag.1.Key=a&ClientToken=x&MetadataOptions.HttpTokens=required",
			map[string]any{
				"MinCount": int64(1), "MaxCount": int64(2), "ClientToken": "x", "MetadataOptions": map[string]any{"HttpTokens": "required"},
				"NetworkInterfaces": []any{map[string]any{"Groups": []any{"sg-1"}, "DeviceIndex": int64(0)}},
				"TagSpecifications": []any{map[string]any{"Tags": []any{map[string]any{"Key": "a"}}}},
			}, nil},
		"queryName":     {m.EC2, "RunInstances", "MinCount=1&MaxCount=1&NetworkInterface.1.Ipv6Addresses.1.Ipv6Address=::1", map[string]any{"MinCount": int64(1), "MaxCount": int64(1), "NetworkInterfaces": []any{map[string]any{"Ipv6Addresses": []any{map[string]any{"Ipv6Address": "::1"}}}}}, nil},
		"required":      {m.EC2, "RunInstances", "MinCount=1", map[string]any{"MinCount": int64(1)}, []string{"MissingParameter MaxCount"}},
		"lower case":    {m.EC2, "RunInstances", "MinCount=1&MaxCount=1&clientToken=x", map[string]any{"MinCount": int64(1), "MaxCount": int64(1)}, []string{"UnknownParameter clientToken"}},
		"singular":      {m.EC2, "DescribeInstances", "InstanceIds.1=i-1", map[string]any{}, []string{"UnknownParameter InstanceIds"}},
		"enum":          {m.EC2, "RunInstances", "MinCount=1&MaxCount=1&InstanceMarketOptions.MarketType=cheap", map[string]any{"MinCount": int64(1), "MaxCount": int64(1), "InstanceMarketOptions": map[string]any{"MarketType": "cheap"}}, []string{"InvalidParameterValue InstanceMarketOptions.MarketType"}},
		"number":        {m.EC2, "RunInstances", "MinCount=one&MaxCount=9999999999", map[string]any{}, []string{"InvalidParameterValue MaxCount", "InvalidParameterValue MinCount"}},
		"bounds":        {m.EC2, "DescribeVpcs", "MaxResults=4", map[string]any{"MaxResults": int64(4)}, []string{"InvalidParameterValue MaxResults"}},
		"part of value": {m.EC2, "DescribeVpcs", "NextToken.1=x", map[string]any{}, []string{"UnknownParameter NextToken"}},
		"value of part": {m.EC2, "DescribeVpcs", "Filter.1=x", map[string]any{"Filters": []any{map[string]any{}}}, []string{"InvalidParameterValue Filter.1"}},
		"no input":      {m.STS, "GetCallerIdentity", "X=1", map[string]any{}, []string{"UnknownParameter X"}},
		"sts list":      {m.STS, "AssumeRole", "RoleArn=arn:aws:iam::123456789012:role/x&RoleSessionName=ab&TransitiveTagKeys.member.1=x", map[string]any{"RoleArn": "arn:aws:iam::123456789012:role/x", "RoleSessionName": "ab", "TransitiveTagKeys": []any{"x"}}, nil},
		"sts flat list": {m.STS, "AssumeRole", "RoleArn=arn:aws:iam::123456789012:role/x&RoleSessionName=ab&TransitiveTagKeys.1=x", map[string]any{"RoleArn": "arn:aws:iam::123456789012:role/x", "RoleSessionName": "ab", "TransitiveTagKeys": []any{}}, []string{"UnknownParameter TransitiveTagKeys.member.1"}},
		"length":        {m.STS, "AssumeRole", "RoleArn=arn:aws:iam::123456789012:role/x&RoleSessionName=a", map[string]any{"RoleArn": "arn:aws:iam::123456789012:role/x", "RoleSessionName": "a"}, []string{"InvalidParameterValue RoleSessionName"}},
		"pattern":       {m.STS, "AssumeRole", "RoleArn=arn:aws:iam::123456789012:role/x&RoleSessionName=a%20b", map[string]any{"RoleArn": "arn:aws:iam::123456789012:role/x", "RoleSessionName": "a b"}, []string{"InvalidParameterValue RoleSessionName"}},
	} {
		t.Run(name, func(t *testing.T) {
			form, err := url.ParseQuery(tt.form)
			if err != nil {
				t.Fatal(err)
			}
			got, problems := tt.service.Query(tt.action, form)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.wrong, texts(problems)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestXML(t *testing.T) {
	m := load(t)
	const id = "<requestId>01234567-89ab-4def-8123-456789abcdef</requestId>"
	const open = `<DescribeVpcsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">`
	const end = "</DescribeVpcsResponse>"
	for name, tt := range map[string]struct {
		action, body string
		wrong        string
	}{
		"good":             {"DescribeVpcs", open + id + "<vpcSet><item><vpcId>vpc-1</vpcId><isDefault>true</isDefault></item></vpcSet>" + end, ""},
		"empty string":     {"DescribeVpcs", open + id + "<vpcSet><item><vpcId/></item></vpcSet>" + end, ""},
		"unknown element":  {"DescribeVpcs", open + id + "<vpcSet><item><vpcID>vpc-1</vpcID></item></vpcSet>" + end, "not of the model's Vpc"},
		"name of member":   {"DescribeVpcs", open + id + "<Vpcs/>" + end, "not of the model's DescribeVpcsResult"},
		"flattened list":   {"DescribeVpcs", open + id + "<vpcSet><vpcId>vpc-1</vpcId></vpcSet>" + end, "the item is vpcId, not item"},
		"enum":             {"DescribeVpcs", open + id + "<vpcSet><item><state>fine</state></item></vpcSet>" + end, "not a value of VpcState"},
		"boolean":          {"DescribeVpcs", open + id + "<vpcSet><item><isDefault/></item></vpcSet>" + end, "not a boolean"},
		"twice":            {"DescribeVpcs", open + id + "<vpcSet/><vpcSet/>" + end, "more than once"},
		"text":             {"DescribeVpcs", open + id + "<vpcSet>none</vpcSet>" + end, "a list has text"},
		"no request id":    {"DescribeVpcs", open + "<vpcSet/>" + end, "is there 0 times"},
		"namespace":        {"DescribeVpcs", strings.Replace(open, "2016", "2014", 1) + id + end, "namespace"},
		"other action":     {"DescribeSubnets", open + id + end, "is not DescribeSubnetsResponse"},
		"not XML":          {"DescribeVpcs", "{}", "not XML"},
		"cut":              {"DescribeVpcs", open + id + "<vpcSet><item>", "not XML"},
		"return":           {"CreateTags", `<CreateTagsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">` + id + "<return>true</return></CreateTagsResponse>", ""},
		"more than return": {"CreateTags", `<CreateTagsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">` + id + "<tagSet/></CreateTagsResponse>", "nothing but return"},
		"time":             {"GetConsoleOutput", `<GetConsoleOutputResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">` + id + "<timestamp>yesterday</timestamp></GetConsoleOutputResponse>", "not a time"},
	} {
		t.Run(name, func(t *testing.T) {
			problems := m.EC2.XML(tt.action, []byte(tt.body))
			if tt.wrong == "" && len(problems) > 0 || tt.wrong != "" && (len(problems) == 0 || !strings.Contains(problems[0].String(), tt.wrong)) {
				t.Errorf("problems %v", problems)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	m := load(t)
	for body, want := range map[string][]string{
		`{"Name":"x","WithDecryption":false}`: nil,
		`{"WithDecryption":false}`:            {"MissingParameter Name"},
		`{"Name":"x","Color":1}`:              {"UnknownParameter Color"},
		`{"Name":7}`:                          {"InvalidParameterValue Name"},
		`[]`:                                  {"SerializationException "},
	} {
		if _, problems := m.SSM.JSONRequest("GetParameter", []byte(body)); !cmp.Equal(want, texts(problems)) {
			t.Errorf("%s: %v", body, problems)
		}
	}
	if problems := m.SSM.JSONAnswer("GetParameter", []byte(`{"Parameter":{"Version":1,"LastModifiedDate":1.5,"Type":"String"}}`)); len(problems) > 0 {
		t.Error(problems)
	}
	if problems := m.SSM.JSONAnswer("GetParameter", []byte(`{"Parameter":{"Type":"Number","Version":"1"}}`)); len(problems) != 2 {
		t.Error(problems)
	}
}

func FuzzQuery(f *testing.F) {
	m := load(f)
	f.Add("MinCount=1&MaxCount=1&TagSpecification.1.Tag.1.Key=a")
	f.Add("Filter.1.Name=a&Filter.1.Value.2=b&.=&..1=")
	f.Fuzz(func(t *testing.T, text string) {
		form, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		m.EC2.Query("RunInstances", form)
		m.STS.Query("AssumeRole", form)
	})
}

func FuzzXML(f *testing.F) {
	m := load(f)
	f.Add([]byte("<RunInstancesResponse><instancesSet><item/></instancesSet></RunInstancesResponse>"))
	f.Fuzz(func(t *testing.T, body []byte) { m.EC2.XML("RunInstances", body) })
}
