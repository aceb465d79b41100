package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/cgroup"
	"github.com/provisionr/provisionr/server/host/files"
	"github.com/provisionr/provisionr/server/host/process"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/qemu/image"
)

// startTimeout bounds the making of one machine, which takes about half a second.
const startTimeout = time.Minute

// List implements provider.Provider: what has a directory.
func (p *Provider) List(ctx context.Context) iter.Seq2[provider.Instance, error] {
	return p.machines.List(ctx, func(id string) (provider.Instance, error) { return p.instance(ctx, id) })
}

// Launch implements provider.Provider. It builds or downloads the image when it is not there, which takes minutes.
func (p *Provider) Launch(ctx context.Context, launch provider.LaunchRequest) (provider.Instance, error) {
	order, err := p.validate(launch)
	if err != nil {
		return provider.Instance{}, err
	}
	id := launch.Request.GetMachineId()
	fail := func(err error) (provider.Instance, error) {
		return provider.Instance{}, host.Unknown("cannot launch machine "+id+": %w", err)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	if order.image, err = p.ensureImage(ctx, launch.Request.GetImage()); err != nil {
		return fail(err)
	}
	if order.accelerator == "" {
		if order.accelerator, _, err = p.likely(ctx); err != nil {
			return fail(err)
		}
	}
	lock, err := p.machines.Lock(ctx, id)
	if err != nil {
		return fail(err)
	}
	defer lock.Release()
	if err := p.machines.CheckBuried(id); err != nil {
		return fail(err)
	}
	known, err := p.resume(ctx, id)
	switch {
	case err == nil && known:
		instance, err := p.instance(ctx, id)
		if err != nil {
			return fail(err)
		}
		return instance, nil
	case err != nil:
		return fail(err)
	}
	// What an interrupted launch left is removed: it has not run.
	if err := p.destroy(ctx, id); err != nil {
		return fail(err)
	}
	if err := order.fits(); err != nil {
		return provider.Instance{}, err
	}
	// A caller that gives up must not leave a half: making a machine is short.
	making, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	if err := p.start(making, launch, order); err != nil {
		return fail(errors.Join(err, p.destroy(context.WithoutCancel(ctx), id)))
	}
	p.log.InfoContext(ctx, "machine started", "machine", id, "slot", launch.Request.GetSlot(), "address", launch.Request.GetAddress(), "accelerator", order.accelerator)
	instance, err := p.instance(ctx, id)
	if err != nil {
		return fail(err)
	}
	return instance, nil
}

// resume finishes a launch that was interrupted after the machine was recorded. It reports whether there is a machine.
func (p *Provider) resume(ctx context.Context, id string) (bool, error) {
	request, err := p.machines.Request(id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && request == nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	at, err := p.stage(id)
	if err != nil || at != paused {
		return at != absent, err
	}
	return true, p.release(ctx, id)
}

// release lets a recorded machine run, and marks it. Both may be repeated.
func (p *Provider) release(ctx context.Context, id string) error {
	dir := p.machines.Path(id)
	_, err := ask(ctx, dir, func(m *monitor) (struct{}, error) { return struct{}{}, m.execute("cont", nil) })
	if err != nil {
		return err
	}
	var r record
	path := filepath.Join(dir, recordFile)
	if err := files.ReadJSON(path, &r); err != nil {
		return err
	}
	r.Started = true
	return files.WriteJSON(path, r)
}

// start makes a machine of which nothing is there.
func (p *Provider) start(ctx context.Context, launch provider.LaunchRequest, o *order) error {
	id := launch.Request.GetMachineId()
	if err := p.machines.Commit(launch.Request); err != nil {
		return err
	}
	dir := p.machines.Path(id)
	group, err := p.group(id)
	if err != nil {
		return err
	}
	if err := group.Create(cgroup.Limits{}); err != nil {
		return err
	}
	if err := makeDisks(ctx, dir, o.image, o.disk, o.further); err != nil {
		return err
	}
	seed, err := host.Seed(launch.Request, launch.UserData, o.address, o.network.Gateway, host.HardwareAddress(id))
	if err != nil {
		return err
	}
	if err := makeSeed(ctx, dir, seed); err != nil {
		return err
	}
	link := p.linkName(id)
	if err := p.networks.AddTap(link, o.network); err != nil {
		return err
	}
	err = spawn(ctx, group, machine{
		id: id, name: launch.Request.GetSlot(), dir: dir, accelerator: o.accelerator, cpus: o.cpus, memoryMiB: o.memoryMiB,
		image: o.image, disks: len(o.further), link: link,
	})
	if err != nil {
		return err
	}
	return p.release(ctx, id)
}

// spawn runs QEMU in the cgroup until it is in the background, and records it.
func spawn(ctx context.Context, group cgroup.Group, m machine) error {
	dir, err := os.Open(group.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // only read
	var out bytes.Buffer
	// Once it is another user, no program that it may execute makes it root again (setpriv(1), of the essential util-linux).
	cmd := exec.CommandContext(ctx, "setpriv", append([]string{"--no-new-privs", "--", "qemu-system-x86_64"}, m.arguments()...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = m.dir, &out, &out
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	// A session of its own: no signal of the server's terminal reaches the machine.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		text := bytes.TrimSpace(out.Bytes())
		return fmt.Errorf("qemu: %w: %s", errors.Join(err, ctx.Err()), text[max(0, len(text)-1000):])
	}
	text, err := os.ReadFile(filepath.Join(m.dir, pidFile))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("cannot read the pid of QEMU: %w", err)
	}
	found, err := process.Find(pid)
	if err != nil {
		return err
	}
	if alive, err := found.Alive(group.Dir); err != nil || !alive {
		return errors.Join(errors.New("QEMU is not in the machine's cgroup"), err)
	}
	return files.WriteJSON(filepath.Join(m.dir, recordFile), record{Process: found})
}

// order is a launch request, validated.
type order struct {
	placed
	image           image.Image
	accelerator     string
	cpus, memoryMiB uint32
	// disk is the size of the root disk in bytes, 0 for the image's own; further are those of further disks.
	disk    int64
	further []int64
}
