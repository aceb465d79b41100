package model

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// scalar parses the text of a value and checks it; nil if it is none of its shape.
func (c *checker) scalar(name, text, path string) any {
	shape := c.service.Shapes[name]
	bad := func(what string) any {
		c.say(InvalidParameterValue, name, path, fmt.Sprintf("%q is not %s", shorten(text), what))
		return nil
	}
	switch shape.Type {
	case "string", "character":
		c.text(name, text, path)
		return text
	case "boolean":
		if text != "true" && text != "false" {
			return bad("a boolean")
		}
		return text == "true"
	case "integer":
		v, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return bad("an integer")
		}
		c.bounds(name, float64(v), path)
		return v
	case "long":
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return bad("a long")
		}
		c.bounds(name, float64(v), path)
		return v
	case "float", "double":
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return bad("a number")
		}
		c.bounds(name, v, path)
		return v
	case "timestamp":
		if _, err := time.Parse(time.RFC3339, text); err != nil {
			return bad("a time")
		}
		return text
	case "blob":
		if _, err := base64.StdEncoding.DecodeString(text); err != nil {
			return bad("base64")
		}
		return text
	}
	return bad("of a known type but " + shape.Type)
}

// text checks a string's enumeration, length and pattern.
func (c *checker) text(name, text, path string) {
	shape := c.service.Shapes[name]
	if len(shape.Enum) > 0 && !slices.Contains(shape.Enum, text) {
		c.say(InvalidParameterValue, name, path, fmt.Sprintf("%q is not a value of %s", shorten(text), name))
	}
	if !utf8.ValidString(text) {
		c.say(InvalidParameterValue, name, path, "is not UTF-8")
	}
	c.length(name, utf8.RuneCountInString(text), path)
	if shape.Pattern == "" {
		return
	}
	if re := c.pattern(shape.Pattern); re != nil && !re.MatchString(text) {
		c.say(InvalidParameterValue, name, path, fmt.Sprintf("%q does not match %s", shorten(text), shape.Pattern))
	}
}

// pattern compiles a pattern. Some of the vendor's have look-ahead, which RE2 does not: they are not checked.
func (c *checker) pattern(text string) *regexp.Regexp {
	re, met := c.patterns[text]
	if met {
		return re
	}
	re, err := regexp.Compile("^(?:" + text + ")$")
	if err != nil {
		re = nil
	}
	if c.patterns == nil {
		c.patterns = make(map[string]*regexp.Regexp)
	}
	c.patterns[text] = re
	return re
}

func (c *checker) length(name string, n int, path string) {
	shape := c.service.Shapes[name]
	if shape.Min != nil && n < int(*shape.Min) || shape.Max != nil && n > int(*shape.Max) {
		c.say(InvalidParameterValue, name, path, fmt.Sprintf("the length %d is out of bounds", n))
	}
}

func (c *checker) bounds(name string, v float64, path string) {
	shape := c.service.Shapes[name]
	if shape.Min != nil && v < *shape.Min || shape.Max != nil && v > *shape.Max {
		c.say(InvalidParameterValue, name, path, fmt.Sprintf("%v is out of bounds", v))
	}
}

// shorten keeps complaints readable and secrets, as user-data, out of them.
func shorten(text string) string {
	if len(text) > 64 {
		return text[:64] + "…"
	}
	return text
}
