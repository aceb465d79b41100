package filesystem

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	// mkfsTimeout bounds mkfs: large disks on slow storage take minutes.
	mkfsTimeout = 15 * time.Minute
	// tableTimeout bounds what has the kernel read a partition table.
	tableTimeout = time.Minute
	// nodeTimeout bounds the wait for a partition's device file; nodeEvery is between two looks.
	nodeTimeout = 15 * time.Second
	nodeEvery   = 100 * time.Millisecond
	// linuxData is the type of a partition with a Linux file system (discoverable partitions specification).
	linuxData = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
)

// make makes the file system, and the partition table where one is wanted. That it begins is noted first.
func (f *filesystem) make(ctx context.Context, p *plan) error {
	if p.uuid == "" {
		p.uuid = newUUID(f.kind)
	}
	if err := f.records.put(f.want.Path, record{Disk: p.identity, UUID: p.uuid}); err != nil {
		return err
	}
	if p.partition {
		if err := f.partition(ctx, p); err != nil {
			return errs.New(errs.Internal, "cannot partition /dev/%s for %s: %w", p.device, f.want.Path, err)
		}
	}
	if _, err := command.Run(ctx, f.host, mkfs(f.kind, f.label, p.uuid, "/dev/"+p.device)); err != nil {
		return errs.New(errs.Internal, "cannot make file system %s: %w", f.want.Path, err)
	}
	on, err := f.probe(p.device)
	if err != nil {
		return err
	}
	if on.Type != f.kind || on.UUID != p.uuid {
		return errs.New(errs.Internal, "cannot make file system %s: afterwards there is %s on /dev/%s", f.want.Path, on, p.device)
	}
	return f.records.put(f.want.Path, record{Disk: p.identity, UUID: p.uuid, Made: true})
}

// mkfs returns the command that makes a file system. Each is told to do it without asking: we have looked ourselves.
func mkfs(kind, label, uuid, device string) host.Command {
	c := host.Command{Path: "mkfs." + kind, Timeout: mkfsTimeout}
	switch kind {
	case "xfs":
		c.Args = []string{"-q", "-f", "-L", label, "-m", "uuid=" + uuid, device}
	case "vfat":
		// I allows a whole disk without a partition table.
		c.Args = []string{"-I", "-n", label, "-i", strings.ReplaceAll(uuid, "-", ""), device}
	default:
		c.Args = []string{"-q", "-F", "-L", label, "-U", uuid, device}
	}
	return c
}

// newUUID returns a random UUID of version 4 (RFC 9562), or the number of a FAT volume.
func newUUID(kind string) string {
	b := make([]byte, 16)
	// crypto/rand never fails.
	_, _ = rand.Read(b)
	if kind == "vfat" {
		return serial(b)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	x := hex.EncodeToString(b)
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

// partition makes a partition table with one partition over all of the disk, and waits for the partition's device.
func (f *filesystem) partition(ctx context.Context, p *plan) error {
	_, err := command.Run(ctx, f.host, host.Command{
		Path: "sfdisk", Args: []string{"--quiet", "--label", "gpt", "/dev/" + p.device}, Stdin: strings.NewReader("type=" + linuxData + "\n"), Timeout: tableTimeout,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	tick := time.NewTicker(nodeEvery)
	defer tick.Stop()
	for {
		parts, err := partitions(f.host, p.device)
		if err != nil {
			return err
		}
		if len(parts) == 1 {
			if _, err := f.probe(parts[0]); err == nil {
				p.device = parts[0]
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("its partition did not appear within %s", nodeTimeout)
		case <-tick.C:
		}
	}
}
