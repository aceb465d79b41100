package service

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

const (
	// startsPath holds, by unit and file, the SHA-256 of the files that a unit was last started with.
	startsPath = conffile.StateDir + "/restarts.json"
	maxStarts  = 4 << 20
	// maxFile bounds the part of a file that is hashed: admission bounds files of a pool far below it.
	maxFile = 16 << 20
	// absent stands for the hash of a file that is not there.
	absent = "absent"
)

// starts remembers with which contents of their files units were started. It is shared by all services.
type starts struct {
	host *host.Host

	mu    sync.Mutex
	units map[string]map[string]string
}

func newStarts(h *host.Host) *starts { return &starts{host: h} }

// load reads what was recorded. A file that cannot be understood counts as empty: the units restart once.
func (s *starts) load() error {
	if s.units != nil {
		return nil
	}
	content, err := conffile.Read(s.host, startsPath, maxStarts)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read what units were started with: %w", err)
	}
	var units map[string]map[string]string
	if json.Unmarshal(content, &units) != nil || units == nil {
		units = make(map[string]map[string]string)
	}
	s.units = units
	return nil
}

// changed returns the files whose content is not what the unit was started with.
func (s *starts) changed(unit string, files []string) ([]string, error) {
	now, err := s.hash(files)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return nil, err
	}
	var changed []string
	// A unit file of ours that is no longer wanted changes the unit; any other that is no longer named does not.
	for _, f := range []string{contentPath(unit), overridePath(unit)} {
		if _, had := s.units[unit][f]; had && !slices.Contains(files, f) {
			changed = append(changed, f)
		}
	}
	for _, f := range files {
		if s.units[unit][f] != now[f] {
			changed = append(changed, f)
		}
	}
	return changed, nil
}

// hash returns the hash of each file's content.
func (s *starts) hash(files []string) (map[string]string, error) {
	now := make(map[string]string, len(files))
	for _, f := range files {
		content, err := conffile.Read(s.host, f, maxFile)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			now[f] = absent
		case err != nil:
			return nil, err
		default:
			sum := sha256.Sum256(content)
			now[f] = hex.EncodeToString(sum[:])
		}
	}
	return now, nil
}

// record remembers that the unit was started with these contents.
func (s *starts) record(unit string, files map[string]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return err
	}
	if len(files) == 0 && len(s.units[unit]) == 0 {
		return nil
	}
	s.units[unit] = files
	content, err := json.Marshal(s.units)
	if err != nil {
		return err
	}
	if err := conffile.Apply(s.host, &conffile.File{Path: startsPath, Content: append(content, '\n'), Mode: 0o600}); err != nil {
		return fmt.Errorf("cannot record what %s was started with: %w", unit, err)
	}
	return nil
}
