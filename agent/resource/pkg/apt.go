package pkg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	updateTimeout    = 5 * time.Minute
	installTimeout   = 25 * time.Minute
	configureTimeout = 15 * time.Minute
	// lockTimeout is how long apt waits for another program that holds dpkg's lock, in seconds.
	lockTimeout = "300"

	listsDir   = "/var/lib/apt/lists"
	stampPath  = conffile.StateDir + "/apt-updated"
	manDBIndex = "/var/lib/man-db/auto-update"
)

var aptEnv = []string{"DEBIAN_FRONTEND=noninteractive", "APT_LISTCHANGES_FRONTEND=none", "NEEDRESTART_MODE=l", "UCF_FORCE_CONFFOLD=1"}

// options of every apt-get call.
var options = []string{"-q", "-y", "-o", "DPkg::Lock::Timeout=" + lockTimeout, "-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30", "-o", "Acquire::https::Timeout=30"}

// Apply implements converge.Resource.
func (p *packages) Apply(ctx context.Context) (err error) {
	if err := allowServices(p.host); err != nil {
		return err
	}
	c, err := p.compare()
	if err != nil {
		return err
	}
	if !c.repair && len(c.targets) == 0 {
		return nil
	}
	allow, err := deny(p.host)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, allow()) }()
	if err := conffile.Apply(p.host, &conffile.File{Path: manDBIndex, Absent: true}); err != nil {
		return err
	}
	if c.repair {
		if err := p.configure(ctx); err != nil {
			return err
		}
		if c, err = p.compare(); err != nil {
			return err
		}
	}
	if len(c.targets) == 0 {
		return nil
	}
	return p.transact(ctx, c.targets)
}

// configure ends an interrupted transaction.
func (p *packages) configure(ctx context.Context) error {
	r, err := p.host.Commands.Run(ctx, host.Command{
		Path: "dpkg", Args: []string{"--force-confdef", "--force-confold", "--configure", "-a"}, Env: aptEnv, Timeout: configureTimeout,
	})
	if err != nil {
		return fmt.Errorf("cannot end the interrupted package transaction: %w", err)
	}
	if r.Exit != 0 {
		return classify("end the interrupted package transaction", r)
	}
	return nil
}

// transact fetches the lists if needed, and installs; if the lists do not know what is wanted, it fetches them and tries again.
func (p *packages) transact(ctx context.Context, targets []string) error {
	stale, err := p.listsStale()
	if err != nil {
		return err
	}
	if stale {
		if err := p.update(ctx); err != nil {
			return err
		}
		return p.install(ctx, targets)
	}
	err = p.install(ctx, targets)
	if !errs.Is(err, errs.NotFound) {
		return err
	}
	if err := p.update(ctx); err != nil {
		return err
	}
	return p.install(ctx, targets)
}

func (p *packages) update(ctx context.Context) error {
	args := append(slices.Clone(options), "-o", "APT::Update::Error-Mode=any", "update")
	r, err := p.host.Commands.Run(ctx, host.Command{Path: "apt-get", Args: args, Env: aptEnv, Timeout: updateTimeout})
	if err != nil {
		return errs.New(errs.Unavailable, "cannot fetch the package lists: %w", err)
	}
	if r.Exit != 0 {
		return classify("fetch the package lists", r)
	}
	return conffile.Apply(p.host, &conffile.File{Path: stampPath, Content: []byte("apt-get update succeeded when this file was written\n")})
}

func (p *packages) install(ctx context.Context, targets []string) error {
	args := append(slices.Clone(options),
		"--no-install-recommends", "--allow-downgrades",
		"-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold", "-o", "Dpkg::Options::=--force-unsafe-io",
		"install")
	args = append(args, targets...)
	r, err := p.host.Commands.Run(ctx, host.Command{Path: "apt-get", Args: args, Env: aptEnv, Timeout: installTimeout})
	if err != nil {
		return errs.New(errs.Unavailable, "cannot change packages: %w", err)
	}
	if r.Exit != 0 {
		return classify("change packages", r)
	}
	return nil
}

// listsStale reports whether the archives' lists are missing or older than the sources. A list's modification time is the
// archive's, so that its change time, and our stamp, tell when it was fetched.
func (p *packages) listsStale() (bool, error) {
	fetched, err := newest(p.host, listsDir, "*Release", changeTime)
	if err != nil || fetched.IsZero() {
		return true, err
	}
	stamp, err := newest(p.host, conffile.StateDir, "apt-updated", changeTime)
	if err != nil {
		return true, err
	}
	if stamp.After(fetched) {
		fetched = stamp
	}
	for _, s := range []struct{ dir, pattern string }{
		{"/etc/apt", "sources.list"}, {"/etc/apt/sources.list.d", "*"}, {"/etc/apt/keyrings", "*"},
	} {
		changed, err := newest(p.host, s.dir, s.pattern, fs.FileInfo.ModTime)
		if err != nil || changed.After(fetched) {
			return true, err
		}
	}
	return false, nil
}

func changeTime(info fs.FileInfo) time.Time {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctim.Unix())
	}
	return info.ModTime()
}

// newest returns the latest time of the files in a directory that match; zero if there are none.
func newest(h *host.Host, dir, pattern string, at func(fs.FileInfo) time.Time) (time.Time, error) {
	var last time.Time
	names, err := conffile.List(h, dir, pattern)
	if err != nil || len(names) == 0 {
		return last, err
	}
	root, _, err := conffile.Parent(h, dir+"/"+names[0], false)
	if err != nil {
		return last, err
	}
	defer root.Close()
	for _, name := range names {
		info, err := root.Stat(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // a dangling link, or removed meanwhile
		}
		if err != nil {
			return last, err
		}
		if t := at(info); t.After(last) {
			last = t
		}
	}
	return last, nil
}

// failures are what apt and dpkg say, in order of precedence, and what it means.
var failures = []struct {
	words string
	kind  errs.Kind
	means string
	hint  string
}{
	{"Could not get lock", errs.Unavailable, "another program holds the package manager's lock", "it is tried again; see who holds it with: fuser -v /var/lib/dpkg/lock-frontend"},
	{"was locked by another process", errs.Unavailable, "another program holds the package manager's lock", "it is tried again; see who holds it with: fuser -v /var/lib/dpkg/lock-frontend"},
	{"No space left on device", errs.Exhausted, "the disk is full", "free some space"},
	{"Unable to locate package", errs.NotFound, "a package is in no repository", "correct its name, or add the repository that has it"},
	{"has no installation candidate", errs.NotFound, "a package is in no repository", "correct its name, or add the repository that has it"},
	{"was not found", errs.NotFound, "a version is in no repository", "list the versions with: apt-cache policy PACKAGE"},
	{"404  Not Found", errs.NotFound, "an archive no longer has a file of its lists", "it is tried again with fresh lists"},
	{"NO_PUBKEY", errs.Denied, "an archive is signed with a key that its repository does not name", "correct signedBy of the repository"},
	{"is not signed", errs.Denied, "an archive is not signed", "use a signed archive"},
	{"Temporary failure resolving", errs.Unavailable, "an archive's name does not resolve", "see the machine's dns proofs"},
	{"Could not resolve", errs.Unavailable, "an archive's name does not resolve", "see the machine's dns proofs"},
	{"Could not connect", errs.Unavailable, "an archive cannot be reached", "it is tried again"},
	{"Unable to connect", errs.Unavailable, "an archive cannot be reached", "it is tried again"},
	{"Connection timed out", errs.Unavailable, "an archive cannot be reached", "it is tried again"},
	{"Connection failed", errs.Unavailable, "an archive cannot be reached", "it is tried again"},
	{"Hash Sum mismatch", errs.Unavailable, "an archive is in mid-update", "it is tried again"},
	{"File has unexpected size", errs.Unavailable, "an archive is in mid-update", "it is tried again"},
	{"is not valid yet", errs.Unavailable, "the machine's clock is behind the archive's", "see the machine's clock proof"},
	{"held broken packages", errs.Conflict, "the packages' dependencies contradict each other", "see with: apt-get install -s PACKAGE"},
	{"unmet dependencies", errs.Conflict, "the packages' dependencies contradict each other", "see with: apt-get install -s PACKAGE"},
}

// classify makes an error with a kind of what a failed apt-get or dpkg said.
func classify(verb string, r host.Result) error {
	said := string(r.Stderr) + string(r.Stdout)
	for _, f := range failures {
		if strings.Contains(said, f.words) {
			return errs.New(f.kind, "cannot %s: %s: %s", verb, f.means, command.Tail(r)).WithHint("%s", f.hint)
		}
	}
	return errs.New(errs.Internal, "cannot %s: exit %d: %s", verb, r.Exit, command.Tail(r))
}
