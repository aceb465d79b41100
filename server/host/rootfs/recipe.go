package rootfs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
)

// Codename and Release of the one distribution that is built.
const (
	Codename = "bookworm"
	Release  = "12"
)

// Recipe is what a root file system is made from.
type Recipe struct {
	// Packages besides the essential ones.
	Packages []string
	// Files are written over the packages' own, by path without the first slash.
	Files map[string]string
	// Masked units would work against the owner of the machine, or have nothing to do in one.
	Masked []string
	// Enabled units that Debian leaves off.
	Enabled []string
	// Removed paths: keys that each machine must make for itself, and what no one reads.
	Removed []string
}

// Container is for machines that have the host's kernel.
func Container() Recipe {
	return Recipe{Packages: slices.Clone(packages), Files: maps.Clone(written), Masked: slices.Clone(masked), Enabled: slices.Clone(enabled), Removed: slices.Clone(removed)}
}

// RootDevice is where the kernel of a [VirtualMachine] looks for its root file system: a driver that is built into it.
const RootDevice = "/dev/nvme0n1"

// VirtualMachine is for machines that have a kernel of their own, which is [Kernel]. It needs no initial RAM disk.
func VirtualMachine() Recipe {
	r := Container()
	r.Packages = append(r.Packages, "linux-image-cloud-amd64", "kmod", "e2fsprogs", "cloud-guest-utils")
	// A file system grows with its disk at the first boot (systemd.mount(5), x-systemd.growfs).
	r.Files["etc/fstab"] = RootDevice + " / ext4 defaults,x-systemd.growfs 0 1\n"
	// Nobody can type on the console, which is a log.
	r.Masked = append(r.Masked, "serial-getty@ttyS0.service")
	return r
}

// Kernel returns the path of the newest kernel in the root file system of a [VirtualMachine].
func Kernel(dir string) (string, error) {
	kernels, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) == 0 {
		return "", errors.Join(err, errors.New("the root file system has no kernel"))
	}
	return slices.Max(kernels), nil
}

// Hash names the root file system made from the recipe and the sources: 16 hexadecimal digits.
func Hash(recipe Recipe, sources []Source) string {
	h := sha256.New()
	fmt.Fprintf(h, "1 %s %s %q %q %q %q %q %q\n", runtime.GOARCH, Codename,
		recipe.Packages, dpkgOptions, recipe.Masked, recipe.Enabled, recipe.Removed, render(sources))
	for _, name := range slices.Sorted(maps.Keys(recipe.Files)) {
		fmt.Fprintf(h, "%q %q\n", name, recipe.Files[name])
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// finish turns what mmdebstrap made into the machines' root file system.
func finish(dir string, recipe Recipe, sources []Source) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // nothing is written through it
	write := func(name, content string) error {
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		return root.WriteFile(name, []byte(content), 0o644)
	}
	for name, content := range recipe.Files {
		if err := write(name, content); err != nil {
			return fmt.Errorf("cannot write /%s: %w", name, err)
		}
	}
	if err := write("etc/apt/sources.list.d/debian.sources", render(sources)); err != nil {
		return err
	}
	for _, unit := range recipe.Masked {
		name := path.Join("etc/systemd/system", unit)
		err := root.Remove(name)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = root.Symlink("/dev/null", name)
		}
		if err != nil {
			return fmt.Errorf("cannot mask %s: %w", unit, err)
		}
	}
	for _, name := range recipe.Removed {
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
