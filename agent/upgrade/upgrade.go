package upgrade

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/programs"
	"github.com/provisionr/provisionr/internal/errs"
)

// Where things are, below the host's root.
const (
	Program    = programs.Dir + "/" + name
	dir        = "/var/lib/provisionr-agent"
	recordPath = dir + "/upgrade.json"
	failedPath = dir + "/upgrade-failed.json"
	lockPath   = dir + "/upgrade.lock"
	name       = "provisionr-agent"
	unit       = "provisionr-agent.service"
	// bootPath has the old program look first, each time that the unit starts: the watchdog is gone after a boot, and a new
	// program that crashes cannot take itself back.
	bootPath = "/etc/systemd/system/" + unit + ".d/50-provisionr-upgrade.conf"
)

const (
	// Watchdog is the unit, without ending, that takes an upgrade back, after watchdogAfter: a join with back-off fits in.
	Watchdog      = "provisionr-upgrade-undo"
	watchdogAfter = 2 * time.Minute
	tryTimeout    = 20 * time.Second
)

// Timers run a command later, whatever becomes of this process.
type Timers interface {
	Arm(ctx context.Context, name string, after time.Duration, command []string) error
	Disarm(ctx context.Context, name string) error
}

// Config of an Upgrader. All fields but Running are required.
type Config struct {
	Host     *host.Host
	Programs *programs.Store
	Timers   Timers
	// Running is the base name of this process's program. Empty where it is not known: it is what the link leads to then.
	Running string
	// BootID changes with each boot of the machine.
	BootID string
	Logger *slog.Logger
}

// Upgrader replaces this agent. Its methods are safe for several goroutines.
type Upgrader struct {
	Config
	// preparing is held while an upgrade is prepared.
	preparing sync.Mutex
}

// record is an upgrade that is under way. From and To are base names beside the link.
type record struct {
	From    string    `json:"from"`
	To      string    `json:"to"`
	Version string    `json:"version"`
	BootID  string    `json:"boot_id"`
	Began   time.Time `json:"began"`
	// Why it was taken back; only in the file of a failed one.
	Why string `json:"why,omitempty"`
}

// New returns an Upgrader.
func New(c Config) (*Upgrader, error) {
	if c.Host == nil || c.Programs == nil || c.Timers == nil || c.Logger == nil {
		return nil, errs.New(errs.Internal, "cannot make upgrader: a required field is missing")
	}
	return &Upgrader{Config: c}, nil
}

// Prepare has everything ready for the program with the hash, and returns what starts it, which ends this process; nil where
// it is this one. Until then nothing is changed but what the watchdog takes back.
func (u *Upgrader) Prepare(ctx context.Context, sha []byte, version string) (start func(context.Context) error, err error) {
	if !u.preparing.TryLock() {
		return nil, errs.New(errs.Conflict, "cannot upgrade: an upgrade is being prepared")
	}
	defer u.preparing.Unlock()
	if r, _ := u.read(recordPath); r != nil {
		return nil, errs.New(errs.Conflict, "cannot upgrade: an upgrade to %s is under way", r.Version)
	}
	from, err := u.current()
	if err != nil {
		return nil, fmt.Errorf("cannot upgrade: %w", err)
	}
	if len(sha) == sha256.Size && from == path.Base(programs.Path(name, sha)) {
		return nil, nil
	}
	to, err := u.Programs.Get(ctx, name, sha)
	if err != nil {
		return nil, err
	}
	if err := u.try(ctx, to, version); err != nil {
		return nil, errors.Join(err, u.Host.Remove(to))
	}
	r := &record{From: from, To: path.Base(to), Version: version, BootID: u.BootID, Began: time.Now()}
	if err := u.arm(ctx, r); err != nil {
		return nil, errors.Join(err, u.Host.Remove(recordPath), u.Host.Remove(bootPath))
	}
	return func(ctx context.Context) error {
		u.Logger.Info("starting another version of the agent", "version", version, "program", r.To)
		err := move(u.Host, r.To)
		if err == nil {
			err = u.Host.Units.Restart(ctx, unit)
		}
		if err != nil && ctx.Err() == nil {
			_, undone := Undo(ctx, u.Host, "it could not be started: "+err.Error())
			return errors.Join(err, undone)
		}
		return nil
	}, nil
}

// arm has the upgrade taken back by whatever comes first: the watchdog, or the old program at the unit's start after a boot.
func (u *Upgrader) arm(ctx context.Context, r *record) error {
	old := path.Join(programs.Dir, r.From)
	look := "# Written by provisionr-agent while it is upgraded.\n[Service]\nExecStartPre=-" + old + " undo boot\n"
	if err := u.Host.MkdirAll(path.Dir(bootPath), 0o755); err != nil {
		return err
	}
	if err := u.Host.WriteFile(bootPath, []byte(look), host.Attributes{Mode: 0o644}); err != nil {
		return err
	}
	if err := u.Host.Units.DaemonReload(ctx); err != nil {
		return err
	}
	if err := u.write(recordPath, r); err != nil {
		return err
	}
	return u.Timers.Arm(ctx, Watchdog, watchdogAfter, []string{old, "undo", "upgrade"})
}

// disarm is the end of an upgrade whose record is removed: what is left of it finds nothing to do.
func (u *Upgrader) disarm(ctx context.Context) error {
	return errors.Join(u.Timers.Disarm(ctx, Watchdog), u.Host.Remove(bootPath), u.Host.Units.DaemonReload(ctx))
}

// current returns the base name of the program that the unit runs. A plain file, as the bootstrap leaves it, is first given
// its own name beside.
func (u *Upgrader) current() (string, error) {
	at := filepath.Join(u.Host.Root, Program)
	if target, err := os.Readlink(at); err == nil {
		return filepath.Base(target), nil
	}
	sha, err := programs.Sum(u.Host, Program)
	if err != nil {
		return "", err
	}
	own := programs.Path(name, sha)
	if err := os.Link(at, filepath.Join(u.Host.Root, own)); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return path.Base(own), nil
}

// try runs the program: one for another machine, or that is no agent, ends here.
func (u *Upgrader) try(ctx context.Context, program, version string) error {
	r, err := u.Host.Commands.Run(ctx, host.Command{Path: filepath.Join(u.Host.Root, program), Args: []string{"--version"}, Timeout: tryTimeout})
	if err == nil && r.Exit != 0 {
		err = fmt.Errorf("exit %d: %s", r.Exit, strings.TrimSpace(string(r.Stderr)))
	}
	if err != nil {
		return errs.New(errs.Invalid, "cannot upgrade: the program does not run here: %w", err)
	}
	if got := strings.TrimSpace(string(r.Stdout)); version != "" && got != version {
		return errs.New(errs.Invalid, "cannot upgrade: the program says it is %q, not %q", got, version)
	}
	return nil
}

// Connected is called when a session began: an upgrade that led here is done.
func (u *Upgrader) Connected(ctx context.Context) error {
	release, err := u.Host.Lock(lockPath)
	if err != nil {
		return err
	}
	defer release()
	r, err := u.read(recordPath)
	if r == nil || err != nil {
		return err
	}
	if now, err := u.current(); err != nil || now != r.To || u.Running != "" && u.Running != r.To {
		return err // not yet begun
	}
	if err := u.Host.Remove(recordPath); err != nil {
		return err
	}
	if err := u.disarm(ctx); err != nil {
		u.Logger.Warn("cannot stop the watchdog, which will find nothing to do", "error", err)
	}
	u.Logger.Info("upgraded", "version", r.Version)
	return u.Programs.Prune(name, r.From, r.To)
}

// Left returns how long an upgrade that is under way still has, and whether there is one. A watchdog may be gone: it is for the
// agent then to call Undo.
func (u *Upgrader) Left() (time.Duration, bool) {
	r, err := u.read(recordPath)
	if r == nil || err != nil {
		return 0, false
	}
	return max(min(time.Until(r.Began), 0)+watchdogAfter, 0), true
}

// Failed returns why the last upgrade was taken back, once; "" where none was. Told is to be called when it was passed on.
func (u *Upgrader) Failed() (why string, at time.Time) {
	if r, _ := u.read(failedPath); r != nil {
		return fmt.Sprintf("the upgrade to %s was taken back: %s", r.Version, r.Why), r.Began
	}
	return "", time.Time{}
}

// Told forgets what Failed tells.
func (u *Upgrader) Told() error { return u.Host.Remove(failedPath) }

// Undo takes an upgrade back that has not ended, and starts the old program. It reports whether there was one. It is what the
// watchdog calls, in a process of the old program.
func Undo(ctx context.Context, h *host.Host, why string) (bool, error) {
	was, err := takeBack(h, why, func(*record) bool { return true })
	if !was {
		return false, err
	}
	// Whatever could not be written, as on a full disk: the old program is to run.
	return true, errors.Join(err, h.Units.DaemonReload(ctx), h.Units.Restart(ctx, unit))
}

// Booted takes an upgrade back that a boot has cut short. The old program calls it before the unit's own is started.
func Booted(h *host.Host, bootID string) (bool, error) {
	return takeBack(h, "the machine was booted before it had a session with a server", func(r *record) bool {
		return r.BootID != "" && bootID != "" && r.BootID != bootID
	})
}

// takeBack makes the link lead to the old program again where an upgrade is under way, and it is to be.
func takeBack(h *host.Host, why string, wanted func(*record) bool) (bool, error) {
	release, err := h.Lock(lockPath)
	if err != nil {
		return false, err
	}
	defer release()
	u := &Upgrader{Config: Config{Host: h}}
	r, err := u.read(recordPath)
	if r == nil || err != nil || !wanted(r) {
		return false, err
	}
	if err := move(h, r.From); err != nil {
		return false, fmt.Errorf("cannot take the upgrade back: %w", err)
	}
	r.Why = why
	return true, errors.Join(u.write(failedPath, r), h.Remove(recordPath), h.Remove(bootPath))
}

// move makes the link lead to a program beside it.
func move(h *host.Host, to string) error {
	if hash, ok := strings.CutPrefix(to, name+"-"); !ok || len(hash) == 0 || strings.ContainsRune(to, '/') {
		return fmt.Errorf("cannot run %q: not a program of ours", to)
	} else if _, err := hex.DecodeString(hash); err != nil {
		return fmt.Errorf("cannot run %q: %w", to, err)
	}
	at := filepath.Join(h.Root, Program)
	if _, err := os.Stat(filepath.Join(filepath.Dir(at), to)); err != nil {
		return err
	}
	if err := os.Remove(at + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(to, at+".new"); err != nil {
		return err
	}
	if err := os.Rename(at+".new", at); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(at))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (u *Upgrader) read(at string) (*record, error) {
	data, err := u.Host.ReadFile(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	r := &record{}
	if err == nil {
		err = json.Unmarshal(data, r)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", at, err)
	}
	return r, nil
}

func (u *Upgrader) write(at string, r *record) error {
	if err := u.Host.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return u.Host.WriteFile(at, data, host.Attributes{Mode: 0o600})
}
