package download

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/accounts"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/fetch"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// maxDownload bounds what is fetched.
const maxDownload = 16 << 30

// New returns one resource for each download of the pool.
func New(s *desired.State, h *host.Host) []converge.Resource {
	var list []converge.Resource
	client, err := fetch.New(s.Machine)
	db := accounts.NewReader(h)
	for _, d := range s.Pool.GetDownloads() {
		list = append(list, &download{host: h, accounts: db, want: d, client: client, broken: err, limits: defaultLimits})
	}
	return list
}

type download struct {
	host     *host.Host
	accounts *accounts.Reader
	want     *agentv1.Download
	client   *fetch.Client
	limits   limits
	// broken is why nothing can be fetched.
	broken error

	// mu guards what Check remembers: proofs may check while the runner does.
	mu   sync.Mutex
	seen seen
}

// Name implements converge.Resource.
func (d *download) Name() string { return "download/" + d.want.Path }

// After implements converge.Ordered: packages bring the programs that unpack, and accounts the owners.
func (d *download) After() []string {
	return []string{"package", "user", "group", "resolver", "proxy", "filesystem"}
}

// Triggers implements converge.Triggered.
func (d *download) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: d.want.Path}}
}

func (d *download) mode() fs.FileMode {
	if d.want.Mode == 0 {
		return 0o755
	}
	return conffile.Mode(d.want.Mode)
}

// owner looks up who owns what is made.
func (d *download) owner() (host.Owner, error) {
	db, err := d.accounts.Load()
	if err != nil {
		return host.Owner{}, err
	}
	user, group := "root", "root"
	if d.want.Owner != "" {
		user = d.want.Owner
	}
	if d.want.Group != "" {
		group = d.want.Group
	}
	uid, ok := db.UID(user)
	gid, ok2 := db.GID(group)
	if !ok || !ok2 {
		return host.Owner{}, errs.New(errs.NotFound, "cannot give %s its owner: user %s or group %s does not exist", d.want.Path, user, group).
			WithHint("list them under users or groups, or the package that creates them under packages")
	}
	return host.Owner{UID: uid, GID: gid}, nil
}

// Check implements converge.Resource.
func (d *download) Check(context.Context) (converge.Diff, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	text, err := d.compare()
	return converge.Diff{Text: textdiff.Bound(text)}, err
}

func (d *download) compare() (string, error) {
	own, err := d.owner()
	if err != nil {
		// An owner that does not exist yet is a difference, until Apply finds it still missing.
		return err.Error(), nil
	}
	dir, base, err := conffile.Parent(d.host, d.want.Path, false)
	if errors.Is(err, fs.ErrNotExist) {
		return d.missing(), nil
	}
	if err != nil {
		return "", err
	}
	defer dir.Close()
	info, err := dir.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		return d.missing(), nil
	}
	if err != nil {
		return "", err
	}
	n, err := d.readNote()
	if err != nil {
		return "", err
	}
	switch {
	case info.IsDir() && !d.want.Extract:
		return "", errs.New(errs.Conflict, "cannot write %s: it is a directory", d.want.Path)
	case info.IsDir() && n == nil && d.want.Extract:
		if empty, err := isEmpty(dir, base); err != nil || !empty {
			return "", errors.Join(err, errs.New(errs.Conflict, "cannot replace %s: it is a directory that was not made by this", d.want.Path).
				WithHint("unpack into a directory of its own, or remove what is there"))
		}
		return d.missing(), nil
	case d.want.Extract && info.Mode().IsRegular() && n == nil:
		return "", errs.New(errs.Conflict, "cannot replace %s by a directory: it is a file that was not made by this", d.want.Path).
			WithHint("remove it, or unpack elsewhere")
	case info.IsDir() != d.want.Extract || !info.IsDir() && !info.Mode().IsRegular():
		return d.want.Path + ": another kind of file\n" + d.missing(), nil
	case n == nil && d.want.Extract:
		return d.missing(), nil
	case n != nil && d.want.Extract && (n.Sha256 != hex.EncodeToString(d.want.Sha256) || n.Strip != d.want.Strip || !n.Tree):
		return fmt.Sprintf("%s:\n-sha256 %s\n+sha256 %x", d.want.Path, n.Sha256, d.want.Sha256), nil
	}
	return d.compareContent(dir, base, n, own)
}

func (d *download) missing() string {
	what := d.want.Path + ": missing"
	if d.want.Extract {
		what = d.want.Path + "/: missing"
	}
	return fmt.Sprintf("%s\n+sha256 %x", what, d.want.Sha256)
}

func isEmpty(dir *os.Root, base string) (bool, error) {
	f, err := dir.Open(base)
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, _ := f.Readdirnames(1)
	return len(names) == 0, nil
}

// Apply implements converge.Resource.
func (d *download) Apply(ctx context.Context) error {
	if d.broken != nil {
		return d.broken
	}
	own, err := d.owner()
	if err != nil {
		return err
	}
	dir, base, err := conffile.Parent(d.host, d.want.Path, true)
	if err != nil {
		return err
	}
	defer dir.Close()
	part := fmt.Sprintf(".%s.%x.part", base, d.want.Sha256[:6])
	if err := clean(dir, base, part); err != nil {
		return err
	}
	if done, err := d.reuse(dir, base, own); done || err != nil {
		return err
	}
	if err := d.client.File(ctx, dir, part, d.want.Urls, d.want.Sha256, maxDownload); err != nil {
		return fmt.Errorf("%s: %w", d.want.Path, err)
	}
	if d.want.Extract {
		err = d.unpack(ctx, dir, base, part, own)
	} else {
		err = d.place(dir, base, part, own)
	}
	if err != nil {
		return fmt.Errorf("cannot make %s: %w", d.want.Path, err)
	}
	return d.writeNote(dir, base)
}

// reuse mends a file whose content is right, without fetching it again.
func (d *download) reuse(dir *os.Root, base string, own host.Owner) (bool, error) {
	info, err := dir.Lstat(base)
	if err != nil || !info.Mode().IsRegular() || d.want.Extract {
		return false, nil
	}
	if sum, err := hashOf(dir, base); err != nil || sum != hex.EncodeToString(d.want.Sha256) {
		return false, err
	}
	if err := errors.Join(dir.Lchown(base, own.UID, own.GID), dir.Chmod(base, d.mode())); err != nil {
		return false, err
	}
	return true, d.writeNote(dir, base)
}

// place puts a verified file in its place.
func (d *download) place(dir *os.Root, base, part string, own host.Owner) error {
	if err := dir.Lchown(part, own.UID, own.GID); err != nil {
		return err
	}
	if err := dir.Chmod(part, d.mode()); err != nil {
		return err
	}
	if err := dir.Rename(part, base); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir *os.Root) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// clean removes what earlier tries left beside the target, but for the part that is to be resumed.
func clean(dir *os.Root, base, part string) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, name := range names {
		rest, ok := strings.CutPrefix(name, "."+base+".")
		if !ok || name == part || name == part+".validator" || !leftover().MatchString(rest) {
			continue
		}
		if err := dir.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}

// leftover are the ends of names that we give to what becomes a download. Others may have files beside it.
var leftover = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([0-9a-f]{12}\.part(\.validator)?|[A-Z2-7]{8}\.(tar|new))$`)
})
