package ec2test_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/provisionr/provisionr/server/provider/aws/ec2test"
)

func credentialsOf(creds aws.Credentials) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return creds, nil })
}

// raw sends a form as it is, signed by the vendor's signer, after change has had its way with the request.
func (c *cloud) raw(t *testing.T, form string, at time.Time, change func(*http.Request)) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://ec2test/", strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	sum := sha256.Sum256([]byte(form))
	creds := aws.Credentials{AccessKeyID: c.Config().AccessKeyID, SecretAccessKey: c.Config().SecretAccessKey}
	if err := v4.NewSigner().SignHTTP(t.Context(), creds, request, hex.EncodeToString(sum[:]), "ec2", c.Config().Region, at); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(request)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func TestStrictness(t *testing.T) {
	const good = "Action=DescribeRegions&Version=2016-11-15"
	for name, tt := range map[string]struct {
		form   string
		at     time.Duration
		change func(*http.Request)
		status int
		code   string
	}{
		"good":            {form: good, status: 200},
		"skew":            {form: good, at: -16 * time.Minute, status: 400, code: "RequestExpired"},
		"future":          {form: good, at: 16 * time.Minute, status: 400, code: "RequestExpired"},
		"unsigned":        {form: good, change: func(r *http.Request) { r.Header.Del("Authorization") }, status: 403, code: "MissingAuthenticationToken"},
		"not a signature": {form: good, change: func(r *http.Request) { r.Header.Set("Authorization", "Basic eDp5") }, status: 400, code: "IncompleteSignature"},
		"other body": {form: good, change: func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader(good + "&AllRegions=true"))
			r.ContentLength += 16
		}, status: 401, code: "AuthFailure"},
		"other date": {form: good, change: func(r *http.Request) {
			r.Header.Set("X-Amz-Date", time.Now().Add(time.Second).UTC().Format("20060102T150405Z"))
		}, status: 401, code: "AuthFailure"},
		"other key": {form: good, change: func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "AKIAEC2", "AKIANOT", 1))
		}, status: 401, code: "AuthFailure"},
		"unknown action":      {form: "Action=LaunchRocket&Version=2016-11-15", status: 400, code: "InvalidAction"},
		"not implemented":     {form: "Action=DescribeAddresses&Version=2016-11-15", status: 400, code: "UnsupportedOperation"},
		"no action":           {form: "Version=2016-11-15", status: 400, code: "MissingAction"},
		"old version":         {form: "Action=DescribeRegions&Version=2014-10-01", status: 400, code: "InvalidParameterValue"},
		"unknown parameter":   {form: good + "&Color=red", status: 400, code: "UnknownParameter"},
		"wrong case":          {form: good + "&regionName.1=eu-west-1", status: 400, code: "UnknownParameter"},
		"unflattened list":    {form: good + "&RegionName.member.1=eu-west-1", status: 400, code: "MalformedQueryString"},
		"gap in a list":       {form: good + "&RegionName.2=eu-west-1", status: 400, code: "MalformedQueryString"},
		"twice":               {form: good + "&AllRegions=true&AllRegions=true", status: 400, code: "MalformedQueryString"},
		"not a boolean":       {form: good + "&AllRegions=yes", status: 400, code: "InvalidParameterValue"},
		"missing parameter":   {form: "Action=GetConsoleOutput&Version=2016-11-15", status: 400, code: "MissingParameter"},
		"filter of no values": {form: good + "&Filter.1.Name=region-name", status: 400, code: "InvalidParameterValue"},
		"get":                 {form: good, change: func(r *http.Request) { r.Method = http.MethodGet }, status: 400, code: "InvalidAction"},
		"content type":        {form: good, change: func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, status: 400, code: "InvalidQueryParameter"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := ec2test.New(ec2test.Config{})
			if err != nil {
				t.Fatal(err)
			}
			c := connect(t, s)
			status, body := c.raw(t, tt.form, time.Now().Add(tt.at), tt.change)
			if status != tt.status || tt.code != "" && !strings.Contains(body, "<Code>"+tt.code+"</Code>") {
				t.Errorf("answered %d %s", status, body)
			}
			violations := s.Violations()
			if (tt.code != "") != (len(violations) == 1) {
				t.Errorf("violations %q", violations)
			}
			if tt.code != "" && !strings.Contains(violations[0], tt.code) {
				t.Errorf("violations %q", violations)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	acts := map[string]ec2test.Fault{
		"dropped": {After: ec2test.Dropped()}, "unavailable": {After: ec2test.Unavailable()}, "throttled": {After: ec2test.Throttled()},
		"bad gateway": {After: ec2test.BadGateway()}, "truncated": {Truncate: true}, "internal": {After: ec2test.Internal()},
	}
	for name, fault := range acts {
		t.Run(name, func(t *testing.T) {
			c := start(t, ec2test.Config{})
			in := c.wish(t, "m-1")
			c.Inject(func(call ec2test.Call) ec2test.Fault {
				if call.Action == "RunInstances" && call.N == 1 && call.Params.Get("ClientToken") == "m-1" {
					return fault
				}
				return ec2test.Fault{}
			})
			if _, err := c.ec2.RunInstances(t.Context(), in); err == nil {
				t.Error("the call succeeded")
			}
			if n := len(c.Instances()); n != 1 {
				t.Fatalf("%d instances", n)
			}
			if again := c.run(t, in); *again.InstanceId != c.Instances()[0].ID {
				t.Error("the retry launched another one")
			}
			if n := c.Calls()["RunInstances"]; n != 2 {
				t.Errorf("%d calls", n)
			}
		})
	}
	t.Run("before", func(t *testing.T) {
		c := start(t, ec2test.Config{})
		in := c.wish(t, "m-1")
		for _, f := range []ec2test.Failure{ec2test.Dropped(), ec2test.Throttled(), ec2test.BadGateway()} {
			c.Inject(func(ec2test.Call) ec2test.Fault { return ec2test.Fault{Before: f} })
			if _, err := c.ec2.RunInstances(t.Context(), in); err == nil || len(c.Instances()) > 0 {
				t.Errorf("%+v: %v, %v", f, err, c.Instances())
			}
		}
	})
	t.Run("late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := start(t, ec2test.Config{})
			in := c.wish(t, "m-1")
			c.Inject(func(ec2test.Call) ec2test.Fault { return ec2test.Fault{Delay: time.Minute} })
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := c.ec2.RunInstances(ctx, in); err == nil || len(c.Instances()) > 0 {
				t.Errorf("answered %v with %v", err, c.Instances())
			}
			time.Sleep(2 * time.Minute)
			if n := len(c.Instances()); n != 1 {
				t.Errorf("%d instances: the call must act although nobody waits", n)
			}
		})
	})
}

func TestTokenBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, ec2test.Config{Throttling: true})
		ctx := t.Context()
		in := c.wish(t, "")
		in.ClientToken = nil
		begin := time.Now()
		launched := 0
		for launched < 25 {
			in.ClientToken = nil
			switch _, err := c.ec2.RunInstances(ctx, in); code(err) {
			case "":
				launched++
			case "RequestLimitExceeded":
				time.Sleep(100 * time.Millisecond)
			default:
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took < 9900*time.Millisecond || took > 10200*time.Millisecond {
			t.Errorf("25 launches took %v, not the 10 s of 5 at once and 2 per second", took)
		}
	})
}

func TestPartialCapacity(t *testing.T) {
	c := start(t, ec2test.Config{})
	c.SetCapacity("t3.micro", "eu-central-1a", 3)
	in := c.wish(t, "m-1")
	in.MinCount, in.MaxCount = aws.Int32(2), aws.Int32(5)
	out, err := c.ec2.RunInstances(t.Context(), in)
	if err != nil || len(out.Instances) != 3 {
		t.Errorf("launched %v, %v", out, err)
	}
	in.ClientToken = aws.String("m-2")
	_, err = c.ec2.RunInstances(t.Context(), in)
	wantCode(t, err, "InsufficientInstanceCapacity")
	in.SubnetId = aws.String(c.subnet(t, "default", 1))
	c.SetQuota(8)
	out, err = c.ec2.RunInstances(t.Context(), in)
	if code(err) != "VcpuLimitExceeded" {
		t.Errorf("launched %v, %v with 2 of 8 vCPUs left", out, err)
	}
	in.MinCount = aws.Int32(1)
	out, err = c.ec2.RunInstances(t.Context(), in)
	if err != nil || len(out.Instances) != 1 {
		t.Errorf("launched %v, %v", out, err)
	}
	in.ClientToken, in.SubnetId = aws.String("m-3"), aws.String(c.subnet(t, "other", 2))
	in.MinCount, in.MaxCount = aws.Int32(12), aws.Int32(12)
	c.SetQuota(1000)
	_, err = c.ec2.RunInstances(t.Context(), in)
	wantCode(t, err, "InsufficientFreeAddressesInSubnet")
}

func TestSeed(t *testing.T) {
	ids := func(seed uint64) []string {
		c := start(t, ec2test.Config{Seed: seed})
		c.run(t, c.wish(t, "m-1"))
		var all []string
		for _, i := range c.Instances() {
			all = append(all, i.ID)
		}
		return all
	}
	if a, b := ids(1), ids(1); !slices.Equal(a, b) {
		t.Errorf("one seed makes %v and %v", a, b)
	}
	if a, b := ids(1), ids(2); slices.Equal(a, b) {
		t.Errorf("two seeds make %v", a)
	}
}

func TestClientOfRequestsTooLarge(t *testing.T) {
	s, err := ec2test.New(ec2test.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, s)
	status, body := c.raw(t, url.Values{"Action": {"DescribeRegions"}, "X": {string(bytes.Repeat([]byte("x"), 1<<20))}}.Encode(), time.Now(), nil)
	if status != http.StatusBadRequest || !strings.Contains(body, "too large") {
		t.Errorf("answered %d %.200s", status, body)
	}
}
