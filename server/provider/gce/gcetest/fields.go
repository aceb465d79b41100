package gcetest

import (
	"fmt"
	"strings"
)

// selection is a parsed partial response mask: nil selects all below
// (https://cloud.google.com/compute/docs/api/how-tos/performance, partial responses).
type selection map[string]selection

func parseFields(mask string) (selection, error) {
	p := fieldParser{mask}
	s, err := p.list()
	if err == nil && p.rest != "" {
		err = fmt.Errorf("unexpected %q", p.rest)
	}
	return s, err
}

type fieldParser struct{ rest string }

func (p *fieldParser) list() (selection, error) {
	s := selection{}
	for {
		if err := p.path(s); err != nil {
			return nil, err
		}
		rest, more := strings.CutPrefix(p.rest, ",")
		if !more {
			return s, nil
		}
		p.rest = rest
	}
}

// path parses a/b(c,d) into s.
func (p *fieldParser) path(s selection) error {
	end := strings.IndexAny(p.rest, ",/()")
	if end < 0 {
		end = len(p.rest)
	}
	name := p.rest[:end]
	if name == "" {
		return fmt.Errorf("a name is missing before %q", p.rest)
	}
	p.rest = p.rest[end:]
	var below selection
	switch {
	case strings.HasPrefix(p.rest, "/"):
		p.rest = p.rest[1:]
		below = s[name]
		if below == nil {
			below = selection{}
		}
		if err := p.path(below); err != nil {
			return err
		}
	case strings.HasPrefix(p.rest, "("):
		p.rest = p.rest[1:]
		var err error
		if below, err = p.list(); err != nil {
			return err
		}
		if !strings.HasPrefix(p.rest, ")") {
			return fmt.Errorf("a ) is missing before %q", p.rest)
		}
		p.rest = p.rest[1:]
	}
	s[name] = below
	return nil
}

// of returns what the mask selects of a decoded body.
func (s selection) of(v any) any {
	if s == nil {
		return v
	}
	switch v := v.(type) {
	case []any:
		selected := make([]any, len(v))
		for i, x := range v {
			selected[i] = s.of(x)
		}
		return selected
	case map[string]any:
		selected := map[string]any{}
		for name, x := range v {
			if below, ok := s[name]; ok {
				selected[name] = below.of(x)
			} else if below, ok := s["*"]; ok {
				selected[name] = below.of(x)
			}
		}
		return selected
	}
	return v
}
