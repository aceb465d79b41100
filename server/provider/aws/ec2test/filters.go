package ec2test

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// maxFilterValues is how many values all filters of a request may have (Amazon EC2 User Guide, "Filtering your resources").
const maxFilterValues = 200

// filter of a Describe action.
type filter struct {
	Name   string
	Values []string
}

// attribute returns the values that a resource has for a filter, and whether there is such a filter.
type attribute func(name string) (values []string, known bool)

// match says whether a resource passes all filters.
func (c *call) match(filters []filter, tags map[string]string, attr attribute) bool {
	for _, f := range filters {
		var values []string
		if key, ok := strings.CutPrefix(f.Name, "tag:"); ok {
			if value, has := tags[key]; has {
				values = []string{value}
			}
		} else if f.Name == "tag-key" {
			for key := range tags {
				values = append(values, key)
			}
		} else {
			values, _ = attr(f.Name)
		}
		if !slices.ContainsFunc(values, func(v string) bool {
			return slices.ContainsFunc(f.Values, func(pattern string) bool { return glob(pattern, v) })
		}) {
			return false
		}
	}
	return true
}

// checkFilters refuses filters that an action does not have, as judged by a resource of zero values.
func (c *call) checkFilters(filters []filter, attr attribute) *apiError {
	n := 0
	for _, f := range filters {
		n += len(f.Values)
		if len(f.Values) == 0 {
			return c.wrong("InvalidParameterValue", "The filter '"+f.Name+"' has no values")
		}
		if strings.HasPrefix(f.Name, "tag:") || f.Name == "tag-key" {
			continue
		}
		if _, known := attr(f.Name); !known {
			return c.wrong("InvalidParameterValue", "The filter '"+f.Name+"' is invalid")
		}
	}
	if n > maxFilterValues {
		return refuse("FilterLimitExceeded", "The maximum number of filter values specified on a single call is %d", maxFilterValues)
	}
	return nil
}

// glob matches * (any characters), ? (one character) and \ before either.
func glob(pattern, text string) bool {
	for pattern != "" {
		switch {
		case pattern[0] == '*':
			for i := 0; i <= len(text); i++ {
				if glob(pattern[1:], text[i:]) {
					return true
				}
			}
			return false
		case text == "":
			return false
		case pattern[0] == '?':
			pattern, text = pattern[1:], text[1:]
			continue
		case pattern[0] == '\\' && len(pattern) > 1:
			pattern = pattern[1:]
		}
		if pattern[0] != text[0] {
			return false
		}
		pattern, text = pattern[1:], text[1:]
	}
	return text == ""
}

// page is how a Describe action is asked for one.
type page struct {
	Size  *int
	Token *string
}

// cursor is what a NextToken holds: it is opaque to clients, signed, and good for the same action and filters only.
type cursor struct {
	Action, Filters, After string
}

func (c *call) seal(cur cursor) string {
	data, _ := json.Marshal(cur)
	mac := sign([]byte(c.server.config.SecretAccessKey), string(data))
	return base64.StdEncoding.EncodeToString(append(mac, data...))
}

func (c *call) unseal(token string) (cursor, bool) {
	var cur cursor
	raw, err := base64.StdEncoding.DecodeString(token)
	if err != nil || len(raw) < 32 {
		return cur, false
	}
	mac := sign([]byte(c.server.config.SecretAccessKey), string(raw[32:]))
	if string(mac) != string(raw[:32]) || json.Unmarshal(raw[32:], &cur) != nil {
		return cur, false
	}
	return cur, cur.Action == c.action && cur.Filters == c.filterKey()
}

// filterKey identifies what a listing asks for apart from its pages.
func (c *call) filterKey() string {
	rest := make(map[string]any, len(c.params))
	for key, value := range c.params {
		if key != "MaxResults" && key != "NextToken" {
			rest[key] = value
		}
	}
	data, _ := json.Marshal(rest)
	return digest(data)
}

// cutPage returns the part of items, which are in the order of their ids, that a page holds, and the token of the next.
// Where pages are short (Config.ShortPages), they have fewer items than asked for, or none: only the token says that a
// list has ended.
func cutPage[T any](c *call, p page, bounds [2]int, items []T, id func(T) string) ([]T, string, *apiError) {
	after := ""
	if p.Token != nil {
		cur, ok := c.unseal(*p.Token)
		if !ok {
			return nil, "", refuse("InvalidNextToken", "The token '%s' is invalid", *p.Token)
		}
		after = cur.After
	}
	if p.Size != nil && (*p.Size < bounds[0] || *p.Size > bounds[1]) {
		return nil, "", c.wrong("InvalidParameterValue",
			"Value ( "+strconv.Itoa(*p.Size)+" ) for parameter maxResults is invalid. Expecting a value between "+strconv.Itoa(bounds[0])+" and "+strconv.Itoa(bounds[1])+".")
	}
	sorted := slices.SortedFunc(slices.Values(items), func(a, b T) int { return strings.Compare(id(a), id(b)) })
	start, _ := slices.BinarySearchFunc(sorted, after, func(item T, after string) int {
		if id(item) <= after {
			return -1
		}
		return 1
	})
	rest := sorted[start:]
	if p.Size == nil {
		return rest, "", nil
	}
	n := min(*p.Size, len(rest))
	if c.server.config.ShortPages {
		n = c.server.rand.IntN(n + 1)
	}
	if n == len(rest) {
		return rest, "", nil
	}
	last := after
	if n > 0 {
		last = id(rest[n-1])
	}
	return rest[:n], c.seal(cursor{c.action, c.filterKey(), last}), nil
}

// exclusive refuses ids together with pages.
func (c *call) exclusive(ids []string, p page, what string) *apiError {
	if len(ids) > 0 && p.Size != nil {
		return c.wrong("InvalidParameterCombination", "The parameter "+what+" cannot be used with the parameter maxResults")
	}
	return nil
}

func boolText(b bool) string { return strconv.FormatBool(b) }
