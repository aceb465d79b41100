package aws

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// answered is an error as the SDK returns it for an answer of AWS.
func answered(code string, status int, text string) error {
	return &smithy.OperationError{ServiceID: "EC2", OperationName: "RunInstances", Err: &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}},
		Err:      &smithy.GenericAPIError{Code: code, Message: text},
	}}
}

func newTestProvider(t *testing.T, change func(*Config)) *Provider {
	t.Helper()
	c := Config{ClusterID: "c1", Spec: &provisionrv1.AwsProvider{Region: "eu-central-1"}}
	if change != nil {
		change(&c)
	}
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestClassify(t *testing.T) {
	p := newTestProvider(t, nil)
	for _, test := range []struct {
		code   string
		status int
		kind   provider.Kind
	}{
		{"InsufficientInstanceCapacity", 500, provider.NoCapacity},
		{"InsufficientFreeAddressesInSubnet", 400, provider.NoCapacity},
		{"MaxSpotInstanceCountExceeded", 400, provider.NoCapacity},
		{"SpotMaxPriceTooLow", 400, provider.NoCapacity},
		{"Unsupported", 400, provider.NoCapacity},
		{"VcpuLimitExceeded", 400, provider.QuotaExceeded},
		{"InstanceLimitExceeded", 400, provider.QuotaExceeded},
		{"VolumeLimitExceeded", 400, provider.QuotaExceeded},
		{"RequestLimitExceeded", 503, provider.RateLimited},
		{"Throttling", 400, provider.RateLimited},
		{"SomethingNew", 429, provider.RateLimited},
		{"AuthFailure", 401, provider.Unauthorized},
		{"UnauthorizedOperation", 403, provider.Unauthorized},
		{"ExpiredToken", 400, provider.Unauthorized},
		{"ExpiredTokenException", 400, provider.Unauthorized},
		{"InvalidClientTokenId", 403, provider.Unauthorized},
		{"OptInRequired", 401, provider.Unauthorized},
		{"SomethingNew", 403, provider.Unauthorized},
		{"InvalidParameterValue", 400, provider.Invalid},
		{"InvalidParameterCombination", 400, provider.Invalid},
		{"InvalidAMIID.Malformed", 400, provider.Invalid},
		{"InvalidUserData.Malformed", 400, provider.Invalid},
		{"MissingParameter", 400, provider.Invalid},
		{"InvalidInstanceID.NotFound", 400, provider.NotFound},
		{"ParameterNotFound", 400, provider.NotFound},
		{"IdempotentParameterMismatch", 400, provider.Unknown},
		{"IdempotentInstanceTerminated", 400, provider.Unknown},
		{"DependencyViolation", 400, provider.Unknown},
		{"InvalidGroup.InUse", 400, provider.Unknown},
		{"IncorrectState", 400, provider.Unknown},
		{"InternalError", 500, provider.Unknown},
		{"Unavailable", 503, provider.Unknown},
		{"InvalidParameterValue", 500, provider.Unknown},
		{"SomethingNew", 400, provider.Unknown},
	} {
		err := p.classify(t.Context(), "launch machine m-1", answered(test.code, test.status, "the reason"))
		if kind := provider.KindOf(err); kind != test.kind {
			t.Errorf("%s with status %d is %s, want %s", test.code, test.status, kind, test.kind)
		}
		if !strings.Contains(err.Error(), test.code) {
			t.Errorf("%q does not name %s", err, test.code)
		}
		if test.kind == provider.RateLimited && provider.AfterOf(err) < firstPause {
			t.Errorf("%s does not say how long to wait", test.code)
		}
	}
}

func TestClassifyWithoutAnswer(t *testing.T) {
	p := newTestProvider(t, nil)
	for _, cause := range []error{io.ErrUnexpectedEOF, context.DeadlineExceeded, &smithy.DeserializationError{Err: io.EOF}} {
		err := p.classify(t.Context(), "list instances", &smithy.OperationError{ServiceID: "EC2", OperationName: "DescribeInstances", Err: cause})
		if provider.KindOf(err) != provider.Unknown || !errors.Is(err, cause) {
			t.Errorf("%v became %s: %v", cause, provider.KindOf(err), err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// Whatever came of a call that was cut off: its caller has given up.
	err := p.classify(ctx, "launch machine m-1", answered("InvalidParameterValue", 400, ""))
	if provider.KindOf(err) != provider.Unknown || !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call is %v", err)
	}
	own := provider.Errorf(provider.Unknown, "waiting: %w", context.DeadlineExceeded)
	if err := p.classify(t.Context(), "list", &smithy.OperationError{Err: own}); !errors.Is(err, context.DeadlineExceeded) || provider.KindOf(err) != provider.Unknown {
		t.Errorf("an error of our own became %v", err)
	}
}

func TestUnauthorizedKeepsSecrets(t *testing.T) {
	const secret = "FwoGZXIvYXdzEJr-session-token"
	p := newTestProvider(t, func(c *Config) { c.Spec.Profile, c.Spec.RoleArn = "ops", "arn:aws:iam::123456789012:role/launcher" })
	for _, cause := range []error{
		answered("SignatureDoesNotMatch", 403, "the canonical string should have been x-amz-security-token:"+secret),
		&smithy.OperationError{Err: &credentialsError{errors.New("process printed " + secret)}},
	} {
		err := p.classify(t.Context(), "list instances", cause)
		if provider.KindOf(err) != provider.Unauthorized {
			t.Fatalf("%v is %s", err, provider.KindOf(err))
		}
		for _, part := range []string{"provider aws", "eu-central-1", "environment", `profile "ops"`, "container", "instance metadata", "role/launcher", "give the servers credentials"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q lacks %q", err, part)
			}
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			if strings.Contains(e.Error(), secret) {
				t.Errorf("%q holds a secret", e)
			}
		}
	}
}

func TestMessageIsShort(t *testing.T) {
	text := message(answered("InvalidParameterValue", 400, strings.Repeat("é", 4000)), "InvalidParameterValue", 400)
	if len(text) > 400 || !strings.HasSuffix(text, "...") {
		t.Errorf("message of %d bytes: %q", len(text), text)
	}
	text = message(answered("Client.X", 400, "You may not. Encoded authorization failure message: abcdef"), "Client.X", 400)
	if text != "Client.X: You may not" {
		t.Errorf("message is %q", text)
	}
}

func TestLaunchErrors(t *testing.T) {
	p := newTestProvider(t, nil)
	for code, kind := range map[string]provider.Kind{
		"InvalidAMIID.NotFound": provider.Invalid, "InvalidSubnetID.NotFound": provider.Invalid, "InvalidKeyPair.NotFound": provider.Invalid,
		"InvalidGroup.NotFound": provider.Unknown, "IdempotentParameterMismatch": provider.Unknown,
		"IdempotentInstanceTerminated": provider.Unknown, "VcpuLimitExceeded": provider.QuotaExceeded,
	} {
		if err := p.launchError(t.Context(), "launch machine m-1", answered(code, 400, "text")); provider.KindOf(err) != kind {
			t.Errorf("%s is %s, want %s", code, provider.KindOf(err), kind)
		}
	}
}

func TestBackoff(t *testing.T) {
	var b backoff
	throttle := answered("RequestLimitExceeded", 503, "")
	for _, want := range []int{1, 2, 4, 8, 16, 30, 30} {
		if got := b.next(throttle); got.Seconds() != float64(want) {
			t.Errorf("the pause is %s, want %ds", got, want)
		}
	}
	if got := b.next(answered("InternalError", 500, "")); got != 0 {
		t.Errorf("a server error pauses for %s", got)
	}
	if b.next(nil); b.next(throttle) != firstPause {
		t.Error("success does not reset the pause")
	}
}
