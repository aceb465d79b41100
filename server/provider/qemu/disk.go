package qemu

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"github.com/provisionr/provisionr/server/provider/qemu/image"
)

// uuid is the machine's for ever (RFC 9562, version 8).
func uuid(id string) string {
	sum := sha256.Sum256([]byte("uuid:" + id))
	u := sum[:16]
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// makeDisks makes the overlay on the base image and the further disks, sizes in bytes.
func makeDisks(ctx context.Context, dir string, base image.Image, size int64, further []int64) error {
	if err := create(ctx, filepath.Join(dir, rootDisk), max(size, base.Size), "-b", base.Path, "-F", base.Format); err != nil {
		return err
	}
	for n, size := range further {
		if err := create(ctx, filepath.Join(dir, dataDisk(n)), size); err != nil {
			return err
		}
	}
	return nil
}

// create makes an image, under a name of its own at first: a server that was killed may have left a qemu-img that holds the
// image it was making.
func create(ctx context.Context, file string, size int64, options ...string) error {
	temp := file + "." + rand.Text()
	args := append([]string{"create", "-q", "-f", "qcow2"}, options...)
	if _, err := image.Run(ctx, "qemu-img", append(args, temp, fmt.Sprint(size))...); err != nil {
		return err
	}
	return os.Rename(temp, file)
}

// makeSeed makes the disc that cloud-init's NoCloud data source looks for: an ISO 9660 volume labelled CIDATA.
func makeSeed(ctx context.Context, dir string, seed map[string][]byte) error {
	temp := filepath.Join(dir, "seed")
	if err := os.Mkdir(temp, 0o700); err != nil {
		return err
	}
	for name, data := range seed {
		if err := os.WriteFile(filepath.Join(temp, name), data, 0o600); err != nil {
			return err
		}
	}
	file := filepath.Join(dir, seedFile)
	if _, err := image.Run(ctx, "xorriso", "-as", "mkisofs", "-quiet", "-o", file, "-V", "CIDATA", "-J", "-R", temp); err != nil {
		return err
	}
	// NVMe reads whole blocks of 4096 bytes, and a disc may end within one.
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if err := os.Truncate(file, (info.Size()+4095)&^4095); err != nil {
		return err
	}
	return os.RemoveAll(temp)
}
