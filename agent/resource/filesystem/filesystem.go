package filesystem

import (
	"context"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/fstab"
	"github.com/provisionr/provisionr/agent/resource/internal/sharedkernel"
	"github.com/provisionr/provisionr/agent/resource/internal/systemdunit"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	unitDir     = systemdunit.Dir
	fstabPath   = "/etc/fstab"
	defaultType = "ext4"
	// maxTable bounds what is read of fstab.
	maxTable = 1 << 20
)

// New returns one resource for each file system of the pool, and one that unmounts those that are no longer listed.
func New(s *desired.State, h *host.Host) []converge.Resource {
	var list []converge.Resource
	made, mounts := &records{host: h}, &left{host: h, wanted: make(map[string]bool)}
	for _, want := range s.Pool.GetFilesystems() {
		if sharedkernel.Of(s) {
			list = append(list, sharedkernel.Refused("filesystem/"+want.Path, "file system "+want.Path))
			continue
		}
		f := &filesystem{host: h, want: want, records: made, kind: want.Type, label: label(want), unit: host.UnitForPath(want.Path, "mount")}
		mounts.wanted[f.unit] = true
		if f.kind == "" {
			f.kind = defaultType
		}
		if f.kind == "vfat" {
			f.label = strings.ToUpper(f.label)
		}
		for _, other := range s.Pool.Filesystems {
			if strings.HasPrefix(want.Path, other.Path+"/") {
				f.after = append(f.after, "filesystem/"+other.Path)
			}
		}
		list = append(list, f)
	}
	return append(list, mounts)
}

type filesystem struct {
	host    *host.Host
	want    *agentv1.Filesystem
	records *records
	// kind is the type, label the one that tells our file systems from others.
	kind, label string
	unit        string
	after       []string
}

// Name implements converge.Resource.
func (f *filesystem) Name() string { return "filesystem/" + f.want.Path }

// After implements converge.Ordered: packages bring mkfs; what is mounted within another comes after that.
func (f *filesystem) After() []string { return append([]string{"package", "module"}, f.after...) }

// Triggers implements converge.Triggered.
func (f *filesystem) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnUnit, Name: f.unit}, {Kind: converge.OnFile, Name: unitDir + f.unit}}
}

// unitFile returns the mount unit (systemd.mount(5)).
func (f *filesystem) unitFile(uuid string) conffile.File {
	options := f.want.Options
	if len(options) == 0 {
		options = []string{"defaults", "nofail"}
	}
	install := "RequiredBy"
	if slices.Contains(options, "nofail") {
		install = "WantedBy"
	}
	return conffile.File{Path: unitDir + f.unit, Content: []byte(unitHead + "\n[Mount]\n" +
		"What=/dev/disk/by-uuid/" + uuid + "\nWhere=" + strings.ReplaceAll(f.want.Path, "%", "%%") + "\nType=" + f.kind +
		"\nOptions=" + strings.Join(options, ",") + "\n\n[Install]\n" + install + "=local-fs.target\n")}
}

// Units implements converge.Looking.
func (f *filesystem) Units() []string { return []string{f.unit} }

// Check implements converge.Resource.
func (f *filesystem) Check(ctx context.Context) (converge.Diff, error) {
	p, err := f.plan()
	if err != nil {
		return converge.Diff{}, err
	}
	switch {
	case p.missing != "":
		return converge.Diff{Text: p.missing}, nil
	case p.make:
		return converge.Diff{Text: "+" + f.kind + " with label " + f.label + " on /dev/" + p.device + "\nis not mounted"}, nil
	}
	file := f.unitFile(p.uuid)
	text, err := conffile.Check(f.host, &file, &conffile.Seen{})
	if err != nil {
		return converge.Diff{}, err
	}
	diffs := []string{text}
	if !p.mounted {
		diffs = append(diffs, "is not mounted")
	}
	u, err := f.host.Units.Unit(ctx, f.unit)
	if err != nil {
		return converge.Diff{}, err
	}
	if u.File != "enabled" {
		diffs = append(diffs, f.unit+" is not enabled")
	}
	return converge.Diff{Text: textdiff.Join(diffs...)}, nil
}

// Apply implements converge.Resource.
func (f *filesystem) Apply(ctx context.Context) error {
	p, err := f.plan()
	if err != nil {
		return err
	}
	if p.missing != "" {
		return errs.New(errs.NotFound, "cannot make file system %s: %s", f.want.Path, p.missing).WithHint("see lsblk on the machine, and hardware.disks in the manifest")
	}
	if p.make {
		if err := f.make(ctx, p); err != nil {
			return err
		}
	} else if err := f.records.put(f.want.Path, record{Disk: p.identity, UUID: p.uuid, Made: true}); err != nil {
		return err
	}
	file := f.unitFile(p.uuid)
	before, err := conffile.Check(f.host, &file, &conffile.Seen{})
	if err != nil {
		return err
	}
	if err := conffile.Apply(f.host, &file); err != nil {
		return err
	}
	units := f.host.Units
	if err := units.DaemonReload(ctx); err != nil {
		return err
	}
	u, err := units.Unit(ctx, f.unit)
	if err != nil {
		return err
	}
	if u.File != "enabled" {
		if err := units.Enable(ctx, f.unit); err != nil {
			return err
		}
	}
	switch {
	case !p.mounted:
		return units.Start(ctx, f.unit)
	case before != "":
		// Mounted with other options: a reload of a mount unit mounts it anew in place.
		return units.ReloadOrRestart(ctx, f.unit)
	}
	return nil
}

// taken is an error where fstab mounts something at the path: systemd would have two of one unit.
func (f *filesystem) taken() error {
	if !conffile.Exists(f.host, fstabPath) {
		return nil
	}
	b, err := conffile.Read(f.host, fstabPath, maxTable)
	if err != nil {
		return err
	}
	for _, e := range fstab.Parse(string(b)) {
		if e.Target == f.want.Path {
			return errs.New(errs.Conflict, "cannot mount at %s: %s has a line for it, of %s", f.want.Path, fstabPath, e.Source).
				WithHint("take the line out on the machine, or mount elsewhere")
		}
	}
	return nil
}
