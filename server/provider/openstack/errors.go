package openstack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/provisionr/provisionr/server/provider"
)

// maxMessage bounds what is repeated of an answer, in bytes.
const maxMessage = 512

// fail makes the error of a call that went wrong. What is repeated of the answer is only its message.
func fail(err error, doing string) error {
	if err == nil {
		return nil
	}
	var own *provider.Error
	if errors.As(err, &own) {
		return err
	}
	var reauth *gophercloud.ErrUnableToReauthenticate
	if errors.As(err, &reauth) {
		if f := fail(reauth.ErrReauth, doing); provider.KindOf(f) != provider.Unauthorized {
			return f
		}
		return provider.Errorf(provider.Unauthorized, "openstack: %s: the credentials are not accepted any more", doing)
	}
	if response, ok := answer(err); ok {
		kind, message := kindOf(response)
		return &provider.Error{Kind: kind, Message: "openstack: " + doing + ": " + message, After: retryAfter(response.ResponseHeader), Err: err}
	}
	if ctx := cmp.Or(is(err, context.Canceled), is(err, context.DeadlineExceeded)); ctx != nil {
		return provider.Errorf(provider.Unknown, "openstack: %s: the call was cut off: %w", doing, ctx)
	}
	return provider.Errorf(provider.Unknown, "openstack: %s: %w", doing, err)
}

func is(err, target error) error {
	if errors.Is(err, target) {
		return target
	}
	return nil
}

// answer returns the cloud's answer that err stands for.
func answer(err error) (gophercloud.ErrUnexpectedResponseCode, bool) {
	var response gophercloud.ErrUnexpectedResponseCode
	if errors.As(err, &response) {
		return response, true
	}
	var again *gophercloud.ErrErrorAfterReauthentication
	if errors.As(err, &again) && errors.As(again.ErrOriginal, &response) {
		return response, true
	}
	return response, false
}

// code is the HTTP status that err stands for, or 0.
func code(err error) int {
	response, _ := answer(err)
	return response.Actual
}

// neutronType is the type of a Neutron error, as IpAddressAlreadyAllocated; empty for all else.
func neutronType(err error) string {
	response, _ := answer(err)
	kind, _ := parse(response.Body)
	return kind
}

// kindOf reads an answer as the "Faults" and "Response codes" sections of the compute and network API references say.
func kindOf(r gophercloud.ErrUnexpectedResponseCode) (provider.Kind, string) {
	kind, message := parse(r.Body)
	if message == "" {
		message = strings.ToLower(http.StatusText(r.Actual))
	}
	message += " (" + strconv.Itoa(r.Actual) + ")"
	quota := strings.Contains(strings.ToLower(message), "quota")
	switch r.Actual {
	case http.StatusTooManyRequests, 498:
		return provider.RateLimited, message
	case http.StatusRequestEntityTooLarge:
		// Nova answered a quota with 413 until 2014 and a rate limit until 2016; proxies still do.
		switch {
		case quota && r.ResponseHeader.Get("Retry-After") == "":
			return provider.QuotaExceeded, message
		case r.ResponseHeader.Get("Retry-After") != "":
			return provider.RateLimited, message
		}
		return provider.Invalid, message
	case http.StatusUnauthorized:
		return provider.Unauthorized, message
	case http.StatusForbidden:
		if quota {
			return provider.QuotaExceeded, message
		}
		return provider.Unauthorized, message
	case http.StatusConflict:
		switch {
		case kind == "OverQuota" || quota:
			return provider.QuotaExceeded, message
		case kind == "IpAddressGenerationFailure":
			return provider.NoCapacity, message
		}
		return provider.Unknown, message
	case http.StatusNotFound:
		return provider.NotFound, message
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusLengthRequired:
		return provider.Invalid, message
	}
	return provider.Unknown, message
}

// parse finds type and message in the bodies of the services: {"NeutronError": {"type", "message", "detail"}} of Neutron,
// {"forbidden": {"message", "code"}} of Nova and Cinder, {"error": {"message", "title"}} of Keystone.
func parse(body []byte) (kind, message string) {
	var faults map[string]json.RawMessage
	if json.Unmarshal(body, &faults) != nil {
		return "", ""
	}
	for _, raw := range faults {
		var fault struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		}
		if json.Unmarshal(raw, &fault) == nil && fault.Message != "" {
			text := strings.TrimSuffix(strings.Join(strings.Fields(fault.Message), " "), ".")
			if len(text) > maxMessage {
				text = strings.ToValidUTF8(text[:maxMessage], "") + "..."
			}
			return fault.Type, text
		}
	}
	return "", ""
}

// retryAfter reads the header of that name, in seconds or as a date (RFC 9110 section 10.2.3).
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(min(max(seconds, 0), 3600)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		now := time.Now()
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			now = date
		}
		return min(max(at.Sub(now), 0), time.Hour)
	}
	return 0
}

// missing reports whether the error says that the very thing that was asked for does not exist.
func missing(err error) bool { return code(err) == http.StatusNotFound }
