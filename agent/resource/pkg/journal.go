package pkg

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

const (
	journalPath = conffile.StateDir + "/packages-journal.json"
	maxJournal  = 64 << 20
	bootIDPath  = "/proc/sys/kernel/random/boot_id"
	archivesDir = "/var/cache/apt/archives"
)

// journal is on disk while a transaction is under way.
type journal struct {
	// Boot is the kernel's id of the boot in which it began.
	Boot  string    `json:"boot"`
	Began time.Time `json:"began"`
	// Packages of the transaction, as far as known before.
	Packages []string `json:"packages"`
	// Targets are those of them that were asked for; the others came as dependencies.
	Targets []string `json:"targets,omitempty"`
	// Before is dpkg's database as it was, its status first, where dpkg runs without syncing it.
	Before []converge.SavedFile `json:"before,omitempty"`
}

// bootID is empty where the kernel tells none.
func bootID(h *host.Host) string {
	id, err := conffile.Read(h, bootIDPath, 64)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

func (a *apt) openJournal(targets []target, adds []*stanza, before []converge.SavedFile) error {
	j := journal{Boot: bootID(a.host), Began: time.Now(), Before: before}
	for _, t := range targets {
		j.Targets = append(j.Targets, t.name)
	}
	j.Packages = slices.Clone(j.Targets)
	for _, s := range adds {
		j.Packages = append(j.Packages, s.name)
	}
	slices.Sort(j.Packages)
	j.Packages = slices.Compact(j.Packages)
	content, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return conffile.Apply(a.host, &conffile.File{Path: journalPath, Content: content, Mode: 0o600})
}

// closeJournal makes what was written durable, and forgets the transaction.
func (a *apt) closeJournal() error {
	if err := a.sync(); err != nil {
		return err
	}
	return conffile.Apply(a.host, &conffile.File{Path: journalPath, Absent: true})
}

// sync writes out every file system that packages and their scripts write to, each once.
func (a *apt) sync() error {
	var done []uint64
	for _, name := range []string{"/var", "/var/lib", "/var/cache", "/var/log", "/usr", "/usr/local", "/etc", "/boot", "/boot/efi", "/opt", "/srv", "/home", "/root", "/"} {
		dir, _, err := conffile.Parent(a.host, name+"/x", false)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = syncOnce(dir, &done)
		if err := errors.Join(err, dir.Close()); err != nil {
			return err
		}
	}
	return nil
}

func syncOnce(dir *os.Root, done *[]uint64) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || slices.Contains(*done, st.Dev) {
		return nil
	}
	*done = append(*done, st.Dev)
	return unix.Syncfs(int(f.Fd()))
}

// repair ends what an interrupted transaction left undone. After a power cut it also looks at what was unpacked, and all
// that was added without being synced is installed again: nobody knows what its scripts wrote.
func (a *apt) repair(ctx context.Context) error {
	j, err := a.readJournal()
	if err != nil {
		return err
	}
	cut := j != nil && (j.Boot == "" || j.Boot != bootID(a.host))
	unsynced := cut && len(j.Before) > 0
	configure := func() error { return a.configure(ctx) }
	if unsynced {
		err = a.settle(j, configure)
	} else {
		err = configure()
	}
	if err != nil {
		return err
	}
	again, err := a.unfinished()
	if err != nil {
		return err
	}
	if unsynced {
		if err := a.addAgain(ctx, j, again); err != nil {
			return err
		}
		again = nil
	}
	if cut {
		damaged, err := a.damaged(j)
		if err != nil {
			return err
		}
		again = append(again, damaged...)
	}
	if err := a.reinstall(ctx, again); err != nil {
		return err
	}
	return a.closeJournal()
}

// addAgain installs the packages of a journal, and tells apt which of them came as dependencies.
func (a *apt) addAgain(ctx context.Context, j *journal, unfinished []string) error {
	if err := a.reinstall(ctx, append(unfinished, j.Packages...)); err != nil {
		return err
	}
	var targets []target
	for _, name := range j.Targets {
		targets = append(targets, target{name: name})
	}
	var adds []*stanza
	for _, name := range j.Packages {
		adds = append(adds, &stanza{name: name})
	}
	return a.markAutomatic(targets, adds)
}

func (a *apt) readJournal() (*journal, error) {
	content, err := conffile.Read(a.host, journalPath, maxJournal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	j := &journal{}
	if json.Unmarshal(content, j) != nil {
		// Written by somebody else, or another version: all that is recent is looked at.
		return &journal{Began: time.Now().Add(-7 * 24 * time.Hour)}, nil
	}
	return j, nil
}

// configure ends an interrupted transaction as far as dpkg can alone.
func (a *apt) configure(ctx context.Context) error {
	args := append(slices.Clone(forces), "--configure", "-a")
	err := a.run(ctx, "end the interrupted package transaction", host.Command{Path: "dpkg", Args: args, Timeout: a.limits.configure})
	if unfinished, err2 := a.unfinished(); err != nil && err2 == nil && len(unfinished) > 0 {
		return nil // those are installed again
	}
	return err
}

// unfinished returns packages that only a new installation mends.
func (a *apt) unfinished() ([]string, error) {
	in, err := a.status.read()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, b := range in.broken {
		if name, ok := strings.CutSuffix(b, " is half-installed"); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// reinstall unpacks packages anew. The archives in the cache may be damaged as well: they are fetched again where it failed.
func (a *apt) reinstall(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	names = slices.Compact(names)
	args := slices.Concat(options, ownLock, []string{"--reinstall", "--allow-downgrades", "--no-install-recommends",
		"-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold", "-o", "Dpkg::Options::=--force-confmiss", "-f", "install"}, names)
	c := host.Command{Path: "apt-get", Args: args, Timeout: a.limits.transaction}
	if err := a.freshen(ctx); err != nil {
		return err
	}
	if err := a.run(ctx, "install damaged packages again", c); err == nil {
		return nil
	}
	for _, name := range names {
		files, err := conffile.List(a.host, archivesDir, name+"_*.deb")
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := conffile.Apply(a.host, &conffile.File{Path: archivesDir + "/" + f, Absent: true}); err != nil {
				return err
			}
		}
	}
	return a.run(ctx, "install damaged packages again", c)
}
