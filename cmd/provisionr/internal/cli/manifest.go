package cli

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/spec"
)

// maxManifest bounds what is read from one file, in bytes. The parser has its own, lower bound.
const maxManifest = 16 << 20

// manifestFlags say where manifests come from.
type manifestFlags struct {
	files   []string
	sshKeys []string
}

func (f *manifestFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&f.files, "file", "f", nil, "manifest, folder of *.yaml manifests, or - for the input (repeatable)")
	cmd.Flags().StringArrayVar(&f.sshKeys, "ssh-key", nil, "public key file to give to every admin account that has no key in the manifest (repeatable)")
}

// read reads, checks and completes the manifests.
func (f *manifestFlags) read(s Streams) ([]*provisionrv1.Object, error) {
	if len(f.files) == 0 {
		return nil, errs.New(errs.Invalid, "cannot read a manifest: none is given").WithHint("name a file with -f, as -f examples/web.yaml")
	}
	var sources []spec.Source
	for _, file := range f.files {
		more, err := readSources(s, file)
		if err != nil {
			return nil, err
		}
		sources = append(sources, more...)
	}
	objects, err := spec.ParseAll(sources, spec.Options{})
	if err != nil {
		return nil, err
	}
	return objects, f.addKeys(objects)
}

func readSources(s Streams, file string) ([]spec.Source, error) {
	if file == "-" {
		data, err := io.ReadAll(io.LimitReader(s.In, maxManifest))
		if err != nil {
			return nil, errs.New(errs.Invalid, "cannot read the manifest from the input: %w", err)
		}
		return []spec.Source{{Name: "input", Data: data}}, nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, errs.New(errs.NotFound, "cannot read the manifest: %w", err)
	}
	if !info.IsDir() {
		source, err := readSource(file)
		return []spec.Source{source}, err
	}
	entries, err := os.ReadDir(file)
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot read the manifests: %w", err)
	}
	var sources []spec.Source
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); e.Type() == fs.ModeDir || ext != ".yaml" && ext != ".yml" {
			continue
		}
		source, err := readSource(filepath.Join(file, e.Name()))
		if err != nil {
			return nil, err
		}
		sources = append(sources, source)
	}
	if len(sources) == 0 {
		return nil, errs.New(errs.NotFound, "cannot read the manifests: no *.yaml in %s", file)
	}
	return sources, nil
}

func readSource(file string) (spec.Source, error) {
	f, err := os.Open(file)
	if err != nil {
		return spec.Source{}, errs.New(errs.NotFound, "cannot read the manifest: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return spec.Source{}, errs.New(errs.Invalid, "cannot read the manifest: %w", err)
	}
	return spec.Source{Name: file, Data: data}, nil
}

// addKeys gives the keys of the flag to the admins without keys.
func (f *manifestFlags) addKeys(objects []*provisionrv1.Object) error {
	var keys []string
	for _, file := range f.sshKeys {
		data, err := os.ReadFile(file)
		if err != nil {
			return errs.New(errs.NotFound, "cannot read the ssh key: %w", err)
		}
		line := strings.TrimSpace(string(data))
		if _, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(line)); err != nil || len(rest) > 0 {
			return errs.New(errs.Invalid, "cannot use %s as an ssh key: it is not one public key", file).WithHint("name the .pub file")
		}
		keys = append(keys, line)
	}
	if len(keys) == 0 {
		return nil
	}
	used := false
	for _, o := range objects {
		for _, u := range o.GetPool().GetSpec().GetUsers() {
			if u.Admin && !u.Absent && len(u.SshKeys) == 0 {
				u.SshKeys, used = slices.Clone(keys), true
			}
		}
	}
	if !used {
		return errs.New(errs.Invalid, "cannot use --ssh-key: no account with admin: true and without sshKeys is in the manifest")
	}
	return nil
}
