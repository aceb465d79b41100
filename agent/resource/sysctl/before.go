package sysctl

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

// beforePath holds the values that parameters had before ours, by their files.
const beforePath = conffile.StateDir + "/sysctl.json"

// before is a parameter that we set.
type before struct {
	Was string `json:"was"`
	Set string `json:"set"`
}

// readBefore returns what was noted. What cannot be read counts as nothing: such values stay until the next boot.
func readBefore(h *host.Host) (map[string]before, error) {
	b, err := conffile.Read(h, beforePath, maxMatches*maxValue)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var noted map[string]before
	if json.Unmarshal(b, &noted) != nil || noted == nil {
		noted = make(map[string]before)
	}
	return noted, nil
}

func writeBefore(h *host.Host, noted map[string]before) error {
	if len(noted) == 0 {
		return conffile.Apply(h, &conffile.File{Path: beforePath, Absent: true})
	}
	b, err := json.Marshal(noted)
	if err != nil {
		return err
	}
	return conffile.Apply(h, &conffile.File{Path: beforePath, Content: append(b, '\n'), Mode: 0o600})
}

// restore gives parameters that are no longer listed their values back, where nobody changed them since: after a boot they
// have the system's anyway.
func (r *parameters) restore(noted map[string]before, listed map[string]bool) error {
	root, err := r.host.Open()
	if err != nil {
		return err
	}
	defer root.Close()
	var failed error
	for _, file := range slices.Sorted(maps.Keys(noted)) {
		if listed[file] {
			continue
		}
		now, err := root.ReadFile(procPath + "/" + file)
		if err == nil && equal(strings.TrimSpace(string(now)), noted[file].Set) {
			err = setIn(root, file, noted[file].Was)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
			continue
		}
		delete(noted, file)
	}
	return failed
}

func setIn(root *os.Root, file, value string) error {
	sys, err := root.OpenRoot(procPath)
	if err != nil {
		return err
	}
	defer sys.Close()
	return set(sys, parameter{name: file, value: value}, file)
}
