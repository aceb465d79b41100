package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/provisionr/provisionr/server/host/archive"
	"github.com/provisionr/provisionr/server/host/files"
	"github.com/provisionr/provisionr/server/host/rootfs"
)

// Builder builds the image of the distribution's packages.
type Builder struct {
	// Dir is the cache directory; it is created.
	Dir     string
	Archive *archive.Archive
}

const (
	// diskSize of a built image in bytes. Overlays are this large or larger; their file system grows at the first boot.
	diskSize = 3 << 30
	// kernelArgs keeps the name of the network interface, reboots after a panic, and says on the console what goes wrong.
	kernelArgs  = "root=" + rootfs.RootDevice + " rw console=ttyS0 net.ifnames=0 panic=10 quiet systemd.show_status=auto"
	buildPrefix = ".build-"
	// version of what build does with the root file system.
	version = "1"
)

// Name of the finished image, or of the one to build: it changes with all that it is made from.
func (b *Builder) Name() string {
	tree := b.Archive.Builder("/", rootfs.VirtualMachine()).Path()
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %s", version, tree, int64(diskSize), kernelArgs))
	return hex.EncodeToString(sum[:8])
}

func (b *Builder) image() Image {
	dir := filepath.Join(b.Dir, b.Name())
	return Image{
		Path: filepath.Join(dir, "disk.qcow2"), Format: "qcow2", Size: diskSize, Kernel: filepath.Join(dir, "vmlinuz"), Append: kernelArgs,
	}
}

// Ready returns the image if it is built.
func (b *Builder) Ready() (Image, bool) {
	i := b.image()
	_, err := os.Stat(i.Kernel)
	return i, err == nil
}

// Ensure returns the image and builds it when needed, which takes two to three minutes.
func (b *Builder) Ensure(ctx context.Context) (Image, error) {
	if i, ok := b.Ready(); ok {
		return i, nil
	}
	if err := Tools(); err != nil {
		return Image{}, err
	}
	if err := os.MkdirAll(b.Dir, 0o755); err != nil {
		return Image{}, err
	}
	lock, err := files.Acquire(ctx, filepath.Join(b.Dir, ".lock"), func() { b.Archive.Progress("waiting for another build of the image") })
	if err != nil {
		return Image{}, fmt.Errorf("cannot lock images: %w", err)
	}
	defer lock.Release()
	if i, ok := b.Ready(); ok { // the other build
		return i, nil
	}
	temp := filepath.Join(b.Dir, buildPrefix+b.Name())
	left, err := filepath.Glob(filepath.Join(b.Dir, buildPrefix+"*"))
	for _, dir := range left { // of interrupted builds
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err := errors.Join(err, os.Mkdir(temp, 0o755)); err != nil {
		return Image{}, err
	}
	if err := b.build(ctx, temp); err != nil {
		return Image{}, fmt.Errorf("cannot build image: %w", errors.Join(err, os.RemoveAll(temp)))
	}
	i := b.image()
	return i, errors.Join(os.Rename(temp, filepath.Dir(i.Path)), files.SyncDir(b.Dir))
}

// build makes disk and kernel in dir. The tree that they come from is not kept: a disk needs it no more.
func (b *Builder) build(ctx context.Context, dir string) error {
	trees := filepath.Join(b.Dir, "trees")
	tree, err := b.Archive.Build(ctx, trees, rootfs.VirtualMachine())
	if err != nil {
		return err
	}
	kernel, err := rootfs.Kernel(tree)
	if err != nil {
		return err
	}
	b.Archive.Progress("making the disk")
	raw, disk := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2")
	// Without a lazy inode table the first boot would write one in the background.
	if _, err := Run(ctx, "mke2fs", "-q", "-t", "ext4", "-L", "root", "-E", "root_owner=0:0", "-d", tree, raw, fmt.Sprint(diskSize>>10)+"k"); err != nil {
		return err
	}
	if _, err := Run(ctx, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk); err != nil {
		return err
	}
	if err := errors.Join(os.Remove(raw), copyFile(kernel, filepath.Join(dir, "vmlinuz")), syncFile(disk)); err != nil {
		return err
	}
	return errors.Join(files.SyncDir(dir), os.RemoveAll(trees))
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
