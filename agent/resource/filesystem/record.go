package filesystem

import (
	"encoding/json"
	"errors"
	"io/fs"
	"sync"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

// recordPath holds, by path, the file systems that we made or began to make.
const recordPath = conffile.StateDir + "/filesystems.json"

// record is what is remembered of a file system.
type record struct {
	// Disk identifies the disk: the kernel's name, serial and size.
	Disk string `json:"disk"`
	UUID string `json:"uuid"`
	// Made is false from before the first write to the disk until the file system is there.
	Made bool `json:"made"`
}

// records is the file of all records. It is shared by all file systems.
type records struct {
	host *host.Host
	mu   sync.Mutex
}

func (r *records) load() (map[string]record, error) {
	b, err := conffile.Read(r.host, recordPath, 1<<20)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all := make(map[string]record)
	if len(b) > 0 {
		// A record that cannot be read would make a disk that we began to write to look like somebody else's, which is safe.
		_ = json.Unmarshal(b, &all)
	}
	return all, nil
}

func (r *records) get(path string) (record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, err := r.load()
	return all[path], err
}

func (r *records) put(path string, rec record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, err := r.load()
	if err != nil {
		return err
	}
	all[path] = rec
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return conffile.Apply(r.host, &conffile.File{Path: recordPath, Content: append(b, '\n'), Mode: 0o600})
}
