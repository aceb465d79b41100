// Package strays removes files of ours that no part of a desired state asks for any more. Ours are those of a place with a
// name that only we give.
package strays

import (
	"context"
	"errors"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
)

// Place is a directory, and the pattern (path.Match) that names of our files in it have.
type Place struct{ Dir, Pattern string }

// Files is a resource that removes files of some places which are not listed.
type Files struct {
	host   *host.Host
	name   string
	what   string
	listed map[string]bool
	places []Place
}

// New returns the resource of a name. What says for people what the files are; listed has the names that stay, and may
// still be filled.
func New(h *host.Host, name, what string, listed map[string]bool, places ...Place) *Files {
	return &Files{h, name, what, listed, places}
}

// Name implements converge.Resource.
func (f *Files) Name() string { return f.name }

// Triggers implements converge.Triggered: what appears in a place may give somebody a right.
func (f *Files) Triggers() []converge.Trigger {
	var list []converge.Trigger
	for _, p := range f.places {
		list = append(list, converge.Trigger{Kind: converge.OnFile, Name: p.Dir})
	}
	return list
}

func (f *Files) find() ([]string, error) {
	var stray []string
	for _, p := range f.places {
		names, err := conffile.List(f.host, p.Dir, p.Pattern)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if !f.listed[n] {
				stray = append(stray, p.Dir+"/"+n)
			}
		}
	}
	return stray, nil
}

// Check implements converge.Resource.
func (f *Files) Check(context.Context) (converge.Diff, error) {
	stray, err := f.find()
	if err != nil || len(stray) == 0 {
		return converge.Diff{}, err
	}
	return converge.Diff{Text: textdiff.Bound(f.what + " that are not listed: " + strings.Join(stray, ", "))}, nil
}

// Apply implements converge.Resource.
func (f *Files) Apply(context.Context) error {
	stray, err := f.find()
	for _, path := range stray {
		err = errors.Join(err, conffile.Apply(f.host, &conffile.File{Path: path, Absent: true}))
	}
	return err
}
