package gcetest

import "fmt"

// apiError is an answer that is an error, in the form of
// https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-reference (error responses).
type apiError struct {
	status  int
	reason  string
	message string
}

func errorf(status int, reason, format string, args ...any) *apiError {
	return &apiError{status, reason, fmt.Sprintf(format, args...)}
}

func (e *apiError) body() map[string]any {
	domain := "global"
	if e.reason == "rateLimitExceeded" || e.reason == "quotaExceeded" {
		domain = "usageLimits"
	}
	return map[string]any{"error": map[string]any{
		"code": e.status, "message": e.message,
		"errors": []any{map[string]any{"message": e.message, "domain": domain, "reason": e.reason}},
	}}
}

func notFound(link string) *apiError {
	return errorf(404, "notFound", "The resource '%s' was not found", link[len(linkBase):])
}

func invalid(field, format string, args ...any) *apiError {
	return errorf(400, "invalid", "Invalid value for field '%s': %s", field, fmt.Sprintf(format, args...))
}
