package aptcache

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
)

// fetch is one file that is being fetched, and what its readers share.
type fetch struct {
	mu sync.Mutex
	// changed is closed and replaced at each step.
	changed chan struct{}
	// file is what is written; length is what upstream announced, or -1; size is what there is of it.
	file         *os.File
	length, size int64
	readers      int
	done         bool
	err          error
}

func newFetch() *fetch { return &fetch{changed: make(chan struct{}), length: -1} }

// step changes the state under the lock and wakes the readers.
func (f *fetch) step(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// begin says where the bytes are. The file is opened once more, so that it can be read even when it was renamed or removed.
func (f *fetch) begin(path string, length int64) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	f.step(func() { f.file, f.length = file, length })
	return nil
}

func (f *fetch) advance(n int) { f.step(func() { f.size += int64(n) }) }

func (f *fetch) finish(err error) {
	f.step(func() { f.done, f.err = true, err; f.release() })
}

func (f *fetch) join() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers++
}

func (f *fetch) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers--
	f.release()
}

// release closes the file after the last reader. The caller has the lock.
func (f *fetch) release() {
	if f.done && f.readers == 0 && f.file != nil {
		_ = f.file.Close() // only read
		f.file = nil
	}
}

// state is a moment of a fetch.
type state struct {
	file         *os.File
	length, size int64
	done         bool
	err          error
	changed      <-chan struct{}
}

func (f *fetch) state() state {
	f.mu.Lock()
	defer f.mu.Unlock()
	return state{f.file, f.length, f.size, f.done, f.err, f.changed}
}

// copyTo answers a reader's request with the bytes as they arrive. A fetch that fails after the first byte breaks the connection,
// which apt takes for what it is.
func (f *fetch) copyTo(w http.ResponseWriter, r *http.Request) {
	var sent int64
	started := false
	for {
		s := f.state()
		if s.file != nil && !started && !(s.done && s.err != nil) {
			started = true
			w.Header().Set("Content-Type", "application/octet-stream")
			if s.length >= 0 {
				w.Header().Set("Content-Length", strconv.FormatInt(s.length, 10))
			}
			w.WriteHeader(http.StatusOK)
		}
		if started && s.size > sent {
			n, err := io.Copy(w, io.NewSectionReader(s.file, sent, s.size-sent))
			if err != nil {
				return // the client left
			}
			sent += n
		}
		if s.done {
			f.end(w, s.err, started)
			return
		}
		select {
		case <-s.changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (f *fetch) end(w http.ResponseWriter, err error, started bool) {
	switch {
	case err == nil:
	case started:
		panic(http.ErrAbortHandler) // net/http's way to break a connection in mid-answer
	default:
		if upstream, ok := errors.AsType[*statusError](err); ok {
			http.Error(w, err.Error(), upstream.status)
			return
		}
		http.Error(w, "upstream cannot be reached: "+reason(err), http.StatusBadGateway)
	}
}

// excess returns the names of the least recently used files beyond the bound.
func excess(files []fs.FileInfo, bound int64) []string {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	var names []string
	var total int64
	for _, f := range files {
		if total += f.Size(); total > bound {
			names = append(names, f.Name())
		}
	}
	return names
}
