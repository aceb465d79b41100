package aws

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	signer "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/aws/ec2test"
	"github.com/provisionr/provisionr/server/provider/providertest"
)

// maimed makes of the strict server one of those that know less of EC2 than AWS does.
type maimed struct {
	cloud *cloud
	// lacks has what is answered instead of an action.
	lacks map[string]answer
	// ignores has the parameters that are not heeded, without their numbers, as Filter.
	ignores []string
	// refuses has, by action, what is answered to a request with a value.
	refuses map[string]refusal
	// edits change the answer's text, by action.
	edits map[string]*strings.Replacer
}

type refusal struct {
	value string
	answer
}

type answer struct {
	status int
	body   string
}

// notThere are the ways in which servers say that they do not have an action.
func notThere() map[string]answer {
	return map[string]answer{
		"code": {http.StatusBadRequest, `<Response><Errors><Error><Code>InvalidAction</Code><Message>The action is not valid for this web service</Message></Error></Errors><RequestID>1</RequestID></Response>`},
		"501":  {http.StatusNotImplemented, `<Response><Errors><Error><Code>InternalFailure</Code><Message>not yet implemented</Message></Error></Errors><RequestID>1</RequestID></Response>`},
		"404":  {http.StatusNotFound, "404 page not found\n"},
		"405":  {http.StatusMethodNotAllowed, ""},
	}
}

func (m *maimed) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	action := form.Get("Action")
	a, ok := m.lacks[action]
	if refused := m.refuses[action]; !ok && refused.value != "" {
		for _, values := range form {
			if slices.Contains(values, refused.value) {
				a, ok = refused.answer, true
			}
		}
	}
	if ok {
		return &http.Response{StatusCode: a.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
	}
	maps.DeleteFunc(form, func(key string, _ []string) bool {
		name, _, _ := strings.Cut(key, ".")
		return slices.Contains(m.ignores, name)
	})
	if r, err = m.signed(r, []byte(form.Encode())); err != nil {
		return nil, err
	}
	response, err := m.cloud.http.Transport.RoundTrip(r)
	edit := m.edits[action]
	if err != nil || edit == nil {
		return response, err
	}
	text, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	changed := edit.Replace(string(text))
	response.Body, response.ContentLength = io.NopCloser(strings.NewReader(changed)), int64(len(changed))
	return response, nil
}

// signed is the request with another body, signed anew if it was signed with the server's credentials.
func (m *maimed) signed(r *http.Request, body []byte) (*http.Request, error) {
	c := m.cloud.Config()
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if !strings.Contains(r.Header.Get("Authorization"), c.AccessKeyID) {
		return r, nil
	}
	for _, name := range []string{"Authorization", "X-Amz-Date", "Content-Length"} {
		r.Header.Del(name)
	}
	sum := sha256.Sum256(body)
	credentials := awssdk.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey}
	return r, signer.NewSigner().SignHTTP(r.Context(), credentials, r, hex.EncodeToString(sum[:]), "ec2", c.Region, time.Now())
}

// provider returns a provider for which the maimed server is all there is.
func (m *maimed) provider(t *testing.T, cluster string, change func(*Config)) *Provider {
	return m.cloud.provider(t, cluster, func(c *Config) {
		c.HTTP = &http.Client{Transport: m}
		c.Spec.Ec2 = &provisionrv1.Endpoint{Url: m.cloud.url}
		if change != nil {
			change(c)
		}
	})
}

// TestConformsToLess runs the suite against a server that has no tokens, heeds neither filters nor the size of pages, has
// no Parameter Store, no image of Debian's own account, no root device in its images, and not all actions.
func TestConformsToLess(t *testing.T) {
	c := startCloud(t, ec2test.Config{Seed: 4})
	m := &maimed{cloud: c, ignores: []string{"Filter", "MaxResults", "ClientToken", "Owner"}, lacks: map[string]answer{
		"DescribeInstanceStatus": notThere()["code"], "DescribeSpotInstanceRequests": notThere()["501"],
		"DescribeInstanceTypeOfferings": notThere()["404"], "DescribeRegions": notThere()["405"], "DescribePlacementGroups": notThere()["501"],
	}, edits: map[string]*strings.Replacer{
		"DescribeImages": strings.NewReplacer(debianOwner, "000000000000", "<rootDeviceName>/dev/xvda</rootDeviceName>", ""),
	}}
	s := suite(t, c)
	s.Many = 20
	s.New = func(t *testing.T, cluster string) provider.Provider { return m.provider(t, cluster, nil) }
	s.Cloud.NoCredentials = func(t *testing.T, cluster string) provider.Provider {
		return m.provider(t, cluster, func(c *Config) { c.Spec.Profile = "nobody" })
	}
	s.Cloud.WrongCredentials = func(t *testing.T, cluster string) provider.Provider {
		return m.provider(t, cluster, func(c *Config) { c.Spec.Profile = "wrong" })
	}
	maps.Copy(s.Without, map[providertest.Case]string{
		providertest.Pagination:       "the case counts the calls for full pages",
		providertest.ConcurrentLaunch: "nothing but tokens keeps calls at the same moment apart",
	})
	providertest.Run(t, s)
}

// TestLacks has each action that is not needed missing, in each of the ways in which servers say so: machines live and
// die all the same, and the log says once what is done without.
func TestLacks(t *testing.T) {
	for name, a := range notThere() {
		t.Run(name, func(t *testing.T) {
			c := startCloud(t, ec2test.Config{})
			m := &maimed{cloud: c, lacks: map[string]answer{}}
			for _, action := range []string{
				"DescribeInstanceStatus", "DescribeSpotInstanceRequests", "DescribeInstanceTypeOfferings", "DescribeInstanceTypes", "DescribeRegions",
				"DescribeKeyPairs", "DescribePlacementGroups", "DescribeVolumes", "DescribeNetworkInterfaces", "AuthorizeSecurityGroupEgress",
			} {
				m.lacks[action] = a
			}
			var log bytes.Buffer
			p := m.provider(t, "c1", func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			request := requestFor(t, p, machine, &provisionrv1.Wish{
				Hardware: &provisionrv1.Hardware{Types: []string{"t3.micro"}}, Spot: &provisionrv1.Spot{},
			})
			made, err := p.Launch(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if got := listed(t, p)[machine]; got.ProviderID != made.ProviderID {
					t.Errorf("listed is %v", got)
				}
			}
			if err := p.Terminate(t.Context(), machine, made.ProviderID); err != nil {
				t.Error(err)
			}
			if err := p.Terminate(t.Context(), machine, made.ProviderID); err != nil {
				t.Error(err)
			}
			if err := p.DeleteFirewall(t.Context(), "zk"); err != nil || c.group("c1", "zk") != nil {
				t.Errorf("the group is %v, %v", c.group("c1", "zk"), err)
			}
			seen := map[string]int{}
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, "level=WARN") {
					_, text, _ := strings.Cut(line, "msg=")
					seen[text]++
				}
			}
			for text, n := range seen {
				if n != 1 {
					t.Errorf("%d times: %s", n, text)
				}
			}
			if len(seen) != 8 { // nobody asks for key pairs and placement groups; all groups let out from the start
				t.Errorf("the log warns %d times:\n%s", len(seen), log.String())
			}
		})
	}
}

// TestFailingIsNotLacking: what fails says nothing about what the server has.
func TestFailingIsNotLacking(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	c.Inject(func(call ec2test.Call) ec2test.Fault {
		if call.Action == "DescribeVolumes" {
			return ec2test.Fault{Before: ec2test.Internal()}
		}
		return ec2test.Fault{}
	})
	for _, err := range c.provider(t, "c1", nil).List(t.Context()) {
		if provider.KindOf(err) != provider.Unknown {
			t.Errorf("a list without its volumes: %v", err)
		}
	}
}

// TestIgnoredFilters: what is another cluster's, or nobody's, is neither listed nor touched by a server that lists all.
func TestIgnoredFilters(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	m := &maimed{cloud: c, ignores: []string{"Filter"}}
	other := c.provider(t, "c2", nil)
	theirs, err := other.Launch(t.Context(), requestFor(t, other, machine, &provisionrv1.Wish{Spot: &provisionrv1.Spot{}}))
	if err != nil {
		t.Fatal(err)
	}
	c.leftover(t, "c2", "m-left")
	p := m.provider(t, "c1", nil)
	if all := listed(t, p); len(all) != 0 {
		t.Errorf("listed are %v", all)
	}
	for _, id := range []string{"", theirs.ProviderID} {
		if err := p.Terminate(t.Context(), machine, id); err != nil {
			t.Error(err)
		}
	}
	if err := p.Terminate(t.Context(), "m-left", ""); err != nil {
		t.Error(err)
	}
	if err := p.DeleteFirewall(t.Context(), "zk"); err != nil {
		t.Error(err)
	}
	if got, err := p.Firewalls(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("the groups are %v, %v", got, err)
	}
	if all := listed(t, other); len(all) != 2 || all[machine].ProviderID != theirs.ProviderID || c.group("c2", "zk") == nil {
		t.Errorf("the other cluster has %v", all)
	}
	// A later attempt adopts its own machine only, and another machine's spot request is no notice for it.
	request := requestFor(t, p, machine, &provisionrv1.Wish{Spot: &provisionrv1.Spot{}})
	request.Request.Attempt = 2
	made, err := p.Launch(t.Context(), request)
	if err != nil || made.ProviderID == theirs.ProviderID {
		t.Errorf("made is %v, %v", made, err)
	}
	if got := listed(t, p)[machine]; got.Notice != nil {
		t.Errorf("a notice of nothing: %v", got.Notice)
	}
	if err := p.DeleteFirewall(t.Context(), "zk"); provider.KindOf(err) != provider.Unknown || c.group("c1", "zk") == nil {
		t.Errorf("a group in use: %v", err)
	}
}

// TestWithoutTokens repeats launches at a server that does not know client tokens.
func TestWithoutTokens(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	m := &maimed{cloud: c, ignores: []string{"ClientToken"}}
	request := requestFor(t, m.provider(t, "c1", nil), machine, &provisionrv1.Wish{})
	c.mu.Lock()
	c.lose["RunInstances"] = true
	c.mu.Unlock()
	if _, err := m.provider(t, "c1", nil).Launch(t.Context(), request); provider.KindOf(err) != provider.Unknown {
		t.Fatalf("a lost answer: %v", err)
	}
	p := m.provider(t, "c1", nil) // the process is another one
	for range 3 {
		if _, err := p.Launch(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Terminate(t.Context(), machine, ""); err != nil {
		t.Fatal(err)
	}
	if late, err := p.Launch(t.Context(), request); provider.KindOf(err) != provider.Unknown || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("a late launch is %v, %v", late, err)
	}
	if all := c.Instances(); len(all) != 1 {
		t.Errorf("there are %v", all)
	}
}

// TestUntaggable launches at a server that has no tags for network interfaces, and at AWS, where that would be an error.
func TestUntaggable(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	m := &maimed{cloud: c, refuses: map[string]refusal{"RunInstances": {"network-interface", answer{http.StatusBadRequest,
		`<Response><Errors><Error><Code>InvalidParameterValue</Code><Message>'network-interface' is not a valid taggable resource type</Message></Error></Errors><RequestID>1</RequestID></Response>`,
	}}}}
	p := m.provider(t, "c1", nil)
	request := requestFor(t, p, machine, &provisionrv1.Wish{})
	at := c.provider(t, "c1", func(c *Config) { c.HTTP = &http.Client{Transport: m} })
	if _, err := at.Launch(t.Context(), request); provider.KindOf(err) != provider.Invalid {
		t.Errorf("at AWS: %v", err)
	}
	for range 2 {
		if _, err := p.Launch(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	if got := listed(t, p); len(got) != 1 || len(c.Instances()) != 1 {
		t.Errorf("listed are %v of %v", got, c.Instances())
	}
}

// TestForeign: nobody but AWS's own clients calls AWS, and what lies elsewhere is not asked there.
func TestForeign(t *testing.T) {
	for at, want := range map[string]bool{
		"": false, "https://ec2.eu-central-1.amazonaws.com": false, "https://vpce-1.ec2.cn-north-1.vpce.amazonaws.com.cn:443": false,
		"https://ec2.eu-central-1.api.aws": false, "http://localhost:4566": true, "https://amazonaws.com.example.org": true,
	} {
		if got := foreign(at); got != want {
			t.Errorf("%q: %t", at, got)
		}
	}
	c := startCloud(t, ec2test.Config{})
	var hosts []string
	watch := roundTripper(func(r *http.Request) (*http.Response, error) {
		hosts = append(hosts, r.URL.Host)
		return c.http.Transport.RoundTrip(r)
	})
	arn := "arn:aws:iam::123456789012:role/provisionr"
	p := c.provider(t, "c1", func(config *Config) {
		config.HTTP = &http.Client{Transport: watch}
		config.Spec.Ec2, config.Spec.RoleArn = &provisionrv1.Endpoint{Url: c.url}, arn
	})
	if _, err := p.Resolve(t.Context(), &provisionrv1.Wish{Os: debian()}); err != nil {
		t.Error(err)
	}
	_, err := p.Resolve(t.Context(), &provisionrv1.Wish{Os: debian(), Image: &provisionrv1.Image{Parameter: "/aws/service/x"}})
	if provider.KindOf(err) != provider.Invalid || !strings.Contains(err.Error(), "endpoint of ssm") {
		t.Errorf("a parameter without a Parameter Store: %v", err)
	}
	if hosts = slices.Compact(hosts); len(hosts) != 1 || c.url != "http://"+hosts[0] || c.Calls()["AssumeRole"] != 1 {
		t.Errorf("called were %v, %v", hosts, c.Calls())
	}
	// The environment's endpoint counts as well.
	t.Setenv("AWS_ENDPOINT_URL", c.url)
	p = c.provider(t, "c1", nil)
	if api, err := p.api(t.Context()); err != nil || !api.foreign || api.ssm == nil {
		t.Errorf("with AWS_ENDPOINT_URL: %v, %v", api, err)
	}
}

// TestUnsaid: what a server leaves out of an answer is no reason against anything.
func TestUnsaid(t *testing.T) {
	if got := imageOf(types.Image{ImageId: pointer("ami-1")}); got.rootDevice != usualRootDevice || unfit(types.Image{}, "arm64") != "" {
		t.Errorf("an image of which nothing is known is %v", got)
	}
	bare := typeOf(types.InstanceTypeInfo{InstanceType: "m5.large"})
	if !bare.current || !bare.spot || !bare.demand || suits(bare, nil, "amd64") != nil {
		t.Errorf("a type of which nothing is known is %+v", bare)
	}
	have := rulesOf([]types.IpPermission{{IpProtocol: pointer("tcp"), UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: pointer("sg-1"), UserId: pointer("123")}}}}, "")
	if have[0].owner != "" {
		t.Errorf("a group whose account is not known has a source of account %q", have[0].owner)
	}
}
