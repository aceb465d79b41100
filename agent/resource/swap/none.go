package swap

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/fstab"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
)

// none keeps the machine from swapping at all.
type none struct{ host *host.Host }

// Name implements converge.Resource.
func (n *none) Name() string { return "swap/none" }

// After implements converge.Ordered.
func (n *none) After() []string { return []string{"package"} }

// Triggers implements converge.Triggered.
func (n *none) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: fstabPath}, {Kind: converge.OnUnit, Name: "swap.target"}}
}

// files are those of others that would begin to swap at the next boot: fstab.
func (n *none) files() ([]conffile.File, error) {
	var files []conffile.File
	now, err := conffile.Read(n.host, fstabPath, maxTable)
	switch {
	case err == nil:
		if without := withoutSwap(now); !bytes.Equal(without, now) {
			f, err := conffile.Edited(n.host, fstabPath, without)
			if err != nil {
				return nil, err
			}
			files = append(files, f)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return files, nil
}

// withoutSwap comments out the lines of swap.
func withoutSwap(table []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(table) {
		if e, ok := fstab.ParseLine(string(line)); ok && e.Type == "swap" {
			b.WriteString(mark)
		}
		b.Write(line)
	}
	return b.Bytes()
}

// Check implements converge.Resource.
func (n *none) Check(context.Context) (converge.Diff, error) {
	files, err := n.files()
	if err != nil {
		return converge.Diff{}, err
	}
	var diffs []string
	for i := range files {
		d, err := conffile.Check(n.host, &files[i], &conffile.Seen{})
		if err != nil {
			return converge.Diff{}, err
		}
		diffs = append(diffs, d)
	}
	ours, err := n.own().text()
	if err != nil {
		return converge.Diff{}, err
	}
	diffs = append(diffs, ours)
	used, err := active(n.host)
	if len(used) > 0 {
		diffs = append(diffs, "swaps to "+strings.Join(slices.Sorted(maps.Keys(used)), ", ")+", wanted none")
	}
	return converge.Diff{Text: textdiff.Join(diffs...)}, err
}

// Apply implements converge.Resource.
func (n *none) Apply(ctx context.Context) error {
	files, err := n.files()
	if err != nil {
		return err
	}
	used, err := active(n.host)
	if err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(used)) {
		err = errors.Join(err, off(ctx, n.host, path))
	}
	for i := range files {
		err = errors.Join(err, conffile.Apply(n.host, &files[i]))
	}
	if err == nil && len(files) > 0 {
		err = n.host.Units.DaemonReload(ctx)
	}
	return errors.Join(err, n.own().Apply(ctx))
}

// own is what removes our own swap files. What none itself took from fstab stays away.
func (n *none) own() *left { return &left{host: n.host, keepTable: true} }
