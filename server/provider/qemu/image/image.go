package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/provisionr/provisionr/internal/errs"
)

// Image is a disk to boot from.
type Image struct {
	// Path of the disk, and its format: qcow2 or raw.
	Path, Format string
	// Size of the disk in bytes, as the machine sees it.
	Size int64
	// Kernel is the path of the kernel to boot; empty for an image that boots by itself, from its boot sector.
	Kernel string
	// Append is the kernel's command line.
	Append string
}

// toolsHint names the Debian packages of everything that is run.
const toolsHint = "apt-get install qemu-system-x86 qemu-utils xorriso e2fsprogs"

// Tools reports the first program that virtual machines need and that this host lacks.
func Tools() error {
	for _, name := range []string{"qemu-system-x86_64", "qemu-img", "xorriso", "mke2fs"} {
		if _, err := exec.LookPath(name); err != nil {
			return errs.New(errs.Unsupported, "cannot run virtual machines: %w", err).WithHint(toolsHint)
		}
	}
	return nil
}

// Run runs a program of [Tools] and returns what it prints.
func Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	program, err := exec.LookPath(name)
	if err != nil {
		return nil, errs.New(errs.Unsupported, "cannot run virtual machines: %w", err).WithHint(toolsHint)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", &stdout, &stderr
	// It dies with the server, or it would write into what the next one makes. That follows the thread which starts it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		text := bytes.TrimSpace(stderr.Bytes())
		return nil, fmt.Errorf("%s: %w: %s", name, err, text[max(0, len(text)-1000):])
	}
	return stdout.Bytes(), nil
}

// info is what `qemu-img info --output=json` says.
type info struct {
	VirtualSize int64           `json:"virtual-size"`
	Backing     string          `json:"backing-filename"`
	Format      json.RawMessage `json:"format-specific"`
}

// inspect reads a disk of a known format. It refuses one that refers to other files: they would be the host's.
func inspect(ctx context.Context, path, format string) (Image, error) {
	out, err := Run(ctx, "qemu-img", "info", "--output=json", "-f", format, path)
	if err != nil {
		return Image{}, err
	}
	var i info
	if err := json.Unmarshal(out, &i); err != nil {
		return Image{}, fmt.Errorf("cannot read what qemu-img says of %s: %w", path, err)
	}
	if i.Backing != "" || bytes.Contains(i.Format, []byte(`"data-file"`)) {
		return Image{}, errs.New(errs.Invalid, "the image refers to another file").WithHint("convert it: qemu-img convert -O qcow2 OLD NEW")
	}
	if i.VirtualSize <= 0 {
		return Image{}, errs.New(errs.Invalid, "the image is empty")
	}
	return Image{Path: path, Format: format, Size: i.VirtualSize}, nil
}
