package gcetest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// direction of a body: what may be in it differs.
type direction int

const (
	inRequest direction = iota
	inResponse
)

// checkParameters returns what is wrong with the parameters of a request.
func (m *Model) checkParameters(x *method, path map[string]string, query url.Values) []string {
	var wrong []string
	for name, value := range path {
		if p := x.Parameters[name]; p == nil {
			wrong = append(wrong, fmt.Sprintf("the document has no path parameter %q", name))
		} else if err := checkParameter(p, value); err != "" {
			wrong = append(wrong, fmt.Sprintf("path parameter %s %q %s", name, value, err))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		p := x.Parameters[name]
		if p == nil {
			p = m.common[name]
		}
		switch {
		case p == nil || p.Location != "query":
			wrong = append(wrong, fmt.Sprintf("no query parameter %q", name))
			continue
		case len(query[name]) > 1 && !p.Repeated:
			wrong = append(wrong, fmt.Sprintf("query parameter %q is given more than once", name))
		}
		for _, value := range query[name] {
			if err := checkParameter(p, value); err != "" {
				wrong = append(wrong, fmt.Sprintf("query parameter %s %q %s", name, value, err))
			}
		}
	}
	for name, p := range x.Parameters {
		if p.Required && p.Location == "query" && !query.Has(name) {
			wrong = append(wrong, fmt.Sprintf("query parameter %q is missing", name))
		}
	}
	return wrong
}

func checkParameter(p *schema, value string) string {
	switch p.Type {
	case "integer":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return "is no integer"
		}
		if least, err := strconv.ParseInt(p.Minimum, 10, 64); err == nil && n < least {
			return "is less than " + p.Minimum
		}
		if most, err := strconv.ParseInt(p.Maximum, 10, 64); err == nil && n > most {
			return "is more than " + p.Maximum
		}
	case "boolean":
		if value != "true" && value != "false" {
			return "is neither true nor false"
		}
	}
	return checkString(p, value)
}

func checkString(s *schema, value string) string {
	switch {
	case len(s.Enum) > 0 && !slices.Contains(s.Enum, value):
		return "is none of " + strings.Join(s.Enum, ", ")
	case s.pattern != nil && !s.pattern.MatchString(value):
		return "does not match " + s.Pattern
	}
	var err error
	switch s.Format {
	case "int64":
		_, err = strconv.ParseInt(value, 10, 64)
	case "uint64":
		_, err = strconv.ParseUint(value, 10, 64)
	case "byte":
		if _, err = base64.StdEncoding.DecodeString(value); err != nil {
			_, err = base64.URLEncoding.DecodeString(value)
		}
	case "google-duration":
		if !duration.MatchString(value) {
			return "is no duration"
		}
	}
	if err != nil {
		return "is no " + s.Format
	}
	return ""
}

var duration = regexp.MustCompile(`^-?[0-9]+(\.[0-9]{1,9})?s$`)

// checkBody returns what is wrong with a decoded body. Numbers must have been decoded as json.Number.
func (m *Model) checkBody(methodID string, d direction, s *schema, value any) []string {
	c := checker{m, methodID, d, nil}
	c.value("body", s, value)
	slices.Sort(c.wrong)
	return c.wrong
}

type checker struct {
	model  *Model
	method string
	direction
	wrong []string
}

func (c *checker) failf(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

func (c *checker) value(at string, s *schema, value any) {
	if s.Ref != "" {
		if s = c.model.schemas[s.Ref]; s == nil {
			c.failf("%s: the document lacks its schema", at)
			return
		}
	}
	switch v := value.(type) {
	case nil:
		if c.direction == inResponse {
			c.failf("%s is null", at)
		}
	case string:
		if s.Type != "string" && s.Type != "any" {
			c.failf("%s is a string, not %s", at, s.Type)
		} else if err := checkString(s, v); err != "" {
			c.failf("%s %q %s", at, v, err)
		}
	case bool:
		if s.Type != "boolean" && s.Type != "any" {
			c.failf("%s is a boolean, not %s", at, s.Type)
		}
	case json.Number:
		c.number(at, s, v)
	case []any:
		if s.Type != "array" {
			c.failf("%s is an array, not %s", at, s.Type)
			return
		}
		for i, item := range v {
			c.value(fmt.Sprintf("%s[%d]", at, i), s.Items, item)
			// The document puts the pattern of some arrays, as of tags, on the array instead of its items.
			if text, ok := item.(string); ok && s.pattern != nil && !s.pattern.MatchString(text) {
				c.failf("%s[%d] %q does not match %s", at, i, text, s.Pattern)
			}
		}
	case map[string]any:
		if s.Type != "object" {
			c.failf("%s is an object, not %s", at, s.Type)
			return
		}
		c.object(at, s, v)
	}
}

func (c *checker) number(at string, s *schema, v json.Number) {
	switch s.Type {
	case "number", "any":
	case "integer":
		n, err := v.Int64()
		switch {
		case err != nil:
			c.failf("%s %s is no integer", at, v)
		case s.Format == "int32" && (n < math.MinInt32 || n > math.MaxInt32), s.Format == "uint32" && (n < 0 || n > math.MaxUint32):
			c.failf("%s %s is no %s", at, v, s.Format)
		}
	default:
		// Integers of 64 bits are strings in JSON.
		c.failf("%s is a number, not %s", at, s.Type)
	}
}

func (c *checker) object(at string, s *schema, v map[string]any) {
	for name, value := range v {
		p := s.Properties[name]
		switch {
		case p == nil && s.AdditionalProperties != nil:
			c.value(at+"."+name, s.AdditionalProperties, value)
		case p == nil:
			c.failf("%s has no property %q", at, name)
		case c.direction == inRequest && p.outputOnly():
			c.failf("%s.%s is output only", at, name)
		default:
			c.value(at+"."+name, p, value)
		}
	}
	if c.direction != inRequest {
		return
	}
	for name, p := range s.Properties {
		if _, ok := v[name]; !ok && slices.Contains(p.Annotations.Required, c.method) {
			c.failf("%s lacks the required property %q", at, name)
		}
	}
}
