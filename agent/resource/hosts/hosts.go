package hosts

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	kernelName = "/proc/sys/kernel/hostname"
	hostsPath  = "/etc/hosts"
	marker     = "# --- provisionr: lines below this one are yours and are kept ---"
	// maxHosts bounds what is read of /etc/hosts.
	maxHosts = 1 << 20
)

// New returns the resources for the host name and /etc/hosts.
func New(s *desired.State, h *host.Host) []converge.Resource {
	name := s.Machine.GetName()
	return []converge.Resource{
		&hostname{
			host: h, name: name,
			file: conffile.File{Path: "/etc/hostname", Content: []byte(name + "\n")},
		},
		&table{host: h, name: name, fqdn: s.Machine.GetFqdn(), address: s.Machine.GetAddress()},
	}
}

type hostname struct {
	host *host.Host
	name string
	file conffile.File
	seen conffile.Seen
}

func (r *hostname) Name() string { return "hosts/hostname" }

func (r *hostname) Check(context.Context) (converge.Diff, error) {
	text, err := conffile.Check(r.host, &r.file, &r.seen)
	if err != nil {
		return converge.Diff{}, err
	}
	now, err := conffile.Read(r.host, kernelName, 256)
	if err != nil {
		return converge.Diff{}, err
	}
	if got := string(bytes.TrimSpace(now)); got != r.name {
		text = textdiff.Join(text, "host name is "+got+", wanted "+r.name)
	}
	return converge.Diff{Text: text}, nil
}

func (r *hostname) Apply(context.Context) error {
	if err := conffile.Apply(r.host, &r.file); err != nil {
		return err
	}
	return r.setKernelName()
}

// setKernelName writes the kernel's name. In a container /proc/sys may be read-only while the call is allowed.
func (r *hostname) setKernelName() error {
	root, err := r.host.Open()
	if err != nil {
		return err
	}
	defer root.Close()
	err = root.WriteFile(strings.TrimPrefix(kernelName, "/"), []byte(r.name), 0o644)
	if err != nil && r.host.Root == "/" {
		err = unix.Sethostname([]byte(r.name))
	}
	if err != nil {
		return errs.New(errs.Internal, "cannot set the host name %s: %w", r.name, err)
	}
	return nil
}

type table struct {
	host                *host.Host
	name, fqdn, address string
}

func (r *table) Name() string { return "hosts/" + hostsPath }

func (r *table) Check(context.Context) (converge.Diff, error) {
	f, err := r.want()
	if err != nil {
		return converge.Diff{}, err
	}
	// What is wanted depends on what is there, so that nothing can be remembered between checks; the file is small.
	text, err := conffile.Check(r.host, f, &conffile.Seen{})
	return converge.Diff{Text: text}, err
}

func (r *table) Apply(context.Context) error {
	f, err := r.want()
	if err != nil {
		return err
	}
	return conffile.Apply(r.host, f)
}

func (r *table) want() (*conffile.File, error) {
	if _, err := netip.ParseAddr(r.address); err != nil {
		return nil, errs.New(errs.Invalid, "cannot write %s: the machine has no address yet", hostsPath)
	}
	now, err := conffile.Read(r.host, hostsPath, maxHosts)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &conffile.File{Path: hostsPath, Content: render(string(now), r.address, r.fqdn, r.name)}, nil
}

// render returns /etc/hosts as wanted, with the lines of the present one that are to be kept.
func render(now, address, fqdn, name string) []byte {
	var b strings.Builder
	b.WriteString("# Managed by provisionr-agent.\n127.0.0.1 localhost\n" + address + " " + fqdn + " " + name + "\n\n" +
		"::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n" + marker + "\n")
	for _, line := range foreign(now, address, fqdn, name) {
		b.WriteString(line + "\n")
	}
	return []byte(b.String())
}

// standard are the names that distributions write themselves.
var standard = []string{
	"localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback", "ip6-localnet", "ip6-mcastprefix",
	"ip6-allnodes", "ip6-allrouters", "ip6-allhosts",
}

// foreign returns the lines that are not ours: all below the marker, or, in a file that never was ours, all that map names
// that no distribution writes. Lines with the machine's own names or address or Debian's 127.0.1.1 are never among them.
func foreign(now, address, fqdn, name string) []string {
	_, below, ours := strings.Cut(now, marker+"\n")
	if !ours {
		below = now
	}
	var keep []string
	for line := range strings.Lines(below) {
		line = strings.TrimRight(line, " \t\r\n")
		mapping, _, _ := strings.Cut(line, "#")
		f := strings.Fields(mapping)
		switch {
		case len(f) == 0:
			if !ours {
				continue
			}
		case f[0] == "127.0.1.1", f[0] == address, slices.Contains(f[1:], fqdn), slices.Contains(f[1:], name):
			continue
		case !ours && !slices.ContainsFunc(f[1:], func(n string) bool { return !slices.Contains(standard, n) }):
			continue
		}
		keep = append(keep, line)
	}
	return keep
}
