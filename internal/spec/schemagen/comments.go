package main

import (
	"encoding/json"
	"fmt"
	"os"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// comments are the comments of messages and fields.
type comments struct {
	Definitions map[string]struct {
		Description string
		Properties  map[string]struct{ Description, Title string }
		Title       string
	}
}

func readComments(path string) (comments, error) {
	var c comments
	data, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("cannot read %s: %w", path, err)
	}
	if len(c.Definitions) == 0 {
		return c, fmt.Errorf("cannot read %s: no definitions in it", path)
	}
	return c, nil
}

// message returns the comment of a message. A comment of one line without a full stop is a title to OpenAPI.
func (c comments) message(m protoreflect.MessageDescriptor) string {
	d := c.Definitions["v1"+string(m.Name())]
	return first(d.Description, d.Title)
}

func (c comments) field(f protoreflect.FieldDescriptor) string {
	p := c.Definitions["v1"+string(f.Parent().Name())].Properties[f.JSONName()]
	return first(p.Description, p.Title)
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
