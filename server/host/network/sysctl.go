package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/provisionr/provisionr/server/host/files"
)

// sysctl is a setting of the whole host that machines need at least at a value.
type sysctl struct {
	// path below /proc/sys, and the least value.
	path  string
	least int
}

var sysctls = []sysctl{
	{"net/ipv4/ip_forward", 1},
	// Each machine has about ten inotify instances, which all count against the host's root; the kernel's default is 128.
	{"fs/inotify/max_user_instances", 4096},
}

// The former values are kept in sysctlDir, with a file in its holders per provider that needs the new ones: the last
// one to let go restores them. All that is below /run, because a reboot resets the settings too.
const (
	runDir     = "/run/provisionr"
	sysctlDir  = runDir + "/sysctl"
	holdersDir = sysctlDir + "/holders"
	sysctlLock = runDir + "/sysctl.lock"
)

func (s sysctl) file() string { return filepath.Join("/proc/sys", s.path) }
func (s sysctl) former() string {
	return filepath.Join(sysctlDir, strings.ReplaceAll(s.path, "/", "."))
}

// raise records the present value where none is recorded, and sets the least one where it is lower.
func (s sysctl) raise() error {
	data, err := os.ReadFile(s.file())
	if err != nil {
		return err
	}
	data = bytes.TrimSpace(data)
	if value, err := strconv.Atoi(string(data)); err != nil || value >= s.least {
		return err
	}
	if _, err := os.Stat(s.former()); errors.Is(err, fs.ErrNotExist) {
		if err := files.Write(s.former(), data); err != nil {
			return err
		}
	}
	return os.WriteFile(s.file(), []byte(strconv.Itoa(s.least)), 0)
}

// restore puts the recorded value back, unless someone else has changed the setting meanwhile.
func (s sysctl) restore() error {
	former, err := os.ReadFile(s.former())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	present, err := os.ReadFile(s.file())
	if err != nil {
		return err
	}
	if string(bytes.TrimSpace(present)) == strconv.Itoa(s.least) {
		if err := os.WriteFile(s.file(), former, 0); err != nil {
			return err
		}
	}
	return os.Remove(s.former())
}

// holdSysctls raises the settings for a holder. It may be repeated.
func holdSysctls(ctx context.Context, holder string) error {
	if err := os.MkdirAll(holdersDir, 0o700); err != nil {
		return err
	}
	return withSysctls(ctx, func() error {
		// Its directories may have gone with the last holder, before the lock was ours.
		err := errors.Join(os.MkdirAll(holdersDir, 0o700), os.WriteFile(filepath.Join(holdersDir, holder), nil, 0o600))
		for _, s := range sysctls {
			err = errors.Join(err, s.raise())
		}
		return err
	})
}

// releaseSysctls restores the settings when no other holder needs them.
func releaseSysctls(ctx context.Context, holder string) error {
	if _, err := os.Stat(holdersDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return withSysctls(ctx, func() error {
		if err := os.Remove(filepath.Join(holdersDir, holder)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if others, err := os.ReadDir(holdersDir); err != nil || len(others) > 0 {
			return err
		}
		var err error
		for _, s := range sysctls {
			err = errors.Join(err, s.restore())
		}
		if err != nil {
			return err
		}
		return errors.Join(os.Remove(holdersDir), os.Remove(sysctlDir))
	})
}

func withSysctls(ctx context.Context, do func() error) error {
	lock, err := files.Acquire(ctx, sysctlLock, nil)
	if err != nil {
		return err
	}
	err = do()
	if _, gone := os.Stat(sysctlDir); errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, lock.Remove())
		_ = os.Remove(runDir) // it may hold more than ours
	} else {
		lock.Release()
	}
	if err != nil {
		return fmt.Errorf("cannot change settings of the host's kernel: %w", err)
	}
	return nil
}
