package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/internal/errs"
)

const (
	// cachedEntries is how many of the newest entries are kept in memory for followers and readers.
	cachedEntries = 512
	// keptSnapshots is how many snapshots are kept.
	keptSnapshots = 2

	// lockTimeout is how long another process may keep the files.
	lockTimeout = time.Second

	logFile, votesFile, restoreMark = "log.db", "votes.db", "restore.pending"
)

// storage is the data directory, opened.
type storage struct {
	logs      *guardedLog
	cache     raft.LogStore
	votes     raft.StableStore
	snapshots *raft.FileSnapshotStore
	closers   []io.Closer
}

func (s *storage) Close() error {
	var err error
	for _, c := range s.closers {
		err = errors.Join(err, c.Close())
	}
	return err
}

// openStorage opens and checks the data directory.
func openStorage(dir string, minFree int64, log hclog.Logger) (_ *storage, err error) {
	s := &storage{}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, diskError("make the data directory", err)
	}
	if _, err := os.Stat(filepath.Join(dir, restoreMark)); err == nil {
		return nil, errInterrupted(dir)
	}
	free, err := freeBytes(dir)
	if err != nil {
		return nil, diskError("look at the data directory", err)
	}
	if free < uint64(minFree) {
		return nil, errDiskFull(dir, free)
	}
	votes, err := openVotes(filepath.Join(dir, votesFile))
	if err != nil {
		return nil, err
	}
	s.votes, s.closers = votes, append(s.closers, votes)
	entries, err := openBolt("open the Raft log", filepath.Join(dir, logFile))
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, entries)
	s.logs = &guardedLog{BoltStore: entries, dir: dir, minFree: uint64(minFree)}
	if s.cache, err = raft.NewLogCache(cachedEntries, s.logs); err != nil {
		return nil, errs.New(errs.Internal, "cannot open the Raft log: %w", err)
	}
	if s.snapshots, err = raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, log); err != nil {
		return nil, diskError("open the snapshots", err)
	}
	return s, s.check(dir)
}

// openBolt opens a bolt file.
func openBolt(what, path string) (*raftboltdb.BoltStore, error) {
	var store *raftboltdb.BoltStore
	err := guarded(what, path, func() error {
		var err error
		store, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{Timeout: lockTimeout}})
		return err
	})
	return store, err
}

func openVotes(path string) (*raftboltdb.BoltStore, error) {
	_, statErr := os.Stat(path)
	votes, err := openBolt("open the Raft votes", path)
	if err != nil || statErr == nil {
		return votes, err
	}
	// Raft panics where it cannot write a vote. Pages that were written once are reused, also on a full disk.
	reserve := []byte("reserve")
	if err := votes.Set(reserve, make([]byte, 256<<10)); err != nil {
		return nil, errors.Join(diskError("write the Raft votes", err), votes.Close())
	}
	if err := votes.Set(reserve, nil); err != nil {
		return nil, errors.Join(diskError("write the Raft votes", err), votes.Close())
	}
	return votes, nil
}

// markRestore leaves a durable mark that a restore has begun.
func markRestore(dir string) error {
	mark, err := os.OpenFile(filepath.Join(dir, restoreMark), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(mark.Sync(), mark.Close(), syncDir(dir))
}

func unmarkRestore(dir string) error {
	return errors.Join(os.Remove(filepath.Join(dir, restoreMark)), syncDir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// guarded turns what opening damaged files does, panics included, into an error with a remedy.
func guarded(what, path string, open func() error) (err error) {
	// A file that is shorter than it says faults in its memory map.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = damaged(what, path, fmt.Errorf("%v", r))
		}
	}()
	err = open()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bbolt.ErrTimeout):
		return errs.New(errs.Conflict, "cannot %s: another process uses %s", what, path).
			WithHint("stop the other server, or give this one a data directory of its own")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, os.ErrPermission):
		return diskError(what, err)
	}
	return damaged(what, path, err)
}

func damaged(what, path string, err error) *errs.Error {
	return errs.New(errs.Internal, "cannot %s: %s is damaged: %w", what, path, err).
		WithHint("where other members are well, remove this one from the cluster, delete its data directory and let it join again; else restore a saved snapshot into a new data directory")
}

func diskError(what string, err error) *errs.Error {
	if errors.Is(err, syscall.ENOSPC) {
		return errs.New(errs.Exhausted, "cannot %s: %w", what, err).WithHint("free space on the disk of the data directory")
	}
	return errs.New(errs.Unavailable, "cannot %s: %w", what, err).WithHint("check the disk and the permissions of the data directory")
}

func errDiskFull(dir string, free uint64) *errs.Error {
	return errs.New(errs.Exhausted, "the disk of the data directory %s is full: %d KiB are left: %w", dir, free>>10, syscall.ENOSPC).
		WithHint("free space on that disk; nothing was lost")
}

func freeBytes(dir string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return fs.Bavail * uint64(fs.Bsize), nil
}

// guardedLog refuses entries while the disk is nearly full, so that what must be written on the way down still can be.
type guardedLog struct {
	*raftboltdb.BoltStore
	dir     string
	minFree uint64
	// failed is why the last write failed; nil after one that succeeded.
	failed atomic.Pointer[errs.Error]
}

func (l *guardedLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

func (l *guardedLog) StoreLogs(entries []*raft.Log) error {
	if full := l.full(); full != nil {
		l.failed.Store(full)
		return full
	}
	if err := l.BoltStore.StoreLogs(entries); err != nil {
		failed := diskError("write the Raft log", err)
		l.failed.Store(failed)
		return failed
	}
	if l.failed.Load() != nil {
		l.failed.Store(nil)
	}
	return nil
}

// full returns why entries are refused now, or nil.
func (l *guardedLog) full() *errs.Error {
	free, err := freeBytes(l.dir)
	if err != nil || free >= l.minFree {
		return nil
	}
	return errDiskFull(l.dir, free)
}

// seal returns the checksum that a log entry carries.
func seal(data []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
}

// intact reports whether an entry is as it was proposed. Entries of Raft itself carry no checksum.
func intact(entry *raft.Log) bool {
	return entry.Type != raft.LogCommand || string(entry.Extensions) == string(seal(entry.Data))
}
