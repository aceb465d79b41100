package aws

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// service is an API of AWS that this package calls.
type service string

const (
	serviceEC2 service = "ec2"
	serviceSSM service = "ssm"
	serviceSTS service = "sts"
)

// endpoint returns where the service is served, nil for the region's own.
func endpoint(spec *provisionrv1.AwsProvider, s service) *provisionrv1.Endpoint {
	switch s {
	case serviceEC2:
		return spec.GetEc2()
	case serviceSSM:
		return spec.GetSsm()
	}
	return spec.GetSts()
}

type httpClient interface {
	Do(*http.Request) (*http.Response, error)
}

// httpClients makes the HTTP clients of the services that need their own: each may have another certificate authority. The
// others have the SDK's, which honours AWS_CA_BUNDLE.
func httpClients(c Config) (map[service]httpClient, error) {
	clients := map[service]httpClient{}
	for _, s := range []service{serviceEC2, serviceSSM, serviceSTS} {
		ca := endpoint(c.Spec, s).GetCa()
		switch {
		case c.HTTP != nil:
			clients[s] = c.HTTP
		case ca != "":
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM([]byte(ca)) {
				return nil, provider.Errorf(provider.Invalid, "cannot use provider aws: the certificate authority for %s has no PEM certificate", s)
			}
			clients[s] = awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
				t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12} // AWS's endpoints speak 1.2 and 1.3
			})
		}
	}
	return clients, nil
}

// apis are the clients of the account.
type apis struct {
	ec2 *ec2.Client
	ssm *ssm.Client // nil where EC2 is not AWS's own and nothing says where the parameters are
	// foreign says that EC2 is served by another than AWS, which may lack what EC2 documents, as client tokens.
	foreign bool
}

// api returns the clients, made at the first call: the credential chain reads the environment and files then. A failure is
// not kept, so that a person can put it right without a restart.
func (p *Provider) api(ctx context.Context) (*apis, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.apis != nil {
		return p.apis, nil
	}
	c, err := p.load(ctx)
	if err != nil {
		return nil, err
	}
	compute := func() *ec2.Client {
		return ec2.NewFromConfig(c, func(o *ec2.Options) {
			p.reach(serviceEC2, &o.BaseEndpoint, o.HTTPClient, func(c httpClient) { o.HTTPClient = c })
		})
	}
	// The environment may name the endpoint as well (AWS_ENDPOINT_URL): the client knows.
	all := &apis{foreign: foreign(awssdk.ToString(compute().Options().BaseEndpoint))}
	if arn := p.config.Spec.GetRoleArn(); arn != "" {
		at := serviceSTS
		if all.foreign && p.config.Spec.GetSts().GetUrl() == "" {
			at = serviceEC2 // AWS cannot know the credentials, and such servers have everything at one address
		}
		security := sts.NewFromConfig(c, func(o *sts.Options) {
			p.reach(at, &o.BaseEndpoint, o.HTTPClient, func(c httpClient) { o.HTTPClient = c })
		})
		role := stscreds.NewAssumeRoleProvider(security, arn, func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = "provisionr" })
		c.Credentials = awssdk.NewCredentialsCache(role, func(o *awssdk.CredentialsCacheOptions) { o.ExpiryWindow = 5 * time.Minute })
	}
	all.ec2 = compute()
	parameters := ssm.NewFromConfig(c, func(o *ssm.Options) {
		p.reach(serviceSSM, &o.BaseEndpoint, o.HTTPClient, func(c httpClient) { o.HTTPClient = c })
	})
	if !all.foreign || parameters.Options().BaseEndpoint != nil {
		all.ssm = parameters
	}
	p.apis = all
	return p.apis, nil
}

// foreign reports whether an endpoint, "" for the region's own, is of another than AWS.
func foreign(endpoint string) bool {
	at, err := url.Parse(endpoint)
	if err != nil || at.Hostname() == "" {
		return false
	}
	for _, domain := range []string{".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn", ".amazonaws.eu"} {
		if strings.HasSuffix(at.Hostname(), domain) {
			return false
		}
	}
	return true
}

// load reads the shared configuration and sets up the credential chain, whose failures become *credentialsError.
func (p *Provider) load(ctx context.Context) (awssdk.Config, error) {
	spec := p.config.Spec
	options := []func(*config.LoadOptions) error{
		config.WithRegion(spec.GetRegion()),
		config.WithRetryer(func() awssdk.Retryer { return awssdk.NopRetryer{} }),
		config.WithAPIOptions([]func(*middleware.Stack) error{p.limit}),
		config.WithLogger(logging.LoggerFunc(p.sdkSays)),
	}
	if spec.GetProfile() != "" {
		options = append(options, config.WithSharedConfigProfile(spec.GetProfile()))
	}
	c, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		if ctx.Err() != nil {
			return c, provider.Errorf(provider.Unknown, "loading the aws configuration: %w", ctx.Err())
		}
		if missing := (config.SharedConfigProfileNotExistError{}); errors.As(err, &missing) {
			return c, p.unauthorized("profile " + missing.Profile + " does not exist")
		}
		return c, p.unauthorized("the shared configuration cannot be used")
	}
	if c.Credentials == nil {
		return c, p.unauthorized("there are no credentials")
	}
	c.Credentials = awssdk.NewCredentialsCache(chain{c.Credentials})
	return c, nil
}

// sdkSays takes what the SDK would write to standard error, as of a connection that was cut. The call itself fails too, or
// it did not matter.
func (p *Provider) sdkSays(level logging.Classification, format string, values ...any) {
	p.log.Debug("the sdk says", "level", string(level), "message", fmt.Sprintf(format, values...))
}

// reach sets where and how a service is reached, as far as the specification says so.
func (p *Provider) reach(s service, base **string, current httpClient, use func(httpClient)) {
	if at := endpoint(p.config.Spec, s).GetUrl(); at != "" {
		*base = &at
	}
	client := current
	if own := p.http[s]; own != nil {
		client = own
	}
	use(inMemory{client})
}

// inMemory sends bodies from memory. The SDK closes a request's body as soon as there is an answer, and net/http, which may
// not have found the end of a streamed body by then, takes that for an error and closes the connection under the answer:
// with a server that is near, a call that has acted would look as if it had failed.
type inMemory struct{ next httpClient }

func (c inMemory) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return c.next.Do(r)
	}
	body, err := io.ReadAll(r.Body) // a few KiB: the largest has the user-data
	if err != nil {
		return nil, err
	}
	sent := r.WithContext(r.Context())
	sent.Body = io.NopCloser(bytes.NewReader(body))
	return c.next.Do(sent)
}

// chain marks failures of the default credential chain, to tell them from those of a call.
type chain struct{ next awssdk.CredentialsProvider }

func (c chain) Retrieve(ctx context.Context) (awssdk.Credentials, error) {
	credentials, err := c.next.Retrieve(ctx)
	if err != nil {
		return credentials, &credentialsError{err}
	}
	return credentials, nil
}

// credentialsError says that the chain has no usable credentials. Its text leaves out the cause, which may quote a
// credential process or a file.
type credentialsError struct{ err error }

func (*credentialsError) Error() string   { return "no usable credentials" }
func (e *credentialsError) Unwrap() error { return e.err }
