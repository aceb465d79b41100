package pkg

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

const (
	infoDir = "/var/lib/dpkg/info"
	// clockDoubt is how far the clock may have been set back since the journal was written.
	clockDoubt = 24 * time.Hour
	maxSums    = 16 << 20
	emptyMD5   = "d41d8cd98f00b204e9800998ecf8427e"
)

// damaged returns the packages of an interrupted transaction whose files are not what was unpacked: those of the journal,
// and those that dpkg unpacked since. A file that is missing is not counted: dpkg's status is written after the names of a
// package's files are, and the machine may be told to leave some out (path-exclude, dpkg(1)).
func (a *apt) damaged(j *journal) ([]string, error) {
	dir, _, err := conffile.Parent(a.host, infoDir+"/x", false)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return nil, err
	}
	status, err := a.readStatus()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		file, isList := strings.CutSuffix(e.Name(), ".list")
		if !isList {
			continue
		}
		name, _, _ := strings.Cut(file, ":")
		info, err := e.Info()
		if err != nil || !slices.Contains(j.Packages, name) && changeTime(info).Before(j.Began.Add(-clockDoubt)) {
			continue
		}
		bad, err := a.differs(infoDir + "/" + file + ".md5sums")
		if err != nil {
			return nil, err
		}
		emptied, err := a.emptied(status, name)
		if err != nil {
			return nil, err
		}
		if (bad || emptied) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// differs compares files with a list of checksums (deb-md5sums(5)). Configuration files are in none.
func (a *apt) differs(list string) (bool, error) {
	sums, err := conffile.Read(a.host, list, maxSums)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if len(sums) == 0 || bytes.IndexByte(sums, 0) >= 0 {
		return true, nil
	}
	for line := range strings.Lines(string(sums)) {
		sum, name, ok := strings.Cut(strings.TrimRight(line, "\n"), "  ")
		if !ok || len(sum) != 2*md5.Size {
			return true, nil
		}
		same, err := a.sameSum("/"+name, sum)
		if err != nil || !same {
			return !same, err
		}
	}
	return false, nil
}

func (a *apt) sameSum(name, sum string) (bool, error) {
	dir, base, err := conffile.Parent(a.host, name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	info, err := dir.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	file, err := dir.OpenFile(base, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer file.Close()
	h := md5.New()
	if _, err := io.Copy(h, bufio.NewReaderSize(file, 128<<10)); err != nil {
		return false, err
	}
	return hex.EncodeToString(h.Sum(nil)) == sum, nil
}

// emptied removes configuration files that lost their content, and reports whether there were any: dpkg brings them back
// where they are missing (--force-confmiss), and keeps them where they merely differ.
func (a *apt) emptied(status []*stanza, name string) (bool, error) {
	found := false
	for _, s := range status {
		if s.name != name {
			continue
		}
		for line := range strings.Lines(s.conffiles) {
			path, sum, ok := strings.Cut(strings.TrimSpace(line), " ")
			if !ok || sum == emptyMD5 || !strings.HasPrefix(path, "/") {
				continue
			}
			content, err := conffile.Read(a.host, path, 1<<20)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return false, err
			}
			if len(bytes.Trim(content, "\x00")) > 0 {
				continue
			}
			found = true
			if err := conffile.Apply(a.host, &conffile.File{Path: path, Absent: true}); err != nil {
				return false, err
			}
		}
	}
	return found, nil
}
