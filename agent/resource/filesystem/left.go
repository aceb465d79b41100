package filesystem

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/systemdunit"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
)

// unitHead begins our mount units.
const unitHead = systemdunit.Header + "[Unit]\nDescription=File system of provisionr\n"

// left unmounts file systems that are no longer listed. What is on their disks stays, and is mounted again when they are
// listed again.
type left struct {
	host *host.Host
	// wanted are the units of those that are listed.
	wanted map[string]bool
}

// Name implements converge.Resource. It is a kind of its own: what needs a file system does not wait for others to be unmounted.
func (l *left) Name() string { return "mount/left" }

// After implements converge.Ordered: services that leave with it let go of it first.
func (l *left) After() []string { return []string{"service"} }

// find returns the units, those further down first.
func (l *left) find() ([]string, error) {
	units, err := systemdunit.Left(l.host, unitHead, l.wanted, "mount")
	slices.SortFunc(units, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	return units, err
}

// Check implements converge.Resource.
func (l *left) Check(context.Context) (converge.Diff, error) {
	units, err := l.find()
	if err != nil || len(units) == 0 {
		return converge.Diff{}, err
	}
	return converge.Diff{Text: textdiff.Bound("file systems that are not listed: " + strings.Join(units, ", "))}, nil
}

// Apply implements converge.Resource.
func (l *left) Apply(ctx context.Context) error {
	units, err := l.find()
	for _, unit := range units {
		if e := systemdunit.Remove(ctx, l.host, unit); e != nil {
			err = errors.Join(err, errs.New(errs.Unavailable, "cannot unmount %s: %w", unit, e).
				WithHint("see by fuser -vm on the machine who uses it; what is on the disk stays"))
		}
	}
	return err
}
