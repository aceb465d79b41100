package model

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// element of an answer.
type element struct {
	name     xml.Name
	text     string
	children []*element
}

// XML says all that is wrong with the body of a successful answer to an action.
func (s *Service) XML(action string, body []byte) []Problem {
	c := &checker{service: s}
	root, err := parse(body)
	if err != nil {
		c.say("", "", "", "not XML: "+err.Error())
		return c.problems
	}
	if want := action + "Response"; root.name.Local != want {
		c.say("", "", root.name.Local, "is not "+want)
	}
	// The service's answers end the namespace of the model with a slash.
	if got, want := strings.TrimSuffix(root.name.Space, "/"), strings.TrimSuffix(s.Metadata.XMLNamespace, "/"); got != want {
		c.say("", "", root.name.Local, fmt.Sprintf("the namespace is %q, not %q", got, want))
	}
	op := s.Operations[action]
	if op == nil {
		c.say("", "", action, "is not an action")
		return c.problems
	}
	if s.Metadata.Protocol == "query" {
		c.wrapped(op, root)
		return c.problems
	}
	rest := c.requestID(root, "requestId")
	if op.Output == nil {
		// The reference documents the element "return" for actions that the model gives no output.
		for _, e := range rest {
			if e.name.Local != "return" || e.text != "true" {
				c.say("", "", e.name.Local, "the action answers nothing but return")
			}
		}
		return c.problems
	}
	c.xmlStruct(op.Output.Shape, &element{name: root.name, children: rest}, "")
	return c.problems
}

// wrapped checks an answer of the query protocol: ActionResult and ResponseMetadata.
func (c *checker) wrapped(op *Operation, root *element) {
	for _, e := range root.children {
		switch {
		case op.Output != nil && e.name.Local == op.Output.ResultWrapper:
			c.xmlStruct(op.Output.Shape, e, "")
		case e.name.Local == "ResponseMetadata":
			if rest := c.requestID(e, "RequestId"); len(rest) > 0 {
				c.say("", "", e.name.Local, "holds more than the request's id")
			}
		default:
			c.say("", "", e.name.Local, "the element is not of the model")
		}
	}
}

// requestID checks the id of the request and returns the other elements.
func (c *checker) requestID(root *element, name string) []*element {
	var rest []*element
	found := 0
	for _, e := range root.children {
		if e.name.Local != name {
			rest = append(rest, e)
			continue
		}
		found++
		if len(e.text) != 36 {
			c.say("", "", name, "is not a UUID")
		}
	}
	if found != 1 {
		c.say("", "", name, fmt.Sprintf("is there %d times, not once", found))
	}
	return rest
}

func (c *checker) xmlStruct(name string, e *element, path string) {
	shape := c.service.Shapes[name]
	if strings.TrimSpace(e.text) != "" {
		c.say("", name, path, "a structure has text")
	}
	byName := c.membersOf(name, shape)
	seen := make(map[string]bool)
	for _, child := range e.children {
		at := join(path, child.name.Local)
		member, ok := byName[child.name.Local]
		if !ok {
			c.say("", name, at, "the element is not of the model's "+name)
			continue
		}
		ref := shape.Members[member]
		if seen[member] && !ref.Flattened && !c.service.Shapes[ref.Shape].Flattened {
			c.say("", name, at, "the element is there more than once")
		}
		seen[member] = true
		c.xmlValue(ref.Shape, child, at)
	}
	for _, member := range shape.Required {
		if !seen[member] {
			c.say("", name, join(path, member), "the required element is missing")
		}
	}
}

// membersOf returns the members of a structure by the names of their elements.
func (c *checker) membersOf(name string, shape *Shape) map[string]string {
	if byName := c.elements[name]; byName != nil {
		return byName
	}
	byName := make(map[string]string, len(shape.Members))
	for member, ref := range shape.Members {
		at := ref.LocationName
		if at == "" {
			at = member
		}
		byName[at] = member
	}
	if c.elements == nil {
		c.elements = make(map[string]map[string]string)
	}
	c.elements[name] = byName
	return byName
}

func (c *checker) xmlValue(name string, e *element, path string) {
	shape := c.service.Shapes[name]
	switch shape.Type {
	case "structure":
		c.xmlStruct(name, e, path)
		return
	case "list":
		c.xmlList(name, shape, e, path)
		return
	}
	if len(e.children) > 0 {
		c.say("", name, path, "a "+shape.Type+" has elements")
	}
	// The service leaves strings that it does not know empty, as <dnsName/>.
	if shape.Type == "string" && e.text == "" && len(shape.Enum) == 0 {
		return
	}
	c.scalar(name, e.text, path)
}

func (c *checker) xmlList(name string, shape *Shape, e *element, path string) {
	want := shape.Member.LocationName
	if want == "" {
		want = "member"
	}
	if strings.TrimSpace(e.text) != "" {
		c.say("", name, path, "a list has text")
	}
	for i, child := range e.children {
		at := fmt.Sprintf("%s[%d]", path, i)
		if child.name.Local != want {
			c.say("", name, at, fmt.Sprintf("the item is %s, not %s", child.name.Local, want))
		}
		c.xmlValue(shape.Member.Shape, child, at)
	}
	c.length(name, len(e.children), path)
}

func parse(body []byte) (*element, error) {
	decoder := xml.NewDecoder(bytes.NewReader(body))
	var stack []*element
	var root *element
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := &element{name: token.Name}
			if len(stack) > 0 {
				parent := stack[len(stack)-1]
				parent.children = append(parent.children, e)
			} else {
				root = e
			}
			stack = append(stack, e)
		case xml.EndElement:
			stack = slices.Delete(stack, len(stack)-1, len(stack))
		case xml.CharData:
			if len(stack) > 0 {
				stack[len(stack)-1].text += string(token)
			}
		}
	}
	if root == nil {
		return nil, io.ErrUnexpectedEOF
	}
	return root, nil
}
