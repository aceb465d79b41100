package gcetest

import (
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// entry is a resource in a list: its scope, as zones/europe-west3-a, and its JSON.
type entry struct {
	scope string
	body  map[string]any
}

// page filters, orders and cuts what a list request shows: maxResults is 0 to 500 and 500 by default
// (methods' reference, query parameters).
func (s *Server) page(c *call, all []entry) (page []entry, next string, failed *apiError) {
	filter, err := parseFilter(c.query.Get("filter"))
	if err != nil {
		return nil, "", invalid("filter", "'%s'. %v", c.query.Get("filter"), err)
	}
	if bad := filter.unknown(s.model, s.model.itemOf(c.method)); bad != "" {
		return nil, "", invalid("filter", "'%s'. Invalid list filter expression: no field %s", c.query.Get("filter"), bad)
	}
	var matching []entry
	for _, e := range all {
		ok, err := filter.matches(e.body)
		if err != nil {
			return nil, "", invalid("filter", "'%s'. %v", c.query.Get("filter"), err)
		}
		if ok {
			matching = append(matching, e)
		}
	}
	switch order := c.query.Get("orderBy"); order {
	case "", "name":
	case "creationTimestamp desc":
		slices.SortStableFunc(matching, func(a, b entry) int {
			return strings.Compare(text(b.body["creationTimestamp"]), text(a.body["creationTimestamp"]))
		})
	default:
		return nil, "", invalid("orderBy", "'%s'. Only orderBy by name or creationTimestamp desc is supported", order)
	}
	size := 500
	if text := c.query.Get("maxResults"); text != "" {
		size, _ = strconv.Atoi(text)
		if size > 500 || size < 0 {
			return nil, "", invalid("maxResults", "'%s'. Must be in [0, 500]", text)
		}
	}
	sum := fnv.New32a()
	fmt.Fprint(sum, c.method.ID, c.url, c.query.Get("filter"), c.query.Get("orderBy"))
	// The token names the last resource shown, so that what comes and goes in between neither repeats nor hides others.
	begin := 0
	if token := c.query.Get("pageToken"); token != "" {
		plain, err := base64.URLEncoding.DecodeString(token)
		query, last, ok := strings.Cut(string(plain), " ")
		if err != nil || !ok || query != fmt.Sprint(sum.Sum32()) {
			return nil, "", invalid("pageToken", "'%s'. Invalid page token", token)
		}
		offset, id, _ := strings.Cut(last, " ")
		begin, _ = strconv.Atoi(offset)
		for i, e := range matching {
			if fmt.Sprint(e.body["id"]) == id {
				begin = i + 1
			}
		}
	}
	begin = min(begin, len(matching))
	end := min(begin+size, len(matching))
	if end < len(matching) && end > begin {
		next = base64.URLEncoding.EncodeToString(fmt.Appendf(nil, "%d %d %v", sum.Sum32(), end, matching[end-1].body["id"]))
	}
	return matching[begin:end], next, nil
}

func text(v any) string { s, _ := v.(string); return s }

// list answers with one page in the usual form.
func (s *Server) list(c *call, kind string, all []entry) (any, *apiError) {
	page, next, failed := s.page(c, all)
	if failed != nil {
		return nil, failed
	}
	items := make([]any, len(page))
	for i, e := range page {
		items[i] = e.body
	}
	answer := map[string]any{"kind": "compute#" + kind, "id": strings.TrimPrefix(c.url, s.model.basePath), "selfLink": linkBase + strings.TrimPrefix(c.url, s.model.basePath)}
	if len(items) > 0 {
		answer["items"] = items
	}
	if next != "" {
		answer["nextPageToken"] = next
	}
	return answer, nil
}

// aggregate answers with one page by zone: zones without results carry a warning instead, unreachable ones are named.
func (s *Server) aggregate(c *call, kind, field string, all []entry) (any, *apiError) {
	all = slices.DeleteFunc(all, func(e entry) bool { return slices.Contains(s.unreachable, strings.TrimPrefix(e.scope, "zones/")) })
	page, next, failed := s.page(c, all)
	if failed != nil {
		return nil, failed
	}
	byScope := map[string][]any{}
	for _, e := range page {
		byScope[e.scope] = append(byScope[e.scope], e.body)
	}
	items := map[string]any{}
	var unreachable []any
	for _, z := range s.zones {
		scope := "zones/" + z.Name
		switch {
		case slices.Contains(s.unreachable, z.Name):
			unreachable = append(unreachable, "projects/"+s.project+"/"+scope)
			items[scope] = map[string]any{"warning": warning("UNREACHABLE", scope, "The zone is unreachable")}
		case len(byScope[scope]) > 0:
			items[scope] = map[string]any{field: byScope[scope]}
		default:
			items[scope] = map[string]any{"warning": warning("NO_RESULTS_ON_PAGE", scope, "There are no results for scope '"+scope+"' on this page.")}
		}
	}
	answer := map[string]any{"kind": "compute#" + kind, "id": strings.TrimPrefix(c.url, s.model.basePath), "selfLink": linkBase + strings.TrimPrefix(c.url, s.model.basePath), "items": items}
	if next != "" {
		answer["nextPageToken"] = next
	}
	if len(unreachable) > 0 {
		answer["unreachables"] = unreachable
		answer["warning"] = warning("UNREACHABLE", "unreachable", "Some of the results are missing")
	}
	return answer, nil
}

func warning(code, scope, message string) map[string]any {
	return map[string]any{"code": code, "message": message, "data": []any{map[string]any{"key": "scope", "value": scope}}}
}

// entries turns resources of the library's types into entries of one scope.
func entries[T any](all []T, scope func(T) string) []entry {
	var list []entry
	for _, x := range all {
		if generic, err := decoded(x); err == nil {
			body, _ := generic.(map[string]any)
			list = append(list, entry{scope(x), maps.Clone(body)})
		}
	}
	return list
}
