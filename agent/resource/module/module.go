package module

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/sharedkernel"
	"github.com/provisionr/provisionr/agent/resource/internal/strays"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// loadDir is read at boot (modules-load.d(5)), probeDir by modprobe (modprobe.d(5)).
	loadDir  = "/etc/modules-load.d"
	probeDir = "/etc/modprobe.d"
	prefix   = "provisionr-"
	// timeout bounds modprobe: drivers look for their devices while they load.
	timeout = time.Minute
	// maxFile bounds what is read of /proc/modules and of the list of what is built in.
	maxFile = 4 << 20
)

// New returns one resource for each module of the pool, and one that removes files of those that are no longer listed.
func New(s *desired.State, h *host.Host) []converge.Resource {
	var list []converge.Resource
	listed := make(map[string]bool)
	for _, m := range s.Pool.GetModules() {
		if sharedkernel.Of(s) {
			list = append(list, sharedkernel.Refused("module/"+m.Name, "module "+m.Name))
			continue
		}
		list = append(list, newModule(m, h))
		listed[prefix+m.Name+".conf"] = true
	}
	return append(list, strays.New(h, "module/strays", "files of modules", listed,
		strays.Place{Dir: loadDir, Pattern: prefix + "*.conf"}, strays.Place{Dir: probeDir, Pattern: prefix + "*.conf"}))
}

func newModule(m *agentv1.KernelModule, h *host.Host) *module {
	load := conffile.File{Path: loadDir + "/" + prefix + m.Name + ".conf", Content: []byte(m.Name + "\n"), Absent: m.Absent}
	probe := conffile.File{Path: probeDir + "/" + prefix + m.Name + ".conf"}
	switch {
	case m.Absent:
		// The first keeps it from being loaded for a device that it serves, the second from being loaded by name.
		probe.Content = []byte("blacklist " + m.Name + "\ninstall " + m.Name + " /bin/false\n")
	case strings.TrimSpace(m.Options) != "":
		probe.Content = []byte("options " + m.Name + " " + strings.TrimSpace(m.Options) + "\n")
	default:
		probe.Absent = true
	}
	return &module{host: h, want: m, files: [2]conffile.File{load, probe}}
}

type module struct {
	host  *host.Host
	want  *agentv1.KernelModule
	files [2]conffile.File
	seen  [2]conffile.Seen
}

// Name implements converge.Resource.
func (m *module) Name() string { return "module/" + m.want.Name }

// After implements converge.Ordered: packages bring modules.
func (m *module) After() []string { return []string{"package"} }

// Triggers implements converge.Triggered.
func (m *module) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: m.files[0].Path}, {Kind: converge.OnFile, Name: m.files[1].Path}}
}

// Check implements converge.Resource.
func (m *module) Check(context.Context) (converge.Diff, error) {
	var diffs []string
	for i := range m.files {
		d, err := conffile.Check(m.host, &m.files[i], &m.seen[i])
		if err != nil {
			return converge.Diff{}, err
		}
		diffs = append(diffs, d)
	}
	now, err := m.state()
	if err != nil {
		return converge.Diff{}, err
	}
	switch {
	case m.want.Absent && now == idle:
		diffs = append(diffs, "is loaded and unused, wanted absent")
	case !m.want.Absent && now == unloaded:
		diffs = append(diffs, "is not loaded")
	}
	return converge.Diff{Text: textdiff.Join(diffs...)}, nil
}

// Apply implements converge.Resource.
func (m *module) Apply(ctx context.Context) error {
	for i := range m.files {
		if err := conffile.Apply(m.host, &m.files[i]); err != nil {
			return err
		}
	}
	now, err := m.state()
	if err != nil {
		return err
	}
	var args []string
	switch {
	case m.want.Absent && now == idle:
		args = []string{"-r", m.want.Name}
	case !m.want.Absent && now == unloaded:
		args = []string{m.want.Name}
	default:
		return nil
	}
	if _, err := command.Run(ctx, m.host, host.Command{Path: "modprobe", Args: args, Timeout: timeout}); err != nil {
		verb := "load"
		if m.want.Absent {
			verb = "unload"
		}
		return errs.New(errs.Unavailable, "cannot %s kernel module %s: %w", verb, m.want.Name, err).
			WithHint("see that the running kernel %s has the module, and dmesg on the machine", m.release())
	}
	return nil
}

// loading is what the kernel says of a module.
type loading int

const (
	unloaded loading = iota
	idle
	// inUse also stands for what is built in: it cannot be unloaded.
	inUse
)

func (m *module) state() (loading, error) {
	modules, err := conffile.Read(m.host, "/proc/modules", maxFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, errs.New(errs.Internal, "cannot read which modules are loaded: %w", err)
	}
	if now := find(modules, m.want.Name); now != unloaded {
		return now, nil
	}
	builtin, err := conffile.Read(m.host, "/lib/modules/"+m.release()+"/modules.builtin", maxFile)
	if err == nil && builtIn(builtin, m.want.Name) {
		return inUse, nil
	}
	// Not every image has the list; a module with parameters shows itself here, loaded or built in.
	if conffile.Exists(m.host, "/sys/module/"+underscored(m.want.Name)) {
		return inUse, nil
	}
	return unloaded, nil
}

// release is that of the running kernel, as uname -r has it.
func (m *module) release() string {
	b, err := conffile.Read(m.host, "/proc/sys/kernel/osrelease", 256)
	if err != nil {
		return "unknown"
	}
	return string(bytes.TrimSpace(b))
}

// find looks a module up in /proc/modules (proc_modules(5)): name, size, count of users, users, state, address.
func find(modules []byte, name string) loading {
	name = underscored(name)
	for line := range strings.Lines(string(modules)) {
		f := strings.Fields(line)
		if len(f) < 4 || f[0] != name {
			continue
		}
		if f[2] == "0" && f[3] == "-" {
			return idle
		}
		return inUse
	}
	return unloaded
}

// builtIn looks a module up in modules.builtin: a line for each as kernel/fs/ext4/ext4.ko.
func builtIn(list []byte, name string) bool {
	name = underscored(name)
	for line := range strings.Lines(string(list)) {
		if underscored(strings.TrimSuffix(path.Base(strings.TrimSpace(line)), ".ko")) == name {
			return true
		}
	}
	return false
}

// underscored is a module's name as the kernel writes it.
func underscored(name string) string { return strings.ReplaceAll(name, "-", "_") }
