package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// JSONRequest checks the body of a request of the json protocol and returns what it holds.
func (s *Service) JSONRequest(action string, body []byte) (map[string]any, []Problem) {
	op := s.Operations[action]
	if op == nil || op.Input == nil {
		return nil, []Problem{{Path: action, Text: "is not an action with an input"}}
	}
	return s.json(op.Input.Shape, body)
}

// JSONAnswer checks the body of a successful answer.
func (s *Service) JSONAnswer(action string, body []byte) []Problem {
	op := s.Operations[action]
	if op == nil || op.Output == nil {
		return []Problem{{Path: action, Text: "is not an action with an output"}}
	}
	_, problems := s.json(op.Output.Shape, body)
	return problems
}

func (s *Service) json(shape string, body []byte) (map[string]any, []Problem) {
	c := &checker{service: s}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var tree map[string]any
	if err := decoder.Decode(&tree); err != nil {
		c.say("SerializationException", "", "", "not a JSON object: "+err.Error())
		return nil, c.problems
	}
	c.jsonValue(shape, tree, "")
	return tree, c.problems
}

func (c *checker) jsonValue(name string, value any, path string) {
	shape := c.service.Shapes[name]
	wrong := func() { c.say(InvalidParameterValue, name, path, fmt.Sprintf("is not a %s", shape.Type)) }
	switch shape.Type {
	case "structure":
		object, ok := value.(map[string]any)
		if !ok {
			wrong()
			return
		}
		for _, member := range slices.Sorted(maps.Keys(object)) {
			ref := shape.Members[member]
			if ref == nil {
				c.say(UnknownParameter, name, join(path, member), "the member is not of the model's "+name)
				continue
			}
			c.jsonValue(ref.Shape, object[member], join(path, member))
		}
		for _, member := range shape.Required {
			if _, ok := object[member]; !ok {
				c.say(MissingParameter, name, join(path, member), "the required member is missing")
			}
		}
	case "list":
		list, ok := value.([]any)
		if !ok {
			wrong()
			return
		}
		c.length(name, len(list), path)
		for i, v := range list {
			c.jsonValue(shape.Member.Shape, v, join(path, strconv.Itoa(i)))
		}
	case "string":
		if text, ok := value.(string); ok {
			c.text(name, text, path)
		} else {
			wrong()
		}
	case "boolean":
		if _, ok := value.(bool); !ok {
			wrong()
		}
	default:
		if number, ok := value.(json.Number); !ok {
			wrong()
		} else if shape.Type != "timestamp" {
			c.scalar(name, number.String(), path)
		}
	}
}
