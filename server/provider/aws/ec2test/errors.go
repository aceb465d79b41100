package ec2test

import (
	"fmt"
	"net/http"
)

// apiError is a documented refusal.
type apiError struct {
	code, message string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

// refuse makes an error with a code of "Error codes for the Amazon EC2 API" or of the SSM and STS references.
func refuse(code, format string, args ...any) *apiError {
	return &apiError{code: code, message: fmt.Sprintf(format, args...)}
}

// statusOf is the HTTP status that goes with a code: 400 for all client errors but these, and what the reference lists
// under server error codes is of the class 5xx.
func statusOf(code string) int {
	switch code {
	case "AuthFailure":
		return http.StatusUnauthorized
	case "UnauthorizedOperation", "AccessDenied", "InvalidClientTokenId", "SignatureDoesNotMatch", "MissingAuthenticationToken", "ExpiredToken":
		return http.StatusForbidden
	case "DryRunOperation":
		return http.StatusPreconditionFailed
	case "InsufficientInstanceCapacity", "InsufficientAddressCapacity", "InsufficientVolumeCapacity", "InternalError", "InternalFailure":
		return http.StatusInternalServerError
	case "RequestLimitExceeded", "ServiceUnavailable", "Unavailable":
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}
