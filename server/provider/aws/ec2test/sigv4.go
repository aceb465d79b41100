package ec2test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

// What "Signature Version 4 for API requests" allows the clock to be off, and the form of its dates.
const (
	maxSkew   = 15 * time.Minute
	amzDate   = "20060102T150405Z"
	algorithm = "AWS4-HMAC-SHA256"
)

// credentials are a key pair; token and expires are those of temporary ones.
type credentials struct {
	id, secret, token, arn, userID string
	expires                        time.Time
}

// authenticate checks the signature of a request as IAM User Guide "Create a signed AWS API request" builds it.
func (s *Server) authenticate(r *http.Request, body []byte, service string, now time.Time) (*credentials, *apiError) {
	unknown, wrong := "AuthFailure", "AuthFailure"
	if service != "ec2" {
		unknown, wrong = "InvalidClientTokenId", "SignatureDoesNotMatch"
	}
	if service == "ssm" {
		unknown, wrong = "UnrecognizedClientException", "InvalidSignatureException"
	}
	header := r.Header.Get("Authorization")
	if header == "" {
		return nil, refuse("MissingAuthenticationToken", "Request is missing Authentication Token")
	}
	fields, ok := authorization(header)
	if !ok {
		return nil, refuse("IncompleteSignature", "Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' parameters")
	}
	scope := strings.Split(fields["Credential"], "/")
	if len(scope) != 5 || scope[4] != "aws4_request" {
		return nil, refuse("IncompleteSignature", "Credential must have exactly 5 slash-delimited elements")
	}
	creds := s.keys[scope[0]]
	if creds == nil {
		return nil, refuse(unknown, "AWS was not able to validate the provided access credentials")
	}
	if scope[2] != s.config.Region || scope[3] != service {
		return nil, refuse(wrong, "Credential should be scoped to region %s and service %s", s.config.Region, service)
	}
	date, err := time.Parse(amzDate, r.Header.Get("X-Amz-Date"))
	if err != nil || scope[1] != date.Format("20060102") {
		return nil, refuse("IncompleteSignature", "Date must be in ISO-8601 basic format and match the credential's")
	}
	if now.Sub(date).Abs() > maxSkew {
		return nil, refuse("RequestExpired", "Request has expired.")
	}
	if r.Header.Get("X-Amz-Security-Token") != creds.token {
		return nil, refuse(unknown, "The security token included in the request is invalid")
	}
	if !creds.expires.IsZero() && now.After(creds.expires) {
		if service == "ec2" {
			return nil, refuse("RequestExpired", "Request has expired.")
		}
		return nil, refuse("ExpiredToken", "The security token included in the request is expired")
	}
	signed := strings.Split(fields["SignedHeaders"], ";")
	if !slices.IsSorted(signed) || !slices.Contains(signed, "host") || !slices.Contains(signed, "x-amz-date") ||
		creds.token != "" && !slices.Contains(signed, "x-amz-security-token") {
		return nil, refuse(wrong, "'Host', 'X-Amz-Date' and 'X-Amz-Security-Token' must be signed headers, in order")
	}
	want := signature(r, body, signed, creds.secret, scope)
	if subtle.ConstantTimeCompare([]byte(want), []byte(fields["Signature"])) != 1 {
		return nil, refuse(wrong, "The request signature we calculated does not match the signature you provided")
	}
	return creds, nil
}

// authorization splits the header into its fields.
func authorization(header string) (map[string]string, bool) {
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return nil, false
	}
	fields := make(map[string]string)
	for part := range strings.SplitSeq(rest, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return nil, false
		}
		fields[key] = value
	}
	return fields, fields["Credential"] != "" && fields["SignedHeaders"] != "" && fields["Signature"] != ""
}

func signature(r *http.Request, body []byte, signed []string, secret string, scope []string) string {
	var canonical strings.Builder
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	canonical.WriteString(r.Method + "\n" + path + "\n" + r.URL.RawQuery + "\n")
	for _, name := range signed {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = r.Header.Get("Content-Length")
			if value == "" {
				value = itoa(int(r.ContentLength))
			}
		}
		canonical.WriteString(name + ":" + strings.Join(strings.Fields(value), " ") + "\n")
	}
	canonical.WriteString("\n" + strings.Join(signed, ";") + "\n" + digest(body))
	text := algorithm + "\n" + r.Header.Get("X-Amz-Date") + "\n" + strings.Join(scope[1:], "/") + "\n" + digest([]byte(canonical.String()))
	key := []byte("AWS4" + secret)
	for _, part := range scope[1:] {
		key = sign(key, part)
	}
	return hex.EncodeToString(sign(key, text))
}

func sign(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
