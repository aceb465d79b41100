package service

import (
	"context"
	"errors"
	"path"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/systemdunit"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
)

const (
	// ownPrefix begins the names of units that other parts of the agent bring. No service of a manifest has such a name.
	ownPrefix = "provisionr-"
	// othersHead begins units of ours that are no services of a manifest: mounts and swap files.
	othersHead = header + "[Unit]\nDescription="
	othersTail = " of provisionr\n"
)

// endings are those that a service of a manifest may have.
var endings = []string{"service", "socket", "timer", "target", "path", "mount", "automount", "swap", "slice"}

// left removes what we wrote of services that are no longer listed. A unit that was all ours is stopped first; one of a
// package runs on, without the drop-in from its next start.
type left struct {
	host   *host.Host
	listed map[string]bool
}

// Name implements converge.Resource.
func (l *left) Name() string { return "service/left" }

// find returns units whose files are ours, and drop-ins.
func (l *left) find() (units, dropIns []string, err error) {
	names, err := systemdunit.Left(l.host, header, l.listed, endings...)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		other, err := l.others(name)
		if err != nil {
			return nil, nil, err
		}
		if !other {
			units = append(units, name)
		}
	}
	dirs, err := conffile.Dirs(l.host, unitDir, "*.d")
	for _, dir := range dirs {
		unit := strings.TrimSuffix(dir, ".d")
		if !l.listed[unit] && conffile.Exists(l.host, overridePath(unit)) {
			dropIns = append(dropIns, overridePath(unit))
		}
	}
	return units, dropIns, err
}

// others reports whether a unit belongs to another part of the agent.
func (l *left) others(name string) (bool, error) {
	switch path.Ext(name) {
	case ".mount":
		return systemdunit.Begins(l.host, unitDir+name, othersHead+"File system"+othersTail)
	case ".swap":
		return systemdunit.Begins(l.host, unitDir+name, othersHead+"Swap file"+othersTail)
	}
	return strings.HasPrefix(name, ownPrefix), nil
}

// Check implements converge.Resource.
func (l *left) Check(context.Context) (converge.Diff, error) {
	units, dropIns, err := l.find()
	if err != nil || len(units)+len(dropIns) == 0 {
		return converge.Diff{}, err
	}
	return converge.Diff{Text: textdiff.Bound("units and drop-ins of services that are not listed: " + strings.Join(append(units, dropIns...), ", "))}, nil
}

// Apply implements converge.Resource.
func (l *left) Apply(ctx context.Context) error {
	units, dropIns, err := l.find()
	for _, path := range dropIns {
		err = errors.Join(err, conffile.Apply(l.host, &conffile.File{Path: path, Absent: true}))
	}
	for _, unit := range units {
		err = errors.Join(err, systemdunit.Remove(ctx, l.host, unit))
	}
	if len(dropIns) > 0 {
		err = errors.Join(err, l.host.Units.DaemonReload(ctx))
	}
	return err
}
