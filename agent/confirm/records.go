package confirm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"syscall"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
)

// Where records are kept, below the host's root.
const (
	Dir           = "/var/lib/provisionr-agent"
	undoPath      = Dir + "/undo.json"
	confirmedPath = Dir + "/confirmed.json"
	lockPath      = Dir + "/undo.lock"
)

// Pending is a change that is not confirmed yet.
type Pending struct {
	Resource    string        `json:"resource"`
	Fingerprint string        `json:"fingerprint"`
	Began       time.Time     `json:"began"`
	Undo        converge.Undo `json:"undo"`
	// Undos is how often the undo failed.
	Undos int `json:"undos,omitempty"`
}

// verdicts are what is known of fingerprints, by resource.
type verdicts struct {
	Confirmed map[string]string   `json:"confirmed,omitempty"`
	Rejected  map[string]Rejected `json:"rejected,omitempty"`
}

// Rejected is a fingerprint that was undone.
type Rejected struct {
	Fingerprint string `json:"fingerprint"`
	Why         string `json:"why"`
	// Until is when it may be tried again.
	Until time.Time `json:"until"`
}

// records are the files of a host. The caller holds the lock while it changes them.
type records struct{ host *host.Host }

// lock keeps the agent and the watchdog's process apart.
func (r records) lock() (release func(), err error) { return r.host.Lock(lockPath) }

// pending returns the change that waits, or nil.
func (r records) pending() (*Pending, error) {
	p := &Pending{}
	found, err := r.read(undoPath, p)
	if !found || err != nil {
		return nil, err
	}
	return p, nil
}

func (r records) verdicts() (verdicts, error) {
	var v verdicts
	_, err := r.read(confirmedPath, &v)
	if v.Confirmed == nil {
		v.Confirmed = make(map[string]string)
	}
	if v.Rejected == nil {
		v.Rejected = make(map[string]Rejected)
	}
	return v, err
}

func (r records) read(name string, into any) (found bool, err error) {
	data, err := r.host.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return true, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return true, nil
}

func (r records) write(name string, what any) error {
	data, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("cannot encode %s: %w", name, err)
	}
	return r.host.WriteFile(name, data, host.Attributes{Mode: 0o600})
}

// judge notes a verdict about the pending change and ends it: what it was confirmed for is written first.
func (r records) judge(p *Pending, rejected *Rejected) error {
	v, err := r.verdicts()
	if err != nil {
		// A file that cannot be read must not keep a machine from coming back: all is confirmed anew.
		v = verdicts{Confirmed: make(map[string]string), Rejected: make(map[string]Rejected)}
	}
	if rejected == nil {
		v.Confirmed[p.Resource] = p.Fingerprint
		delete(v.Rejected, p.Resource)
	} else {
		v.Rejected[p.Resource] = *rejected
	}
	if err := r.write(confirmedPath, v); err != nil {
		return err
	}
	return r.host.Remove(undoPath)
}

// restore puts a file back as it was. Modes are those of chmod(2).
func restore(h *host.Host, f converge.SavedFile) error {
	root, err := h.Open()
	if err != nil {
		return err
	}
	defer root.Close()
	name := path.Clean("/" + f.Path)[1:]
	switch {
	case f.Absent:
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	case f.Link != "":
		temp := name + ".undo"
		if err := root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := root.Symlink(f.Link, temp); err != nil {
			return err
		}
		return root.Rename(temp, name)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(f.Mode) & fs.ModePerm
	for bit, special := range map[uint32]fs.FileMode{syscall.S_ISUID: fs.ModeSetuid, syscall.S_ISGID: fs.ModeSetgid, syscall.S_ISVTX: fs.ModeSticky} {
		if f.Mode&bit != 0 {
			mode |= special
		}
	}
	if mode == 0 {
		mode = 0o600
	}
	return host.WriteFile(root, name, f.Content, host.Attributes{Mode: mode, Owner: &host.Owner{UID: f.UID, GID: f.GID}})
}
