package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// The module that ships the models, and the version that the sums below belong to.
const (
	modulePath    = "github.com/aws/aws-sdk-go"
	moduleVersion = "v1.55.8"
)

// Models of the services that the test server offers.
type Models struct {
	EC2, SSM, STS *Service
}

// Service is the model of one service.
type Service struct {
	Metadata struct {
		APIVersion   string `json:"apiVersion"`
		Protocol     string `json:"protocol"`
		XMLNamespace string `json:"xmlNamespace"`
		TargetPrefix string `json:"targetPrefix"`
		JSONVersion  string `json:"jsonVersion"`
	} `json:"metadata"`
	Operations map[string]*Operation `json:"operations"`
	Shapes     map[string]*Shape     `json:"shapes"`
}

// Operation of a service. Input and Output are nil where it has none.
type Operation struct {
	Input  *Ref `json:"input"`
	Output *Ref `json:"output"`
}

// Ref is a use of a shape.
type Ref struct {
	Shape         string `json:"shape"`
	LocationName  string `json:"locationName"`
	QueryName     string `json:"queryName"`
	ResultWrapper string `json:"resultWrapper"`
	Flattened     bool   `json:"flattened"`
}

// Shape is a type.
type Shape struct {
	Type      string          `json:"type"`
	Members   map[string]*Ref `json:"members"`
	Required  []string        `json:"required"`
	Member    *Ref            `json:"member"`
	Key       *Ref            `json:"key"`
	Value     *Ref            `json:"value"`
	Enum      []string        `json:"enum"`
	Min       *float64        `json:"min"`
	Max       *float64        `json:"max"`
	Pattern   string          `json:"pattern"`
	Flattened bool            `json:"flattened"`
}

// files of the module, each with its SHA-256: the models that the tests are known to pass.
var files = [...]struct{ path, sum string }{
	{"models/apis/ec2/2016-11-15/api-2.json", "fcb1f65d5e7e1bb95208d759badbe87a8892c96576e9d55d59150b81ae877c9c"},
	{"models/apis/ssm/2014-11-06/api-2.json", "603c456cefb1bcdeb1c1d6de85ec5e46ee5d65f8e9f7e51ebdb1870a5067dcce"},
	{"models/apis/sts/2011-06-15/api-2.json", "5b71e1c95cbb00429e1bc3abcf849d11457110f3dcf0f3df64132c5d0a62bac8"},
}

// loaded keeps the models, which are constant, for all servers of a test binary: reading them takes some 50 ms.
var loaded = sync.OnceValues(load)

// Load returns the models from the Go module cache. They are shared and must not be changed.
func Load() (*Models, error) { return loaded() }

func load() (*Models, error) {
	dir, err := moduleDir()
	if err != nil {
		return nil, err
	}
	m := &Models{EC2: new(Service), SSM: new(Service), STS: new(Service)}
	for i, into := range []*Service{m.EC2, m.SSM, m.STS} {
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(files[i].path)))
		if err != nil {
			return nil, fmt.Errorf("cannot read the API model: %w", err)
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != files[i].sum {
			return nil, fmt.Errorf("API model %s has changed", files[i].path)
		}
		if err := json.Unmarshal(data, into); err != nil {
			return nil, fmt.Errorf("cannot parse the API model %s: %w", files[i].path, err)
		}
	}
	return m, nil
}

// moduleDir finds the module in the module cache; only where it is not there yet it is downloaded.
func moduleDir() (string, error) {
	for _, cache := range cacheDirs() {
		dir := filepath.Join(cache, filepath.FromSlash(modulePath)+"@"+moduleVersion)
		if _, err := os.Stat(dir); err == nil {
			return dir, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "mod", "download", "-json", modulePath+"@"+moduleVersion).Output()
	if err != nil {
		return "", fmt.Errorf("cannot download %s: %w", modulePath, err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", fmt.Errorf("cannot parse what go mod download says: %w", err)
	}
	return module.Dir, nil
}

func cacheDirs() []string {
	var dirs []string
	if dir := os.Getenv("GOMODCACHE"); dir != "" {
		dirs = append(dirs, dir)
	}
	for _, path := range filepath.SplitList(os.Getenv("GOPATH")) {
		dirs = append(dirs, filepath.Join(path, "pkg", "mod"))
	}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, filepath.Join(home, "go", "pkg", "mod"))
	}
	return dirs
}
