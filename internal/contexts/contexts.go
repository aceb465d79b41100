package contexts

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/provisionr/provisionr/internal/errs"
)

// maxFile bounds the file in bytes.
const maxFile = 4 << 20

// Context is one cluster as one user sees it.
type Context struct {
	Name string `yaml:"name"`
	// Servers are HOST:PORT of the members' API. They are tried in order.
	Servers []string `yaml:"servers"`
	// Cluster is the id that the servers must prove. Default: any cluster of the CA.
	Cluster string `yaml:"cluster,omitempty"`
	// CA is the certificates that the servers' are signed by, in PEM; CAFile is a file of them. One is required.
	CA     string `yaml:"ca,omitempty"`
	CAFile string `yaml:"caFile,omitempty"`
	// Certificate and Key are files in PEM. Default: none; Token must be given then.
	Certificate string `yaml:"certificate,omitempty"`
	Key         string `yaml:"key,omitempty"`
	// Token of `provisionr token create`, or a file that holds it.
	Token     string `yaml:"token,omitempty"`
	TokenFile string `yaml:"tokenFile,omitempty"`
	// SSHKey is the private key for `provisionr ssh`. Default: ssh's own choice.
	SSHKey string `yaml:"sshKey,omitempty"`

	dir string
}

// Path makes a path of the context absolute; "" stays "".
func (c *Context) Path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.dir, p)
}

// File is the whole file.
type File struct {
	Current  string     `yaml:"currentContext,omitempty"`
	Contexts []*Context `yaml:"contexts,omitempty"`
}

// DefaultPath returns where the file is.
func DefaultPath() (string, error) {
	if p := os.Getenv("PROVISIONR_CONFIG"); p != "" {
		return filepath.Abs(p)
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", errs.New(errs.Invalid, "cannot find the context file: %w", err).WithHint("set PROVISIONR_CONFIG")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "provisionr", "config.yaml"), nil
}

// Load reads the file. One that does not exist is empty.
func Load(path string) (*File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &File{}, nil
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot read the context file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot read the context file: %w", err)
	}
	var file File
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, errs.New(errs.Invalid, "cannot read the context file %s: %w", path, err).WithHint("correct it, or move it away")
	}
	file.Contexts = slices.DeleteFunc(file.Contexts, func(c *Context) bool { return c == nil })
	for _, c := range file.Contexts {
		c.dir = filepath.Dir(path)
	}
	return &file, nil
}

// Save writes the file, with the folders above it.
func (f *File) Save(path string) error {
	data, err := yaml.Marshal(f)
	if err != nil {
		return errs.New(errs.Internal, "cannot encode the context file: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return errs.New(errs.Invalid, "cannot write the context file: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".config-*")
	if err != nil {
		return errs.New(errs.Invalid, "cannot write the context file: %w", err)
	}
	// CreateTemp makes the file with mode 0600.
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errs.New(errs.Invalid, "cannot write the context file: %w", errors.Join(err, os.Remove(temp.Name())))
	}
	return nil
}

// Find returns the context of the name, or nil.
func (f *File) Find(name string) *Context {
	for _, c := range f.Contexts {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Select returns the context of the name, or for "" the current one, or the only one.
func (f *File) Select(name string) (*Context, error) {
	if name == "" {
		name = f.Current
	}
	if name == "" && len(f.Contexts) == 1 {
		return f.Contexts[0], nil
	}
	if c := f.Find(name); c != nil {
		return c, nil
	}
	if name != "" {
		return nil, errs.New(errs.NotFound, "there is no context %q", name).WithHint("`provisionr context list` shows all")
	}
	return nil, errs.New(errs.NotFound, "no cluster is chosen").
		WithHint("start one with `provisionr dev`, choose one with `provisionr context use`, or give --server")
}

// Set puts a context into the file at path, in place of one of the same name, and makes it current if asked.
func Set(path string, c Context, current bool) error {
	f, err := Load(path)
	if err != nil {
		return err
	}
	f.Contexts = append(slices.DeleteFunc(f.Contexts, func(old *Context) bool { return old.Name == c.Name }), &c)
	if current || f.Current == "" {
		f.Current = c.Name
	}
	return f.Save(path)
}

// Remove takes a context out of the file at path. One that is not there is no error.
func Remove(path, name string) error {
	f, err := Load(path)
	if err != nil || f.Find(name) == nil {
		return err
	}
	f.Contexts = slices.DeleteFunc(f.Contexts, func(c *Context) bool { return c.Name == name })
	if f.Current == name {
		f.Current = ""
	}
	return f.Save(path)
}
