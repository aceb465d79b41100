package simulated

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/agent"
	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// memory is what of a machine is not in its directory: by resource, the fingerprint of what was applied last.
type memory struct {
	host *host.Host

	mu   sync.Mutex
	done map[string][sha256.Size]byte
}

// resources are those of a real machine, of which only the ones that write files do what they do there.
func (m *memory) resources(s *desired.State, h *host.Host) []converge.Resource {
	list := agent.Resources(s, h)
	for n, r := range list {
		kind, _, _ := strings.Cut(r.Name(), "/")
		if kind == "file" || kind == "hosts" {
			continue
		}
		one := &remembered{memory: m, name: r.Name(), state: s, wanted: fingerprint(kind, s)}
		if ordered, ok := r.(converge.Ordered); ok {
			one.after = ordered.After()
		}
		list[n] = one
	}
	return list
}

// fingerprint changes when that part of the desired state does which resources of the kind are made from.
func fingerprint(kind string, s *desired.State) [sha256.Size]byte {
	part := &agentv1.PoolComponent{}
	switch kind {
	case "download":
		part.Downloads = s.Pool.GetDownloads()
	case "group":
		part.Groups = s.Pool.GetGroups()
	case "sshd":
		part.Ssh = s.Pool.GetSsh()
	case "sysctl":
		part.Sysctl = s.Pool.GetSysctl()
	case "module":
		part.Modules = s.Pool.GetModules()
	case "timezone":
		part.Timezone = s.Pool.GetTimezone()
	case "locale":
		part.Locale = s.Pool.GetLocale()
	case "swap":
		part.Swap = s.Pool.GetSwap()
	case "filesystem":
		part.Filesystems = s.Pool.GetFilesystems()
	case "network":
		part.Networking = s.Pool.GetNetworking()
	case "ospolicy":
		part.OsPolicy = s.Pool.GetOsPolicy()
	case "repository":
		part.Repositories = s.Pool.GetRepositories()
	case "package":
		part.Packages = s.Pool.GetPackages()
	case "user":
		part.Users = s.Pool.GetUsers()
	case "firewall":
		part.Firewall = s.Pool.GetFirewall()
	case "service":
		part.Services = s.Pool.GetServices()
	}
	// What cannot be encoded could not have been decoded.
	data, _ := proto.MarshalOptions{Deterministic: true}.Marshal(part)
	return sha256.Sum256(data)
}

// remembered is a resource that is as desired once it was applied.
type remembered struct {
	*memory
	name   string
	after  []string
	state  *desired.State
	wanted [sha256.Size]byte
}

func (r *remembered) Name() string { return r.name }

func (r *remembered) After() []string { return r.after }

func (r *remembered) Check(context.Context) (converge.Diff, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if got, ok := r.done[r.name]; ok && got == r.wanted {
		return converge.Diff{}, nil
	}
	return converge.Diff{Text: "simulated: " + r.name + " is to change"}, nil
}

func (r *remembered) Apply(context.Context) error {
	if kind, _, _ := strings.Cut(r.name, "/"); kind == "package" || kind == "user" {
		if err := accounts(r.host, r.state); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done[r.name] = r.wanted
	return nil
}

// accounts writes the databases of accounts, with those that packages and users of the pool bring, and the directories that
// packages bring for its files. All accounts have the numbers of this process, which may not be root.
func accounts(h *host.Host, s *desired.State) error {
	names := []string{"root"}
	for _, u := range s.Pool.GetUsers() {
		names = append(names, u.GetName())
	}
	for _, f := range s.Pool.GetFiles() {
		for _, name := range []string{f.GetOwner(), f.GetGroup()} {
			if name != "" {
				names = append(names, name)
			}
		}
		if err := h.MkdirAll(path.Dir(f.GetPath()), 0o755); err != nil {
			return err
		}
	}
	slices.Sort(names)
	var passwd, group strings.Builder
	for _, name := range slices.Compact(names) {
		fmt.Fprintf(&passwd, "%s:x:%d:%d::/:/bin/sh\n", name, os.Getuid(), os.Getgid())
		fmt.Fprintf(&group, "%s:x:%d:\n", name, os.Getgid())
	}
	if err := write(h, "/etc/passwd", passwd.String(), 0o644); err != nil {
		return err
	}
	return write(h, "/etc/group", group.String(), 0o644)
}
