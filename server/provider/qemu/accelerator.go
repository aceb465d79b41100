package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
)

// probeDeadline is what the distribution's kernel has to start with KVM. It takes a second or two.
const probeDeadline = 30 * time.Second

// likely is the accelerator, and whether that is certain: a host may offer KVM and then run no kernel with it. While the
// distribution's kernel, which proves it, is not there, KVM is only likely. What is certain is found once.
func (p *Provider) likely(ctx context.Context) (accelerator string, proven bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.accelerator != "" {
		return p.accelerator, true, nil
	}
	possible, why := kvmPossible(os.DirFS("/"))
	wish := p.config.Spec.GetAccelerator()
	switch {
	case wish == tcg, wish == "" && !possible:
		p.accelerator = tcg
	case !possible:
		return "", false, errs.New(errs.Unsupported, "this host cannot use kvm: %s", why).WithHint("leave out the provider's accelerator, to emulate")
	default:
		base, ok := p.builder.Ready()
		if !ok {
			return kvm, false, nil
		}
		err := probe(ctx, base.Kernel)
		switch {
		case ctx.Err() != nil:
			return "", false, ctx.Err()
		case err == nil:
			p.accelerator = kvm
		case wish == kvm:
			return "", false, errs.New(errs.Unsupported, "no kernel starts with kvm on this host: %w", err).WithHint("leave out the provider's accelerator, to emulate")
		default:
			p.log.WarnContext(ctx, "machines are emulated: no kernel starts with kvm", "error", err)
			p.accelerator = tcg
		}
	}
	return p.accelerator, true, nil
}

// kvmPossible reports whether the processor has virtualization and the kernel offers it, or why not.
func kvmPossible(root fs.FS) (possible bool, why string) {
	info, err := fs.ReadFile(root, "proc/cpuinfo")
	if err != nil {
		return false, err.Error()
	}
	if !hasFlag(string(info), "vmx") && !hasFlag(string(info), "svm") {
		return false, "its processor has neither vmx nor svm"
	}
	if _, err := fs.Stat(root, "dev/kvm"); err != nil {
		return false, "there is no /dev/kvm"
	}
	return true, ""
}

// hasFlag looks for a flag of the first processor (proc_cpuinfo(5)).
func hasFlag(cpuinfo, flag string) bool {
	for line := range strings.Lines(cpuinfo) {
		name, flags, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		for f := range strings.FieldsSeq(flags) {
			if f == flag {
				return true
			}
		}
		return false
	}
	return false
}

// probe starts the kernel with KVM and without a root file system. It panics then, and the machine ends.
func probe(ctx context.Context, kernel string) error {
	ctx, cancel := context.WithTimeout(ctx, probeDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35,usb=off", "-accel", kvm, "-cpu", "host", "-m", "256M", "-serial", "stdio",
		"-kernel", kernel, "-append", "console=ttyS0 panic=-1 root=/dev/none")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", errors.Join(err, ctx.Err()), bytes.TrimSpace(out[max(0, len(out)-300):]))
	}
	if !bytes.Contains(out, []byte("Kernel panic")) {
		return errors.New("the kernel did not come to its end")
	}
	return nil
}

// availableMiB is how much memory programs can still have (proc_meminfo(5), MemAvailable).
func availableMiB() (int64, error) {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	return parseAvailable(string(info))
}

func parseAvailable(meminfo string) (int64, error) {
	for line := range strings.Lines(meminfo) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib >> 10, err
		}
	}
	return 0, errors.New("cannot find MemAvailable in /proc/meminfo")
}
