package model

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The codes of problems, as the vendor's "Error codes for the Amazon EC2 API" has them.
const (
	UnknownParameter      = "UnknownParameter"
	MissingParameter      = "MissingParameter"
	InvalidParameterValue = "InvalidParameterValue"
	MalformedQueryString  = "MalformedQueryString"
)

// Problem is one thing that is wrong with a request or an answer.
type Problem struct {
	// Code of the vendor's errors.
	Code string
	// Shape of the value, where there is one.
	Shape string
	// Path as Placement.AvailabilityZone or NetworkInterface.1.SubnetId.
	Path string
	// Text says what is wrong.
	Text string
}

func (p Problem) String() string { return p.Path + ": " + p.Text }

// node is a level of a form: a.b.1=x.
type node struct {
	value    *string
	children map[string]*node
}

func (n *node) put(path []string, value string) bool {
	if len(path) == 0 {
		if n.value != nil {
			return false
		}
		n.value = &value
		return true
	}
	if n.children == nil {
		n.children = make(map[string]*node)
	}
	child := n.children[path[0]]
	if child == nil {
		child = new(node)
		n.children[path[0]] = child
	}
	return child.put(path[1:], value)
}

// Query parses the parameters of an action, without Action and Version, into a tree of maps by the names of the model's
// members, slices, strings, booleans, int64 and float64, and says all that is wrong with them.
func (s *Service) Query(action string, form url.Values) (map[string]any, []Problem) {
	c := &checker{service: s}
	root := new(node)
	for _, key := range slices.Sorted(maps.Keys(form)) {
		for _, value := range form[key] {
			if !root.put(strings.Split(key, "."), value) {
				c.say(MalformedQueryString, "", key, "the parameter is given more than once")
			}
		}
	}
	op := s.Operations[action]
	if op == nil || op.Input == nil {
		for name := range root.children {
			c.say(UnknownParameter, "", name, "the action has no parameters")
		}
		return map[string]any{}, c.problems
	}
	return c.queryStruct(s.Shapes[op.Input.Shape], root, ""), c.problems
}

// checker collects problems.
type checker struct {
	service  *Service
	problems []Problem
	// elements are the members of each structure that was met, by the names of their elements.
	elements map[string]map[string]string
	// patterns are those that were met; nil where a pattern cannot be checked.
	patterns map[string]*regexp.Regexp
}

func (c *checker) say(code, shape, path, text string) {
	c.problems = append(c.problems, Problem{Code: code, Shape: shape, Path: path, Text: text})
}

// queryName is where a member has its place in a form.
func (c *checker) queryName(member string, ref *Ref) string {
	switch {
	case c.service.Metadata.Protocol != "ec2":
		if ref.LocationName != "" {
			return ref.LocationName
		}
		return member
	case ref.QueryName != "":
		return ref.QueryName
	case ref.LocationName != "":
		first, size := utf8.DecodeRuneInString(ref.LocationName)
		return string(unicode.ToUpper(first)) + ref.LocationName[size:]
	}
	return member
}

func (c *checker) queryStruct(shape *Shape, n *node, path string) map[string]any {
	out := make(map[string]any)
	if n.value != nil && path != "" {
		c.say(InvalidParameterValue, "", path, "a structure has no value of its own")
	}
	known := make(map[string]bool)
	for _, member := range slices.Sorted(maps.Keys(shape.Members)) {
		ref := shape.Members[member]
		name := c.queryName(member, ref)
		known[name] = true
		child := n.children[name]
		if child == nil {
			if slices.Contains(shape.Required, member) {
				c.say(MissingParameter, ref.Shape, join(path, name), "the request must contain it")
			}
			continue
		}
		if v := c.queryValue(ref, child, join(path, name)); v != nil {
			out[member] = v
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		if !known[name] {
			c.say(UnknownParameter, "", join(path, name), "the parameter is not recognized")
		}
	}
	return out
}

func (c *checker) queryValue(ref *Ref, n *node, path string) any {
	shape := c.service.Shapes[ref.Shape]
	switch shape.Type {
	case "structure":
		return c.queryStruct(shape, n, path)
	case "list":
		return c.queryList(ref, shape, n, path)
	case "map":
		c.say(InvalidParameterValue, ref.Shape, path, "maps are not known to this check")
		return nil
	}
	if n.value == nil || len(n.children) > 0 {
		c.say(UnknownParameter, ref.Shape, path, "a "+shape.Type+" has no parts")
		return nil
	}
	return c.scalar(ref.Shape, *n.value, path)
}

func (c *checker) queryList(ref *Ref, shape *Shape, n *node, path string) any {
	if n.value != nil {
		// The query protocol sends an empty list as an empty value; the EC2 protocol has no empty lists.
		if c.service.Metadata.Protocol == "ec2" || *n.value != "" {
			c.say(InvalidParameterValue, ref.Shape, path, "a list has no value of its own")
		}
	}
	if c.service.Metadata.Protocol != "ec2" && !shape.Flattened && !ref.Flattened {
		path += ".member"
		for name := range n.children {
			if name != "member" {
				c.say(UnknownParameter, ref.Shape, join(path, name), "the parameter is not recognized")
			}
		}
		if n = n.children["member"]; n == nil {
			n = new(node)
		}
	}
	out := make([]any, 0, len(n.children))
	for i := 1; i <= len(n.children); i++ {
		child := n.children[strconv.Itoa(i)]
		if child == nil {
			c.say(MalformedQueryString, ref.Shape, path, "the items are not numbered from 1 without a gap")
			break
		}
		out = append(out, c.queryValue(shape.Member, child, join(path, strconv.Itoa(i))))
	}
	c.length(ref.Shape, len(out), path)
	return out
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
