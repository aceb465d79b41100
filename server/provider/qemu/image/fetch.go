package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/server/host/files"
)

// Source is a user's own image.
type Source struct {
	// URL by http or https, or an absolute path.
	URL string
	// SHA256 of the content in lower-case hexadecimal.
	SHA256 string
}

// Fetcher keeps users' images by their hash.
type Fetcher struct {
	// Dir is the cache directory; it is created.
	Dir string
	// Client downloads. Default: one that honours the proxies of the environment.
	Client *http.Client
	// MaxBytes bounds an image. Default: 64 GiB.
	MaxBytes int64
	// Progress gets a line now and then; nil discards them.
	Progress func(line string)
}

const (
	defaultMaxBytes = 64 << 30
	// idleTimeout bounds the wait for the next bytes of a download.
	idleTimeout = time.Minute
	// progressStep is how many bytes pass between two lines to Progress.
	progressStep = 64 << 20
)

// qcow2Magic begins every qcow2 file (QEMU, docs/interop/qcow2.txt).
const qcow2Magic = "QFI\xfb"

// Ensure returns the image, downloading and verifying it when needed. A download that was interrupted goes on where it
// stopped. What cannot be the image is errs.Invalid; what the next call may cure is errs.Unavailable.
func (f *Fetcher) Ensure(ctx context.Context, s Source) (Image, error) {
	path := filepath.Join(f.Dir, s.SHA256)
	if _, err := os.Stat(path); err == nil {
		return f.open(ctx, path)
	}
	if err := os.MkdirAll(f.Dir, 0o755); err != nil {
		return Image{}, err
	}
	lock, err := files.Acquire(ctx, path+".lock", func() { f.progress("waiting for another download of the image") })
	if err != nil {
		return Image{}, err
	}
	defer func() { _ = lock.Remove() }() // it holds nothing
	if _, err := os.Stat(path); err == nil {
		return f.open(ctx, path)
	}
	part := path + ".part"
	if err := f.fetch(ctx, s, part); err != nil {
		return Image{}, err
	}
	if _, err := f.open(ctx, part); err != nil {
		return Image{}, errors.Join(err, os.Remove(part))
	}
	if err := errors.Join(os.Rename(part, path), files.SyncDir(f.Dir)); err != nil {
		return Image{}, err
	}
	return f.open(ctx, path)
}

func (f *Fetcher) progress(line string) {
	if f.Progress != nil {
		f.Progress(line)
	}
}

// open reads an image's format from its first bytes: qemu-img would take a raw disk for whatever its first bytes claim,
// and they are the image's own.
func (f *Fetcher) open(ctx context.Context, path string) (Image, error) {
	file, err := os.Open(path)
	if err != nil {
		return Image{}, err
	}
	defer func() { _ = file.Close() }() // only read
	magic := make([]byte, len(qcow2Magic))
	if _, err := io.ReadFull(file, magic); err != nil {
		return Image{}, errs.New(errs.Invalid, "the image is empty")
	}
	format := "raw"
	if string(magic) == qcow2Magic {
		format = "qcow2"
	}
	return inspect(ctx, path, format)
}

// fetch fills part with the source's content and verifies it. What is wrong is removed, what is incomplete stays.
func (f *Fetcher) fetch(ctx context.Context, s Source, part string) error {
	out, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }() // synced below
	sum := sha256.New()
	have, err := io.Copy(sum, out)
	if err != nil {
		return err
	}
	in, begins, err := f.source(ctx, s, have)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	if begins == 0 && have > 0 {      // the server does not resume
		sum.Reset()
		if err := errors.Join(out.Truncate(0), seekStart(out)); err != nil {
			return err
		}
		have = 0
	}
	if err := f.copy(out, sum, in, have); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != s.SHA256 {
		return errors.Join(
			errs.New(errs.Invalid, "the image has the SHA-256 %s, not %s", got, s.SHA256).WithHint("has it been replaced by a newer one?"),
			os.Remove(part),
		)
	}
	return out.Sync()
}

func seekStart(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// copy appends what in has, within the bound.
func (f *Fetcher) copy(out io.Writer, sum hash.Hash, in io.Reader, have int64) error {
	limit := f.MaxBytes
	if limit == 0 {
		limit = defaultMaxBytes
	}
	for have <= limit {
		n, err := io.CopyN(io.MultiWriter(out, sum), in, min(progressStep, limit+1-have))
		have += n
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return errs.New(errs.Unavailable, "the download of the image was interrupted after %d bytes: %w", have, err)
		}
		f.progress(fmt.Sprintf("downloaded %d MiB of the image", have>>20))
	}
	return errs.New(errs.Invalid, "the image has more than %d bytes", limit)
}

// source opens the content from an offset on, or from its begin where that cannot be.
func (f *Fetcher) source(ctx context.Context, s Source, offset int64) (in io.ReadCloser, begins int64, err error) {
	if strings.HasPrefix(s.URL, "/") {
		file, err := os.Open(s.URL)
		if err != nil {
			return nil, 0, errs.New(errs.Invalid, "cannot open the image: %w", err)
		}
		return file, 0, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if err != nil {
		cancel(nil)
		return nil, 0, errs.New(errs.Invalid, "invalid URL of the image: %w", err)
	}
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	client := f.Client
	if client == nil {
		client = http.DefaultClient
	}
	watchdog := time.AfterFunc(idleTimeout, func() { cancel(errors.New("the server is silent")) })
	response, err := client.Do(request)
	if err != nil {
		watchdog.Stop()
		cancel(nil)
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // the URL may hold a password
		}
		return nil, 0, errs.New(errs.Unavailable, "cannot download the image: %w", err)
	}
	body := &watched{ReadCloser: response.Body, watchdog: watchdog, cancel: cancel}
	switch response.StatusCode {
	case http.StatusOK:
		return body, 0, nil
	case http.StatusPartialContent:
		var from int64
		if _, err := fmt.Sscanf(response.Header.Get("Content-Range"), "bytes %d-", &from); err == nil && from == offset {
			return body, offset, nil
		}
	case http.StatusRequestedRangeNotSatisfiable: // all of it is here: the hash decides
		return io.NopCloser(strings.NewReader("")), offset, body.Close()
	case http.StatusNotFound, http.StatusGone, http.StatusForbidden, http.StatusUnauthorized:
		return nil, 0, errors.Join(errs.New(errs.Invalid, "cannot download the image: the server answers %s", response.Status), body.Close())
	}
	return nil, 0, errors.Join(errs.New(errs.Unavailable, "cannot download the image: the server answers %s", response.Status), body.Close())
}

// watched ends a download whose bytes do not come any more.
type watched struct {
	io.ReadCloser
	watchdog *time.Timer
	cancel   context.CancelCauseFunc
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.watchdog.Reset(idleTimeout)
	return n, err
}

func (w *watched) Close() error {
	w.watchdog.Stop()
	w.cancel(nil)
	return w.ReadCloser.Close()
}
