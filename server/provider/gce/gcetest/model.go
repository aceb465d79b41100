package gcetest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"

	"google.golang.org/api/compute/v1"
)

// Model is the vendor's discovery document: what requests and responses may look like.
type Model struct {
	schemas  map[string]*schema
	methods  map[string]*method
	common   map[string]*schema
	basePath string
}

// schema is a JSON schema of the discovery format, or a parameter
// (https://developers.google.com/discovery/v1/reference/apis).
type schema struct {
	Ref                  string             `json:"$ref"`
	Type                 string             `json:"type"`
	Format               string             `json:"format"`
	Pattern              string             `json:"pattern"`
	Description          string             `json:"description"`
	Enum                 []string           `json:"enum"`
	Minimum              string             `json:"minimum"`
	Maximum              string             `json:"maximum"`
	ReadOnly             bool               `json:"readOnly"`
	Required             bool               `json:"required"`
	Repeated             bool               `json:"repeated"`
	Location             string             `json:"location"`
	Properties           map[string]*schema `json:"properties"`
	Items                *schema            `json:"items"`
	AdditionalProperties *schema            `json:"additionalProperties"`
	Annotations          struct {
		Required []string `json:"required"`
	} `json:"annotations"`

	pattern *regexp.Regexp
}

type method struct {
	ID         string             `json:"id"`
	HTTPMethod string             `json:"httpMethod"`
	Path       string             `json:"path"`
	Parameters map[string]*schema `json:"parameters"`
	Request    *schema            `json:"request"`
	Response   *schema            `json:"response"`

	segments []string
}

type resource struct {
	Methods   map[string]*method   `json:"methods"`
	Resources map[string]*resource `json:"resources"`
}

// LoadModel reads the discovery document from the source folder of the client library, which ships it.
func LoadModel() (*Model, error) {
	path, err := documentPath()
	if err != nil {
		return nil, fmt.Errorf("cannot find the discovery document of Compute Engine: %w", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var document struct {
		BasePath   string             `json:"basePath"`
		Parameters map[string]*schema `json:"parameters"`
		Schemas    map[string]*schema `json:"schemas"`
		resource
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	m := &Model{schemas: document.Schemas, methods: map[string]*method{}, common: document.Parameters, basePath: document.BasePath}
	if err := m.add(&document.resource); err != nil {
		return nil, err
	}
	for _, s := range m.schemas {
		if err := s.compile(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// documentPath asks the running program where the library was compiled from, and the go command if that was trimmed.
func documentPath() (string, error) {
	const name = "compute-api.json"
	if f := runtime.FuncForPC(reflect.ValueOf(compute.NewService).Pointer()); f != nil {
		file, _ := f.FileLine(f.Entry())
		if path := filepath.Join(filepath.Dir(file), name); filepath.IsAbs(path) {
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
		}
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "google.golang.org/api").Output()
	if err != nil {
		return "", err
	}
	return filepath.Join(strings.TrimSpace(string(out)), "compute", "v1", name), nil
}

func (m *Model) add(r *resource) error {
	for _, x := range r.Methods {
		x.segments = strings.Split(x.Path, "/")
		for _, p := range x.Parameters {
			if err := p.compile(); err != nil {
				return err
			}
		}
		m.methods[x.ID] = x
	}
	for _, sub := range r.Resources {
		if err := m.add(sub); err != nil {
			return err
		}
	}
	return nil
}

func (s *schema) compile() (err error) {
	if s == nil {
		return nil
	}
	if s.Pattern != "" {
		if s.pattern, err = regexp.Compile("^(?:" + s.Pattern + ")$"); err != nil {
			return err
		}
	}
	for _, p := range s.Properties {
		if err := p.compile(); err != nil {
			return err
		}
	}
	if err := s.Items.compile(); err != nil {
		return err
	}
	return s.AdditionalProperties.compile()
}

// outputOnly says that a property must not be sent. The document marks some by readOnly, the others in words alone.
func (s *schema) outputOnly() bool {
	return s.ReadOnly || strings.HasPrefix(s.Description, "[Output Only]") || strings.HasPrefix(s.Description, "Output only")
}

// match finds the method of a request and its path parameters. Literal segments win over parameters.
func (m *Model) match(verb, path string) (*method, map[string]string) {
	rest, ok := strings.CutPrefix(path, m.basePath)
	if !ok {
		return nil, nil
	}
	segments := strings.Split(rest, "/")
	var best *method
	var found map[string]string
	for _, x := range m.methods {
		if x.HTTPMethod != verb || len(x.segments) != len(segments) {
			continue
		}
		parameters, fits := map[string]string{}, true
		for i, want := range x.segments {
			if name, ok := strings.CutPrefix(want, "{"); ok {
				parameters[strings.TrimSuffix(name, "}")] = segments[i]
			} else if want != segments[i] {
				fits = false
				break
			}
		}
		if fits && (best == nil || len(parameters) < len(found)) {
			best, found = x, parameters
		}
	}
	return best, found
}

// itemOf returns the schema of what a list method lists.
func (m *Model) itemOf(x *method) *schema {
	if x.Response == nil || m.schemas[x.Response.Ref] == nil {
		return nil
	}
	items := m.schemas[x.Response.Ref].Properties["items"]
	if items == nil {
		return nil
	}
	if items.Items != nil {
		return items.Items
	}
	if items.AdditionalProperties == nil || m.schemas[items.AdditionalProperties.Ref] == nil {
		return nil
	}
	for name, p := range m.schemas[items.AdditionalProperties.Ref].Properties {
		if name != "warning" && p.Items != nil {
			return p.Items
		}
	}
	return nil
}
