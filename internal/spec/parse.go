package spec

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

const (
	// maxBytes bounds one manifest file.
	maxBytes = 8 << 20
	// maxObjects bounds the objects of a set, as the API does.
	maxObjects = 1000
)

// Source is one manifest file.
type Source struct {
	// Name is shown in errors.
	Name string
	Data []byte
}

// Options tell checks what lies outside of the set.
type Options struct {
	// Known reports whether an object of a kind, as Pool, exists already. Nil leaves references out of the set unchecked.
	Known func(kind, name string) bool
	// Provider returns a provider that exists already, or nil. Nil leaves what depends on its kind unchecked.
	Provider func(name string) *provisionrv1.Provider
}

// Parse reads the manifests in a file of YAML documents and checks them. The error is of kind Invalid and wraps Problems.
func Parse(file string, data []byte) ([]*provisionrv1.Object, error) {
	return ParseAll([]Source{{file, data}}, Options{})
}

// ParseAll is Parse for several files, which may refer to each other.
func ParseAll(sources []Source, options Options) ([]*provisionrv1.Object, error) {
	var (
		docs     []*document
		problems Problems
	)
	for _, s := range sources {
		found, err := documents(s)
		docs = append(docs, found...)
		problems = append(problems, err...)
	}
	if len(docs) == 0 && len(problems) == 0 {
		p := Problem{Message: "there is no object in it", Hint: "a manifest begins with apiVersion: " + APIVersion + " and kind: Pool"}
		if len(sources) > 0 {
			p.File = sources[0].Name
		}
		problems = append(problems, p)
	}
	if len(docs) > maxObjects {
		problems = append(problems, Problem{File: docs[maxObjects].file, Message: "too many objects", Hint: "apply at most 1000 at a time"})
		return nil, problems.err()
	}
	var objects []*provisionrv1.Object
	for _, d := range docs {
		if d.object != nil {
			objects = append(objects, d.object)
		}
	}
	problems = append(problems, check(docs, options)...)
	if err := problems.err(); err != nil {
		return nil, err
	}
	return objects, nil
}

// documents decodes every YAML document of a file. Problems that belong to a document are in it.
func documents(s Source) ([]*document, Problems) {
	if len(s.Data) > maxBytes {
		return nil, Problems{{File: s.Name, Message: "the file is larger than 8 MiB"}}
	}
	var docs []*document
	decoder := yaml.NewDecoder(bytes.NewReader(s.Data))
	for len(docs) <= maxObjects {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return docs, Problems{syntax(s, err)}
		}
		if len(node.Content) == 0 || node.Content[0].ShortTag() == nullTag {
			continue // an empty document, as after a final "---"
		}
		d := newDocument(s.Name)
		decode(d, node.Content[0])
		docs = append(docs, d)
	}
	return docs, nil
}

var (
	yamlLine      = regexp.MustCompile(`^yaml: (?:line (\d+): )?(?s:(.*))$`)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// syntax turns an error of the YAML parser into a problem. The parser tells no column.
func syntax(s Source, err error) Problem {
	p := Problem{File: s.Name, Line: 1, Column: 1, Message: err.Error()}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		p.Message = m[2]
		if m[1] != "" {
			p.Line, _ = strconv.Atoi(m[1])
		}
	}
	switch {
	case strings.Contains(p.Message, "cannot start any token"):
		p.Hint = "YAML is indented with spaces; quote a value that begins with a special character"
	case strings.Contains(p.Message, "mapping values are not allowed"):
		p.Hint = "check the indentation, and quote a value that has a colon and a space in it"
	case strings.Contains(p.Message, "did not find expected"):
		p.Hint = "check the indentation: fields of one object begin in one column"
	}
	if m := unknownAnchor.FindStringSubmatch(p.Message); m != nil {
		before, _, _ := bytes.Cut(s.Data, []byte("*"+m[1]))
		p.Line = 1 + bytes.Count(before, []byte("\n"))
		p.Column = len(before) - bytes.LastIndexByte(before, '\n')
	}
	p.Message = "this is not YAML: " + p.Message
	return p
}
