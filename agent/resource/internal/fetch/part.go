package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
)

// part is a file that is being fetched. Beside it is the server's validator of it, with the URL: another server's bytes are
// resumed without one, as the hash tells in the end.
type part struct {
	client *Client
	root   *os.Root
	name   string
	file   *os.File
	sum    []byte
	max    int64
}

// from fetches what is missing from one URL. Bytes of different origin that do not fit together are fetched anew once.
func (p *part) from(ctx context.Context, u string) error {
	have, err := p.size()
	if err != nil {
		return err
	}
	if have > p.max {
		have = 0
	}
	err = p.resume(ctx, u, have)
	if have > 0 && errs.Is(err, errs.Denied) {
		err = p.resume(ctx, u, 0)
	}
	if errs.Is(err, errs.Denied) || errs.Is(err, errs.Exhausted) {
		err = errors.Join(err, p.file.Truncate(0))
	}
	return err
}

func (p *part) size() (int64, error) {
	info, err := p.file.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a regular file", info.Name())
	}
	return info.Size(), nil
}

func (p *part) resume(ctx context.Context, u string, have int64) error {
	if have > 0 {
		// All may be there: the agent may have died before it was used.
		if p.verify() == nil {
			return nil
		}
	}
	validator, err := p.validator(u)
	if err != nil {
		return err
	}
	err = p.client.transfer(ctx, u, have, validator, func(resp *http.Response) error {
		switch {
		case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && have > 0:
			return errs.New(errs.Denied, "the server has fewer bytes than were fetched")
		case resp.StatusCode == http.StatusPartialContent && have > 0 && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", have)):
		case resp.StatusCode == http.StatusOK:
			have = 0
		default:
			return status(resp)
		}
		if err := p.file.Truncate(have); err != nil {
			return err
		}
		if _, err := p.file.Seek(have, io.SeekStart); err != nil {
			return err
		}
		// A weak validator does not promise the same bytes (RFC 9110, section 13.1.5).
		tag := resp.Header.Get("ETag")
		if strings.HasPrefix(tag, "W/") || len(tag) > maxValidator {
			tag = ""
		}
		if err := p.root.WriteFile(p.name, []byte(u+"\n"+tag), 0o600); err != nil {
			return err
		}
		return limited(p.file, resp.Body, p.max-have)
	})
	if err != nil {
		return err
	}
	return p.verify()
}

// validator returns that of the file's bytes, if they are from u.
func (p *part) validator(u string) (string, error) {
	content, err := p.root.ReadFile(p.name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if from, tag, ok := strings.Cut(string(content), "\n"); ok && from == u {
		return tag, nil
	}
	return "", nil
}

func (p *part) verify() error {
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(h, p.file); err != nil {
		return err
	}
	if got := h.Sum(nil); !bytes.Equal(got, p.sum) {
		return mismatch(got, p.sum)
	}
	return nil
}
