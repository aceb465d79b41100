package pkg

import (
	"bytes"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	dpkgDir     = "/var/lib/dpkg"
	triggersDir = dpkgDir + "/triggers"
	choicesDir  = dpkgDir + "/alternatives"
	// pendingPath lists triggers that are to be run: it may well have become empty.
	pendingPath = triggersDir + "/Unincorp"
	// maxCopied bounds the status file of which the journal keeps a copy.
	maxCopied = 8 << 20
)

// mayLeaveUnsynced reports whether dpkg may run without syncing anything. A first transaction may, on file systems that write
// a file out before they rename it over another: what a power cut can tear then is what the transaction itself brought.
func (a *apt) mayLeaveUnsynced() bool {
	if conffile.Exists(a.host, settledPath) {
		return false
	}
	for _, name := range []string{dpkgDir, "/etc", "/usr"} {
		dir, _, err := conffile.Parent(a.host, name+"/x", false)
		if err != nil {
			return false
		}
		var fs unix.Statfs_t
		f, err := dir.Open(".")
		if err == nil {
			err = unix.Fstatfs(int(f.Fd()), &fs)
			f.Close()
		}
		dir.Close()
		if err != nil || !slices.Contains([]int64{unix.EXT4_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.OVERLAYFS_SUPER_MAGIC, unix.TMPFS_MAGIC}, int64(fs.Type)) {
			return false
		}
	}
	return true
}

// saveDatabase returns what dpkg's database is before packages are added, except for what it has of each package. It returns
// nothing where that would be too much to keep, or is not what it should be: dpkg had better sync then.
func (a *apt) saveDatabase() []converge.SavedFile {
	content, err := conffile.Read(a.host, statusPath, maxCopied)
	if err != nil || len(content) > maxCopied {
		return nil
	}
	names := []string{dpkgDir + "/diversions", dpkgDir + "/statoverride", pendingPath}
	for _, dir := range []string{triggersDir, choicesDir} {
		found, err := conffile.List(a.host, dir, "*")
		if err != nil {
			return nil
		}
		for _, name := range found {
			if name != "Lock" && dir+"/"+name != pendingPath {
				names = append(names, dir+"/"+name)
			}
		}
	}
	saved := []converge.SavedFile{{Path: statusPath, Content: content, Mode: 0o644}}
	for _, name := range names {
		f, err := conffile.Save(a.host, name)
		if err != nil {
			return nil
		}
		saved = append(saved, f)
	}
	return saved
}

// whole reports whether content can be all of a text file: what a power cut tears ends early, or in zeros.
func whole(content []byte) bool {
	return bytes.IndexByte(content, 0) < 0 && (len(content) == 0 || content[len(content)-1] == '\n')
}

// tornFile reports whether a power cut tore a file of which before is known.
func (a *apt) tornFile(before *converge.SavedFile) (bool, error) {
	now, err := conffile.Save(a.host, before.Path)
	if err != nil || before.Absent && now.Absent {
		return false, err
	}
	lost := now.Absent || len(now.Content) == 0 && len(before.Content) > 0
	return lost && before.Path != pendingPath && !before.Absent || !whole(now.Content), nil
}

// torn reports whether a power cut tore dpkg's database, in which packages were being added.
func (a *apt) torn(j *journal) (bool, error) {
	for i := range j.Before[1:] {
		if torn, err := a.tornFile(&j.Before[1+i]); err != nil || torn {
			return torn, err
		}
	}
	if content, err := conffile.Read(a.host, statusPath, maxStatus); err != nil || len(content) == 0 || !whole(content) {
		return true, nil
	}
	now, err := a.readStatus()
	if err != nil {
		return false, err
	}
	err = readStanzas(bytes.NewReader(j.Before[0].Content), nil, func(s *stanza) {
		// Adding packages takes none away.
		if !slices.ContainsFunc(now, func(n *stanza) bool { return n.name == s.name }) {
			now = nil
		}
	})
	if err != nil || now == nil {
		return true, nil
	}
	updates, err := conffile.List(a.host, updatesPath, "[0-9]*")
	if err != nil {
		return false, err
	}
	for _, name := range updates {
		content, err := conffile.Read(a.host, updatesPath+"/"+name, maxCopied)
		if err != nil || len(content) == 0 || !whole(content) {
			return true, err
		}
	}
	for _, name := range j.Packages {
		if torn, err := a.tornInfo(now, name); err != nil || torn {
			return torn, err
		}
	}
	return false, nil
}

// tornInfo looks at what dpkg knows of one package.
func (a *apt) tornInfo(status []*stanza, name string) (bool, error) {
	files, err := a.infoFiles(name)
	if err != nil {
		return false, err
	}
	listed := false
	for _, file := range files {
		content, err := conffile.Read(a.host, file, maxSums)
		if err != nil {
			return false, err
		}
		switch path.Ext(file) {
		case ".list":
			listed = true
			if len(content) == 0 || !whole(content) {
				return true, nil
			}
		case ".md5sums", ".conffiles", ".triggers", ".shlibs", ".symbols":
			if !whole(content) {
				return true, nil
			}
		default: // a script, or any program
			if len(bytes.Trim(content, "\x00")) == 0 {
				return true, nil
			}
		}
	}
	return !listed && slices.ContainsFunc(status, func(s *stanza) bool { return s.name == name && strings.HasSuffix(s.status, " installed") }), nil
}

// infoFiles returns the paths of what dpkg has of a package, for whichever architecture.
func (a *apt) infoFiles(name string) ([]string, error) {
	found, err := conffile.List(a.host, infoDir, name+"[.:]*")
	files := found[:0]
	for _, file := range found {
		// The name of another package may begin with this one and a dot.
		base, _, _ := strings.Cut(strings.TrimSuffix(file, path.Ext(file)), ":")
		if base == name {
			files = append(files, infoDir+"/"+file)
		}
	}
	return files, err
}

// rollBack has dpkg's database say what it said before the transaction: its packages are to be added anew.
func (a *apt) rollBack(j *journal) error {
	var gone []string
	for _, name := range j.Packages {
		files, err := a.infoFiles(name)
		if err != nil {
			return err
		}
		gone = append(gone, files...)
	}
	for _, dir := range []string{updatesPath, triggersDir, choicesDir} {
		files, err := conffile.List(a.host, dir, "*")
		if err != nil {
			return err
		}
		for _, file := range files {
			file = dir + "/" + file
			if slices.ContainsFunc(j.Before, func(f converge.SavedFile) bool { return f.Path == file }) || path.Base(file) == "Lock" {
				continue
			}
			content, err := conffile.Read(a.host, file, maxCopied)
			if err != nil {
				return err
			}
			if dir != choicesDir || len(content) == 0 || !whole(content) {
				gone = append(gone, file)
			}
		}
	}
	for _, file := range gone {
		if err := conffile.Apply(a.host, &conffile.File{Path: file, Absent: true}); err != nil {
			return err
		}
	}
	for i := range j.Before {
		f := &j.Before[i]
		back := f.Path == statusPath || path.Dir(f.Path) == triggersDir
		if !back {
			// What maintainer scripts registered stands with what they did.
			torn, err := a.tornFile(f)
			if err != nil {
				return err
			}
			back = torn
		}
		if back {
			if err := conffile.Restore(a.host, *f); err != nil {
				return err
			}
		}
	}
	return nil
}

// settle has dpkg end what it can by itself, with the database from before the transaction where the present one is torn.
func (a *apt) settle(j *journal, configure func() error) error {
	torn, err := a.torn(j)
	if err != nil {
		return err
	}
	if !torn {
		// What dpkg cannot make sense of is torn as well.
		if err = configure(); !errs.Is(err, errs.Internal) {
			return err
		}
	}
	if err := a.rollBack(j); err != nil {
		return err
	}
	return configure()
}
