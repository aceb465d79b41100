package swap

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/systemdunit"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
)

// unitHead begins our swap units.
const unitHead = systemdunit.Header + "[Unit]\nDescription=Swap file of provisionr\n"

// left takes back what a machine swaps to of us and no longer shall: the files, and what was taken out of fstab.
type left struct {
	host *host.Host
	// wanted are units that stay.
	wanted map[string]bool
	// keepTable leaves fstab as it is.
	keepTable bool
}

// Name implements converge.Resource.
func (l *left) Name() string { return "swap/left" }

// Check implements converge.Resource.
func (l *left) Check(context.Context) (converge.Diff, error) {
	text, err := l.text()
	return converge.Diff{Text: text}, err
}

func (l *left) text() (string, error) {
	units, err := l.units()
	if err != nil {
		return "", err
	}
	var diffs []string
	if len(units) > 0 {
		diffs = append(diffs, "swap files that are not wanted: "+strings.Join(units, ", "))
	}
	table, err := l.table()
	if table != nil {
		diffs = append(diffs, fstabPath+": lines of swap are commented out, wanted as they were")
	}
	return textdiff.Join(diffs...), err
}

func (l *left) units() ([]string, error) {
	return systemdunit.Left(l.host, unitHead, l.wanted, "swap")
}

// table returns fstab as it was before lines were taken out; nil where none was.
func (l *left) table() ([]byte, error) {
	if l.keepTable {
		return nil, nil
	}
	now, err := conffile.Read(l.host, fstabPath, maxTable)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || !bytes.Contains(now, []byte(mark)) {
		return nil, err
	}
	var b bytes.Buffer
	for line := range bytes.Lines(now) {
		b.Write(bytes.TrimPrefix(line, []byte(mark)))
	}
	if bytes.Equal(b.Bytes(), now) {
		return nil, nil
	}
	return b.Bytes(), nil
}

// Apply implements converge.Resource.
func (l *left) Apply(ctx context.Context) error {
	units, err := l.units()
	if err != nil {
		return err
	}
	for _, unit := range units {
		err = errors.Join(err, l.remove(ctx, unit))
	}
	table, e := l.table()
	if table == nil {
		return errors.Join(err, e)
	}
	f, e := conffile.Edited(l.host, fstabPath, table)
	if e == nil {
		e = conffile.Apply(l.host, &f)
	}
	if e == nil {
		e = l.host.Units.DaemonReload(ctx)
	}
	if e == nil {
		_, e = command.Run(ctx, l.host, host.Command{Path: "swapon", Args: []string{"--all", "--ifexists"}, Timeout: time.Minute})
	}
	return errors.Join(err, e)
}

// remove ends swapping to a file of ours, and removes the file once its unit is gone.
func (l *left) remove(ctx context.Context, unit string) error {
	b, err := conffile.Read(l.host, unitDir+unit, maxTable)
	if err != nil {
		return err
	}
	used, err := active(l.host)
	if err != nil {
		return err
	}
	path := what(string(b))
	if path == "" {
		return systemdunit.Remove(ctx, l.host, unit)
	}
	if _, ok := used[path]; ok {
		if err := off(ctx, l.host, path); err != nil {
			return err
		}
	}
	// The file goes first: it is the unit that tells whose it is.
	if found, err := look(l.host, path); err != nil {
		return err
	} else if found.swap {
		if err := conffile.Apply(l.host, &conffile.File{Path: path, Absent: true}); err != nil {
			return err
		}
	}
	return systemdunit.Remove(ctx, l.host, unit)
}

// what returns the file that a unit swaps to.
func what(unit string) string {
	for line := range strings.Lines(unit) {
		if v, ok := strings.CutPrefix(line, "What="); ok {
			return strings.ReplaceAll(strings.TrimSuffix(v, "\n"), "%%", "%")
		}
	}
	return ""
}
