package aws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	smithy "github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/provisionr/provisionr/server/provider"
)

// kindOf maps error codes to kinds ("Error codes for the Amazon EC2 API", Amazon EC2 Developer Guide; "Common errors" of
// Systems Manager and STS). Codes with a reason of their own come first; families are in classify.
var kindOf = map[string]provider.Kind{
	// No room now, or not here: the next choice may have it.
	"InsufficientAddressCapacity":          provider.NoCapacity,
	"InsufficientCapacity":                 provider.NoCapacity,
	"InsufficientFreeAddressesInSubnet":    provider.NoCapacity,
	"InsufficientHostCapacity":             provider.NoCapacity,
	"InsufficientInstanceCapacity":         provider.NoCapacity,
	"InsufficientReservedInstanceCapacity": provider.NoCapacity,
	"InsufficientVolumeCapacity":           provider.NoCapacity,
	"MaxSpotInstanceCountExceeded":         provider.NoCapacity,
	"SpotMaxPriceTooLow":                   provider.NoCapacity,
	"UnfulfillableCapacity":                provider.NoCapacity,
	"Unsupported":                          provider.NoCapacity, // also: the type is not offered in this zone
	"UnsupportedHibernationConfiguration":  provider.NoCapacity,
	"VolumeTypeNotAvailableInZone":         provider.NoCapacity,

	// The account's limits.
	"AddressLimitExceeded":                    provider.QuotaExceeded,
	"InstanceLimitExceeded":                   provider.QuotaExceeded,
	"MaxIOPSLimitExceeded":                    provider.QuotaExceeded,
	"NetworkInterfaceLimitExceeded":           provider.QuotaExceeded,
	"PrivateIpAddressLimitExceeded":           provider.QuotaExceeded,
	"ResourceCountExceeded":                   provider.QuotaExceeded,
	"ResourceLimitExceeded":                   provider.QuotaExceeded,
	"RulesPerSecurityGroupLimitExceeded":      provider.QuotaExceeded,
	"SecurityGroupLimitExceeded":              provider.QuotaExceeded,
	"SecurityGroupsPerInstanceLimitExceeded":  provider.QuotaExceeded,
	"SecurityGroupsPerInterfaceLimitExceeded": provider.QuotaExceeded,
	"VcpuLimitExceeded":                       provider.QuotaExceeded,
	"VolumeIOPSLimit":                         provider.QuotaExceeded,
	"VolumeLimitExceeded":                     provider.QuotaExceeded,
	"InstanceCreditSpecificationNotSupported": provider.Invalid,
	"EncryptedVolumesNotSupported":            provider.Invalid,
	"DefaultVpcDoesNotExist":                  provider.Invalid,
	"DefaultSubnetDoesNotExistInAZ":           provider.Invalid,
	"MalformedQueryString":                    provider.Invalid,
	"MissingAction":                           provider.Invalid,
	"MissingInput":                            provider.Invalid,
	"MissingParameter":                        provider.Invalid,
	"NonEBSInstance":                          provider.Invalid,
	"OperationNotPermitted":                   provider.Invalid,
	"RequestResourceCountExceeded":            provider.Invalid,
	"TagLimitExceeded":                        provider.Invalid,
	"UnknownParameter":                        provider.Invalid,
	"UnsupportedInstanceTypeOnHost":           provider.Invalid,
	"UnsupportedOperation":                    provider.Invalid,
	"VPCIdNotSpecified":                       provider.Invalid,
	"VPCResourceNotSpecified":                 provider.Invalid,
	"ValidationError":                         provider.Invalid,
	"ValidationException":                     provider.Invalid,

	"ParameterNotFound":        provider.NotFound,
	"ParameterVersionNotFound": provider.NotFound,

	// Who we are, or what that may do.
	"AccessDenied":                        provider.Unauthorized,
	"AccessDeniedException":               provider.Unauthorized,
	"AccountDisabled":                     provider.Unauthorized,
	"AuthFailure":                         provider.Unauthorized,
	"Blocked":                             provider.Unauthorized,
	"ExpiredToken":                        provider.Unauthorized,
	"ExpiredTokenException":               provider.Unauthorized,
	"IncompleteSignature":                 provider.Unauthorized,
	"IncompleteSignatureException":        provider.Unauthorized,
	"InvalidClientTokenId":                provider.Unauthorized,
	"InvalidSecurity":                     provider.Unauthorized,
	"MissingAuthenticationToken":          provider.Unauthorized,
	"MissingAuthenticationTokenException": provider.Unauthorized,
	"NotAuthorized":                       provider.Unauthorized,
	"OptInRequired":                       provider.Unauthorized,
	"PendingVerification":                 provider.Unauthorized,
	"RegionDisabledException":             provider.Unauthorized,
	"SignatureDoesNotMatch":               provider.Unauthorized,
	"UnauthorizedOperation":               provider.Unauthorized,
	"UnrecognizedClientException":         provider.Unauthorized,

	// Too many calls.
	"EC2ThrottledException":     provider.RateLimited,
	"PriorRequestNotComplete":   provider.RateLimited,
	"RequestLimitExceeded":      provider.RateLimited,
	"RequestThrottled":          provider.RateLimited,
	"RequestThrottledException": provider.RateLimited,
	"SlowDown":                  provider.RateLimited,
	"Throttling":                provider.RateLimited,
	"ThrottlingException":       provider.RateLimited,
	"ThrottledException":        provider.RateLimited,
	"TooManyRequestsException":  provider.RateLimited,

	// The state of things is in the way, which may change by itself, or an earlier call has acted.
	"DependencyViolation":          provider.Unknown,
	"IdempotentInstanceTerminated": provider.Unknown,
	"IdempotentParameterMismatch":  provider.Unknown,
	"IncorrectInstanceState":       provider.Unknown,
	"IncorrectState":               provider.Unknown,
	"InvalidState":                 provider.Unknown,
	"InvalidStateTransition":       provider.Unknown,
	"RequestExpired":               provider.Unknown, // the SDK learns the clock's offset from it
}

// kindOfCode returns the decision that an error code of AWS asks for; status is the HTTP status, 0 if unknown.
func kindOfCode(code string, status int) provider.Kind {
	if kind, ok := kindOf[code]; ok {
		return kind
	}
	switch {
	case status == http.StatusTooManyRequests:
		return provider.RateLimited
	case status >= http.StatusInternalServerError:
		return provider.Unknown
	case strings.HasSuffix(code, ".NotFound"), strings.HasSuffix(code, ".Unknown"):
		return provider.NotFound
	case strings.HasSuffix(code, ".InUse"), strings.HasSuffix(code, ".Duplicate"), strings.HasSuffix(code, "InUse"):
		return provider.Unknown
	case strings.HasPrefix(code, "Invalid"), strings.HasPrefix(code, "Malformed"):
		return provider.Invalid
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return provider.Unauthorized
	}
	return provider.Unknown
}

// codeOf returns the error code of AWS in err, and the HTTP status of its response; "" and 0 where there is none.
func codeOf(err error) (code string, status int) {
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) && response.HTTPResponse() != nil {
		status = response.HTTPStatusCode()
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	return code, status
}

// hasCode reports whether err is an answer of AWS with one of the codes.
func hasCode(err error, codes ...string) bool {
	got, _ := codeOf(err)
	for _, code := range codes {
		if got == code {
			return true
		}
	}
	return false
}

// lacks reports whether err says that the server does not have the action at all, as servers other than AWS's may not. It
// logs that once for each way to do without.
func (p *Provider) lacks(ctx context.Context, err error, without string) bool {
	code, status := codeOf(err)
	switch code {
	case "InvalidAction", "UnknownAction", "UnknownOperationException", "UnsupportedAction", "NotImplemented", "NotImplementedException":
	default:
		missing := status == http.StatusNotFound && kindOfCode(code, status) != provider.NotFound // EC2's own have status 400
		if !missing && status != http.StatusNotImplemented && status != http.StatusMethodNotAllowed {
			return false
		}
	}
	p.warnOnce(ctx, "the server lacks an action: "+without, "answer", code, "status", status)
	return true
}

// warnOnce logs a warning that would else come with each call.
func (p *Provider) warnOnce(ctx context.Context, text string, args ...any) {
	if _, logged := p.lacking.LoadOrStore(text, true); !logged {
		p.log.WarnContext(ctx, text, args...)
	}
}

func throttled(err error) bool {
	code, status := codeOf(err)
	return (code != "" || status != 0) && kindOfCode(code, status) == provider.RateLimited
}

// classify turns the error of a call into one of package provider; doing says what was to be done, as "list instances".
func (p *Provider) classify(ctx context.Context, doing string, err error) error {
	var own *provider.Error
	var missing *credentialsError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return provider.Errorf(provider.Unknown, "cannot %s: the call was cut off: %w", doing, ctx.Err())
	case errors.As(err, &own):
		return &provider.Error{Kind: own.Kind, Message: "cannot " + doing + ": " + own.Message, After: own.After, Err: own}
	case errors.As(err, &missing):
		return p.unauthorized("there are no usable credentials")
	}
	code, status := codeOf(err)
	if code == "" && status < http.StatusBadRequest {
		return provider.Errorf(provider.Unknown, "cannot %s: %w", doing, transport{err})
	}
	switch kind := kindOfCode(code, status); kind {
	case provider.Unauthorized:
		return p.unauthorized("they are refused: " + code)
	case provider.RateLimited:
		return &provider.Error{Kind: kind, Message: fmt.Sprintf("cannot %s: too many calls (%s)", doing, code), After: p.pause.last(), Err: err}
	default:
		return &provider.Error{Kind: kind, Message: fmt.Sprintf("cannot %s: %s", doing, message(err, code, status)), Err: err}
	}
}

// transport is an error without an answer of AWS. Its text is that of the innermost cause: the SDK's own quotes the whole
// request.
type transport struct{ err error }

func (t transport) Unwrap() error { return t.err }

func (t transport) Error() string {
	var send *smithyhttp.RequestSendError
	if errors.As(t.err, &send) {
		return "no answer: " + send.Err.Error()
	}
	var unread *smithy.DeserializationError
	if errors.As(t.err, &unread) {
		return "the answer cannot be read: " + unread.Err.Error()
	}
	var operation *smithy.OperationError
	if errors.As(t.err, &operation) {
		return operation.Err.Error()
	}
	return t.err.Error()
}

// message returns what AWS says, shortened: an encoded authorization message goes over kilobytes and tells nobody anything.
func message(err error, code string, status int) string {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return fmt.Sprintf("answer %d could not be read", status)
	}
	text, _, _ := strings.Cut(api.ErrorMessage(), "Encoded authorization failure message")
	text = strings.TrimRight(strings.TrimSpace(text), ".")
	const most = 300
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	if text == "" {
		return code
	}
	return code + ": " + text
}

// unauthorized is the one error of missing or refused credentials. AWS's own text is left out: for a wrong signature it
// quotes the signed request, with the session token.
func (p *Provider) unauthorized(problem string) error {
	spec := p.config.Spec
	profile := "of AWS_PROFILE or default"
	if spec.GetProfile() != "" {
		profile = fmt.Sprintf("%q", spec.GetProfile())
	}
	chain := "environment, shared configuration profile " + profile + ", container, instance metadata"
	if spec.GetRoleArn() != "" {
		chain += ", then role " + spec.GetRoleArn()
	}
	return provider.Errorf(provider.Unauthorized, "provider aws has no access to region %s: credentials were looked for in %s: %s; "+
		"give the servers credentials there, with the permissions that the documentation of provider aws names", spec.GetRegion(), chain, problem)
}
