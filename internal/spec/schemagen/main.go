// Command schemagen writes what is derived from the manifest's proto messages: docs/schema/provisionr.schema.json for
// editors and docs/manifest.md for people.
//
// Shapes and rules come from the descriptors; comments are not kept in them, so those come from the OpenAPI document
// that protogen wrote from the same files.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: schemagen REPOSITORY-ROOT")
	}
	files, err := generate(os.Args[1])
	if err != nil {
		log.Fatal("schemagen: ", err)
	}
	for name, content := range files {
		path := filepath.Join(os.Args[1], name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			log.Fatal("schemagen: ", err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			log.Fatal("schemagen: ", err)
		}
	}
}

// generate returns the generated files by path relative to root.
func generate(root string) (map[string][]byte, error) {
	comments, err := readComments(filepath.Join(root, "proto/provisionr/v1/openapi.swagger.json"))
	if err != nil {
		return nil, err
	}
	var schema bytes.Buffer
	encoder := json.NewEncoder(&schema)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(jsonSchema(comments)); err != nil {
		return nil, fmt.Errorf("cannot encode the schema: %w", err)
	}
	return map[string][]byte{
		"docs/schema/provisionr.schema.json": schema.Bytes(),
		"docs/manifest.md":                   reference(comments),
	}, nil
}
