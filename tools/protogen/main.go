// Command protogen compiles every .proto file below ../proto and runs the Go, gRPC, gateway and OpenAPI generators on them.
//
// Imports that are not ours (google/api, buf/validate, google/protobuf) are taken from the descriptors that the
// generated Go packages of those modules carry, so that no foreign .proto file is kept here and no protoc is needed.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	_ "google.golang.org/genproto/googleapis/api/annotations"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const module = "github.com/provisionr/provisionr"

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: protogen REPOSITORY-ROOT")
	}
	if err := run(os.Args[1]); err != nil {
		log.Fatal("protogen: ", err)
	}
}

func run(root string) error {
	files, err := protoFiles(filepath.Join(root, "proto"))
	if err != nil {
		return err
	}
	compiler := protocompile.Compiler{
		SourceInfoMode: protocompile.SourceInfoStandard,
		Resolver: protocompile.CompositeResolver{
			&protocompile.SourceResolver{ImportPaths: []string{filepath.Join(root, "proto")}},
			protocompile.ResolverFunc(linkedIn),
		},
	}
	compiled, err := compiler.Compile(context.Background(), files...)
	if err != nil {
		return err
	}
	all := ordered(compiled)
	var api []string
	for _, f := range files {
		if strings.HasPrefix(f, "provisionr/") {
			api = append(api, f)
		}
	}
	for _, g := range []struct {
		plugin, parameter string
		files             []string
	}{
		{"protoc-gen-go", "module=" + module, files},
		{"protoc-gen-go-grpc", "module=" + module, files},
		{"protoc-gen-grpc-gateway", "module=" + module, api},
		{"protoc-gen-openapiv2", "allow_merge=true,merge_file_name=proto/provisionr/v1/openapi,json_names_for_fields=true,disable_default_errors=false", api},
	} {
		if err := generate(root, g.plugin, g.parameter, g.files, all); err != nil {
			return fmt.Errorf("%s: %w", g.plugin, err)
		}
	}
	return nil
}

func protoFiles(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".proto") {
			rel, relErr := filepath.Rel(dir, path)
			files, err = append(files, filepath.ToSlash(rel)), relErr
		}
		return err
	})
	return files, err
}

func linkedIn(path string) (protocompile.SearchResult, error) {
	d, err := protoregistry.GlobalFiles.FindFileByPath(path)
	if err != nil {
		return protocompile.SearchResult{}, err
	}
	return protocompile.SearchResult{Desc: d}, nil
}

// ordered lists the files and all their imports, imports first, as a plugin expects them.
func ordered(files linker.Files) []*descriptorpb.FileDescriptorProto {
	var out []*descriptorpb.FileDescriptorProto
	seen := map[string]bool{}
	var visit func(f protoreflect.FileDescriptor)
	visit = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		imports := f.Imports()
		for i := range imports.Len() {
			visit(imports.Get(i).FileDescriptor)
		}
		if r, ok := f.(linker.Result); ok {
			out = append(out, r.FileDescriptorProto())
			return
		}
		out = append(out, protodesc.ToFileDescriptorProto(f))
	}
	for _, f := range files {
		visit(f)
	}
	return out
}

func generate(root, plugin, parameter string, files []string, all []*descriptorpb.FileDescriptorProto) error {
	in, err := proto.Marshal(&pluginpb.CodeGeneratorRequest{FileToGenerate: files, Parameter: &parameter, ProtoFile: all})
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "tool", plugin)
	cmd.Dir = filepath.Join(root, "tools")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &response); err != nil {
		return err
	}
	if response.Error != nil {
		return fmt.Errorf("%s", response.GetError())
	}
	for _, f := range response.File {
		if err := os.WriteFile(filepath.Join(root, f.GetName()), []byte(f.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
