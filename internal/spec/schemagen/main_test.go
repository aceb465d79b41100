package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

const root = "../../.."

func TestGeneratedFilesAreCurrent(t *testing.T) {
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || string(got) != string(want) {
			t.Errorf("%s is not current (%v): run `make generate`", name, err)
		}
	}
}

// Every field says what it means: what has no comment in the proto files is useless in an editor.
func TestEveryFieldIsDescribed(t *testing.T) {
	c, err := readComments(filepath.Join(root, "proto/provisionr/v1/openapi.swagger.json"))
	if err != nil {
		t.Fatal(err)
	}
	described := 0
	for name, def := range jsonSchema(c)["$defs"].(object) {
		for field, p := range def.(object)["properties"].(object) {
			property := p.(object)
			if _, ok := property["description"]; ok {
				described++
			}
			if pattern, ok := property["pattern"].(string); ok {
				if _, err := regexp.Compile(pattern); err != nil {
					t.Errorf("%s.%s: %v", name, field, err)
				}
			}
		}
	}
	if described < 70 {
		t.Errorf("only %d fields have a description", described)
	}
}

func TestSchemaRefersOnlyToItself(t *testing.T) {
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	schema := files["docs/schema/provisionr.schema.json"]
	var decoded struct {
		Defs map[string]any `json:"$defs"`
	}
	if err := json.Unmarshal(schema, &decoded); err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"\$ref": "#/\$defs/([A-Za-z]+)"`).FindAllSubmatch(schema, -1) {
		if decoded.Defs[string(m[1])] == nil {
			t.Errorf("definition %s is missing", m[1])
		}
	}
}
