package gcetest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// filter is a parsed filter expression: AIP-160's comparisons with AND, OR, NOT and parentheses, or the older form with eq
// and ne, whose literal is a regular expression (methods' reference, parameter filter). Nil matches everything.
type filter struct {
	op          string // and, or, not, or a comparison
	left, right *filter
	field       []string
	value       string
	pattern     *regexp.Regexp
}

func parseFilter(expression string) (*filter, error) {
	if strings.TrimSpace(expression) == "" {
		return nil, nil
	}
	tokens, err := filterTokens(expression)
	if err != nil {
		return nil, err
	}
	p := &filterParser{tokens: tokens}
	f, err := p.sequence()
	switch {
	case err != nil:
		return nil, err
	case len(p.tokens) > 0:
		return nil, fmt.Errorf("unexpected %q", p.tokens[0].text)
	case p.old && p.new:
		return nil, fmt.Errorf("the two types of filter expressions cannot be mixed")
	}
	return f, nil
}

type filterToken struct {
	text   string
	quoted bool
}

func filterTokens(s string) ([]filterToken, error) {
	var tokens []filterToken
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimLeft(s, " \t\n") {
		switch {
		case s[0] == '"' || s[0] == '\'':
			end := strings.IndexByte(s[1:], s[0])
			if end < 0 {
				return nil, fmt.Errorf("a quote is not closed")
			}
			tokens, s = append(tokens, filterToken{s[1 : 1+end], true}), s[2+end:]
		case strings.ContainsRune("()", rune(s[0])):
			tokens, s = append(tokens, filterToken{s[:1], false}), s[1:]
		case strings.ContainsRune("!<>", rune(s[0])) && len(s) > 1 && s[1] == '=':
			tokens, s = append(tokens, filterToken{s[:2], false}), s[2:]
		case strings.ContainsRune("=<>:", rune(s[0])):
			tokens, s = append(tokens, filterToken{s[:1], false}), s[1:]
		default:
			end := strings.IndexFunc(s, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`()=<>:!"'`, r) })
			if end < 0 {
				end = len(s)
			}
			if end == 0 {
				return nil, fmt.Errorf("unexpected %q", s[:1])
			}
			// The literal of eq and ne is a regular expression up to the next space, or the parenthesis that encloses it.
			if n := len(tokens); n > 0 && (tokens[n-1].text == "eq" || tokens[n-1].text == "ne") {
				if end = strings.IndexFunc(s, unicode.IsSpace); end < 0 {
					end = len(s)
				}
				for depth := strings.Count(s[:end], ")") - strings.Count(s[:end], "("); depth > 0 && s[end-1] == ')'; depth-- {
					end--
				}
			}
			tokens, s = append(tokens, filterToken{s[:end], false}), s[end:]
		}
	}
	return tokens, nil
}

type filterParser struct {
	tokens   []filterToken
	old, new bool
}

func (p *filterParser) peek() string {
	if len(p.tokens) == 0 || p.tokens[0].quoted {
		return ""
	}
	return p.tokens[0].text
}

func (p *filterParser) take() (filterToken, error) {
	if len(p.tokens) == 0 {
		return filterToken{}, fmt.Errorf("the expression ends early")
	}
	t := p.tokens[0]
	p.tokens = p.tokens[1:]
	return t, nil
}

// sequence is factors joined by AND or by nothing; OR binds tighter (AIP-160, logical operators).
func (p *filterParser) sequence() (*filter, error) {
	left, err := p.factor()
	for err == nil && len(p.tokens) > 0 && p.peek() != ")" {
		if p.peek() == "AND" {
			_, _ = p.take()
		}
		var right *filter
		right, err = p.factor()
		left = &filter{op: "and", left: left, right: right}
	}
	return left, err
}

func (p *filterParser) factor() (*filter, error) {
	left, err := p.term()
	for err == nil && p.peek() == "OR" {
		_, _ = p.take()
		var right *filter
		right, err = p.term()
		left = &filter{op: "or", left: left, right: right}
	}
	return left, err
}

func (p *filterParser) term() (*filter, error) {
	switch p.peek() {
	case "NOT":
		_, _ = p.take()
		inner, err := p.term()
		return &filter{op: "not", left: inner}, err
	case "(":
		_, _ = p.take()
		inner, err := p.sequence()
		if err != nil {
			return nil, err
		}
		if t, err := p.take(); err != nil || t.text != ")" {
			return nil, fmt.Errorf("a parenthesis is not closed")
		}
		return inner, nil
	}
	return p.comparison()
}

func (p *filterParser) comparison() (*filter, error) {
	name, err := p.take()
	if err != nil {
		return nil, err
	}
	op, err := p.take()
	if err != nil {
		return nil, err
	}
	value, err := p.take()
	if err != nil {
		return nil, err
	}
	f := &filter{op: op.text, field: strings.Split(name.text, "."), value: value.text}
	switch op.text {
	case "eq", "ne":
		p.old = true
		if f.pattern, err = regexp.Compile("^(?:" + value.text + ")$"); err != nil {
			return nil, err
		}
	case "=", "!=", "<", "<=", ">", ">=", ":":
		p.new = true
		if strings.Contains(value.text, "*") && (op.text != ":" || value.text != "*") {
			return nil, fmt.Errorf("wildcards are supported by :* alone here")
		}
	default:
		return nil, fmt.Errorf("no operator %q", op.text)
	}
	return f, nil
}

func (f *filter) matches(body map[string]any) (bool, error) {
	if f == nil {
		return true, nil
	}
	switch f.op {
	case "and", "or":
		left, err := f.left.matches(body)
		if err != nil || left == (f.op == "or") {
			return left, err
		}
		return f.right.matches(body)
	case "not":
		inner, err := f.left.matches(body)
		return !inner, err
	}
	var v any = body
	for _, name := range f.field {
		object, ok := v.(map[string]any)
		if !ok {
			v = nil
			break
		}
		v = object[name]
	}
	return f.compare(v)
}

func (f *filter) compare(v any) (bool, error) {
	var value string
	switch v := v.(type) {
	case nil:
		// What is not there equals nothing.
		return f.op == "!=" || f.op == "ne", nil
	case string:
		value = v
	case bool:
		value = strconv.FormatBool(v)
	case json.Number:
		value = v.String()
	default:
		return f.op == ":" && f.value == "*", nil
	}
	switch f.op {
	case "eq":
		return f.pattern.MatchString(value), nil
	case "ne":
		return !f.pattern.MatchString(value), nil
	case ":":
		return f.value == "*" || strings.Contains(strings.ToLower(value), strings.ToLower(f.value)), nil
	case "=":
		return value == f.value, nil
	case "!=":
		return value != f.value, nil
	}
	order := strings.Compare(value, f.value)
	if a, err := strconv.ParseFloat(value, 64); err == nil {
		if b, err := strconv.ParseFloat(f.value, 64); err == nil {
			order = cmp.Compare(a, b)
		}
	}
	switch f.op {
	case "<":
		return order < 0, nil
	case "<=":
		return order <= 0, nil
	case ">":
		return order > 0, nil
	}
	return order >= 0, nil
}

// unknown returns a field of the filter that resources of the schema do not have.
func (f *filter) unknown(m *Model, item *schema) string {
	if f == nil || item == nil {
		return ""
	}
	if f.field == nil {
		return cmp.Or(f.left.unknown(m, item), f.right.unknown(m, item))
	}
	at := item
	for _, name := range f.field {
		for at != nil && (at.Ref != "" || at.Type == "array") {
			if at.Type == "array" {
				at = at.Items
			} else {
				at = m.schemas[at.Ref]
			}
		}
		switch {
		case at == nil:
			return strings.Join(f.field, ".")
		case at.Properties[name] != nil:
			at = at.Properties[name]
		default:
			at = at.AdditionalProperties
		}
	}
	if at == nil {
		return strings.Join(f.field, ".")
	}
	return ""
}
