// Package cache keeps the machine's last desired state on its disk, so that the agent converges without any server.
//
// Components are files named by the SHA-256 of their content; the desired state is one more file that names them and ends
// with its own checksum. What does not match its hash is as if it were absent. Every file is written whole or not at all,
// and a desired state is written only after all its components, so a crash leaves the old state or the new one.
package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	componentsDir = "components"
	desiredFile   = "desired"
	// maxFile bounds what is read from one file.
	maxFile = desired.MaxComponent + sha256.Size
)

// Cache is the desired state on disk. Safe for several goroutines.
type Cache struct {
	root *os.Root

	mu      sync.Mutex
	have    map[string]bool // hashes whose file was there and right when last seen
	desired *agentv1.Desired
}

// Open opens the cache in a directory, which is made if it is missing. Damaged files are dropped. Close it when done.
func Open(dir string) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errs.New(errs.Internal, "cannot make cache directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot open cache: %w", err)
	}
	c := &Cache{root: root, have: make(map[string]bool)}
	if err := c.load(); err != nil {
		return nil, errors.Join(errs.New(errs.Internal, "cannot load cache: %w", err), root.Close())
	}
	return c, nil
}

// Close releases the directory.
func (c *Cache) Close() error { return c.root.Close() }

// Read returns the desired state in a cache directory that another process may be using; it changes nothing.
// The result is nil where there is none that is whole.
func Read(dir string) (*desired.State, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, errs.New(errs.NotFound, "cannot open cache: %w", err)
	}
	defer root.Close()
	c := &Cache{root: root, have: make(map[string]bool)}
	data, err := c.read(desiredFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot read cache: %w", err)
	}
	if c.desired = decode(data); c.desired == nil {
		return nil, nil
	}
	for _, ref := range c.desired.Components {
		c.have[string(ref.Hash)] = true // as claimed: body compares
	}
	return c.Load(), nil
}

func (c *Cache) load() error {
	if err := c.root.Mkdir(componentsDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries, err := fs.ReadDir(c.root.FS(), componentsDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := componentsDir + "/" + e.Name()
		hash, err := hex.DecodeString(e.Name())
		if err == nil && len(hash) == sha256.Size {
			if body, err := c.read(name); err == nil && matches(body, hash) {
				c.have[string(hash)] = true
				continue
			}
		}
		if err := c.root.RemoveAll(name); err != nil {
			return err
		}
	}
	data, err := c.read(desiredFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if d := decode(data); d != nil && len(c.missing(d)) == 0 {
		c.desired = d
	}
	return nil
}

// decode returns nil where the file is torn or not ours.
func decode(data []byte) *agentv1.Desired {
	if len(data) < sha256.Size {
		return nil
	}
	body, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	d := &agentv1.Desired{}
	if !matches(body, sum) || proto.Unmarshal(body, d) != nil || desired.Check(d) != nil {
		return nil
	}
	return d
}

func matches(body, hash []byte) bool {
	sum := sha256.Sum256(body)
	return bytes.Equal(sum[:], hash)
}

// Have returns the hashes of all components in the cache, in no particular order.
func (c *Cache) Have() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	hashes := make([][]byte, 0, len(c.have))
	for h := range c.have {
		hashes = append(hashes, []byte(h))
	}
	return hashes
}

// Missing returns the hashes of the components of d that are not in the cache, each once, in the order of d.
func (c *Cache) Missing(d *agentv1.Desired) [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.missing(d)
}

func (c *Cache) missing(d *agentv1.Desired) [][]byte {
	var missing [][]byte
	seen := make(map[string]bool)
	for _, ref := range d.Components {
		if h := string(ref.Hash); !c.have[h] && !seen[h] {
			seen[h] = true
			missing = append(missing, ref.Hash)
		}
	}
	return missing
}

// Put stores a component. A body that does not have the hash, or is too large, is refused with errs.Invalid.
func (c *Cache) Put(hash, body []byte) error {
	if len(body) > desired.MaxComponent {
		return errs.New(errs.Invalid, "cannot store component: %d bytes, more than %d", len(body), desired.MaxComponent)
	}
	if !matches(body, hash) {
		return errs.New(errs.Invalid, "cannot store component: its content does not have the hash %x", hash)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.have[string(hash)] {
		return nil
	}
	if err := host.WriteFile(c.root, componentsDir+"/"+hex.EncodeToString(hash), body, host.Attributes{Mode: 0o600}); err != nil {
		return errs.New(errs.Internal, "cannot store component: %w", err)
	}
	c.have[string(hash)] = true
	return nil
}

// Commit makes d the desired state that Load returns, and drops all components that it does not name.
// All its components must be there, and must decode: a state that this agent cannot use never replaces one that it can.
func (c *Cache) Commit(d *agentv1.Desired) (*desired.State, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	state, err := desired.Decode(d, c.body)
	if err != nil {
		return nil, err
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(d)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot encode desired state: %w", err)
	}
	sum := sha256.Sum256(body)
	if err := host.WriteFile(c.root, desiredFile, append(body, sum[:]...), host.Attributes{Mode: 0o600}); err != nil {
		return nil, errs.New(errs.Internal, "cannot store desired state: %w", err)
	}
	c.desired = d
	keep := make(map[string]bool, len(d.Components))
	for _, ref := range d.Components {
		keep[string(ref.Hash)] = true
	}
	for h := range c.have {
		if keep[h] {
			continue
		}
		if err := c.root.Remove(componentsDir + "/" + hex.EncodeToString([]byte(h))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errs.New(errs.Internal, "cannot drop component: %w", err)
		}
		delete(c.have, h)
	}
	return state, nil
}

// Load returns the desired state that was committed last, or nil if there is none that is whole.
func (c *Cache) Load() *desired.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.desired == nil {
		return nil
	}
	state, err := desired.Decode(c.desired, c.body)
	if err != nil {
		// Written by an agent of another version, or damaged since it was opened: the server sends it again.
		c.desired = nil
		return nil
	}
	return state
}

// body reads a component, and forgets it where its file no longer has the hash.
func (c *Cache) body(hash []byte) ([]byte, bool) {
	if !c.have[string(hash)] {
		return nil, false
	}
	body, err := c.read(componentsDir + "/" + hex.EncodeToString(hash))
	if err != nil || !matches(body, hash) {
		delete(c.have, string(hash))
		return nil, false
	}
	return body, true
}

func (c *Cache) read(name string) ([]byte, error) {
	f, err := c.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("cannot read %s: larger than %d bytes", name, maxFile)
	}
	return data, err
}
