package facts

import (
	"encoding/base64"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/vpn"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// maxReason bounds what is told of a file.
const maxReason = 1 << 10

// maxKey bounds a public key: one of RSA with 16384 bits has 2.8 KiB.
const maxKey = 4 << 10

// Collect returns the facts of a machine. What cannot be found out is left empty.
func Collect(h *host.Host) *agentv1.Facts {
	f := &agentv1.Facts{Architecture: runtime.GOARCH, Cpus: uint32(runtime.NumCPU()), OsRelease: prettyName(h)}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		f.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	f.MemoryMib = memory(read(h, "/proc/meminfo"))
	f.SshHostKeys = hostKeys(h)
	if key, err := vpn.PublicKey(h); err == nil {
		f.VpnPublicKey = key
	}
	f.RebootRequired = rebootRequired(h)
	return f
}

func read(h *host.Host, name string) string {
	data, err := h.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(data)
}

// prettyName is PRETTY_NAME of os-release(5), which is at one of two places.
func prettyName(h *host.Host) string {
	content := read(h, "/etc/os-release")
	if content == "" {
		content = read(h, "/usr/lib/os-release")
	}
	for line := range strings.Lines(content) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return clip(strings.Trim(value, `"'`))
		}
	}
	return ""
}

// memory is MemTotal of proc_meminfo(5) in MiB.
func memory(content string) uint32 {
	for line := range strings.Lines(content) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "MemTotal:" {
			kib, _ := strconv.ParseUint(fields[1], 10, 42)
			return uint32(kib >> 10)
		}
	}
	return 0
}

// hostKeys are the public keys of sshd, without comments, sorted.
func hostKeys(h *host.Host) []string {
	root, err := h.Open()
	if err != nil {
		return nil
	}
	defer root.Close()
	const dir = "etc/ssh"
	entries, err := fs.ReadDir(root.FS(), dir)
	if err != nil {
		return nil
	}
	var keys []string
	for _, e := range entries {
		if ok, _ := path.Match("ssh_host_*_key.pub", e.Name()); !ok {
			continue
		}
		// A report that is not UTF-8 cannot be sent, and would be tried again for ever.
		if fields := strings.Fields(read(h, path.Join(dir, e.Name()))); len(fields) >= 2 && len(fields[0])+len(fields[1]) <= maxKey && utf8.ValidString(fields[0]) {
			if _, err := base64.StdEncoding.DecodeString(fields[1]); err == nil {
				keys = append(keys, fields[0]+" "+fields[1])
			}
		}
	}
	slices.Sort(keys)
	return keys
}

// rebootRequired says why the machine should boot again: Debian's packages leave a file for it, and one with their names.
func rebootRequired(h *host.Host) string {
	if _, err := h.ReadFile("/run/reboot-required"); err != nil {
		return ""
	}
	names := strings.Fields(read(h, "/run/reboot-required.pkgs"))
	slices.Sort(names)
	if names = slices.Compact(names); len(names) == 0 {
		return "the system says so"
	}
	return clip("updated: " + strings.Join(names, ", "))
}

func clip(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	return strings.ToValidUTF8(s, "?")
}
