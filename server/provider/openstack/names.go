package openstack

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// The keys under which everything that is made carries what it is for.
const (
	keyCluster = "provisionr-cluster"
	keyMachine = "provisionr-machine"
	keyPool    = "provisionr-pool"
	keySlot    = "provisionr-slot"
)

// portPrefix begins the names of ports; the rest is the machine's id.
const portPrefix = "pv-"

// maxTag is how long a tag may be (compute API reference, "Server tags"); metadata may have 255 characters.
const maxTag = 60

// tag is a key with a value. One that is too long has a hash instead, which finds it all the same.
func tag(key, value string) string {
	t := key + "=" + value
	if len(t) > maxTag || strings.ContainsAny(value, ",/") {
		sum := sha256.Sum256([]byte(value))
		t = key + "=" + hex.EncodeToString(sum[:])[:32]
	}
	return t
}

// ours is the description of the cluster's ports and groups: Neutron filters by it exactly, and takes it at creation.
func (p *Provider) ours() string { return keyCluster + "=" + p.cluster }

// oursFor is the description of what has no name to tell the machine by, as a floating IP.
func (p *Provider) oursFor(machineID string) string {
	return p.ours() + " " + keyMachine + "=" + machineID
}

// machineOf reads what oursFor has written.
func (p *Provider) machineOf(description string) (string, bool) {
	return strings.CutPrefix(description, p.oursFor(""))
}

// unfit matches what Nova does not allow in the keys of metadata.
var unfit = regexp.MustCompile(`[^a-zA-Z0-9\-_:. ]`)

// metadata is what a server carries: the pool's labels and, stronger, our own keys.
func (p *Provider) metadata(r *provisionrv1.LaunchRequest) map[string]string {
	m := map[string]string{}
	for k, v := range r.GetLabels() {
		m[unfit.ReplaceAllString(k, "_")] = v
	}
	m[keyCluster], m[keyMachine], m[keyPool], m[keySlot], m["Name"] = p.cluster, r.GetMachineId(), r.GetPool(), r.GetSlot(), r.GetSlot()
	return m
}

func (p *Provider) tags(r *provisionrv1.LaunchRequest) []string {
	return []string{tag(keyCluster, p.cluster), tag(keyMachine, r.GetMachineId()), tag(keyPool, r.GetPool()), tag(keySlot, r.GetSlot())}
}

// owns reports whether the server is one of this cluster's, and of the machine where one is named.
func (p *Provider) owns(s *servers.Server, machineID string) bool {
	return s.Metadata[keyCluster] == p.cluster && s.Metadata[keyMachine] != "" && (machineID == "" || s.Metadata[keyMachine] == machineID)
}

// claims returns the machine whose claim the port is.
func (p *Provider) claims(port *ports.Port) (machineID string, ok bool) {
	if port.Description != p.ours() {
		return "", false
	}
	return strings.CutPrefix(port.Name, portPrefix)
}

// stateOf follows the compute API guide, "Server concepts".
func stateOf(s *servers.Server) provider.State {
	switch s.Status {
	case "DELETED", "SOFT_DELETED":
		return provider.Gone
	case "BUILD", "REBUILD":
		if s.TaskState == "deleting" {
			return provider.Stopped
		}
		return provider.Starting
	case "ERROR", "SHUTOFF", "PAUSED", "SUSPENDED", "SHELVED", "SHELVED_OFFLOADED":
		return provider.Stopped
	}
	if s.TaskState == "deleting" {
		return provider.Stopped
	}
	// Also UNKNOWN, of a cell that does not answer: not knowing is not absence.
	return provider.Running
}

// instance is the server as reconcile sees it. The port's addresses are known earlier and more surely than the server's.
func instance(machineID string, s *servers.Server, port *ports.Port) provider.Instance {
	i := provider.Instance{MachineID: machineID, ProviderID: s.ID, State: stateOf(s)}
	var all []string
	if port != nil {
		for _, ip := range port.FixedIPs {
			all = append(all, ip.IPAddress)
		}
	} else {
		for _, list := range s.Addresses {
			entries, _ := list.([]any)
			for _, entry := range entries {
				fields, _ := entry.(map[string]any)
				if fields["OS-EXT-IPS:type"] == "floating" {
					continue
				}
				address, _ := fields["addr"].(string)
				all = append(all, address)
			}
		}
	}
	i.Address, i.Address6 = addresses(all)
	return i
}

// addresses returns the first IPv4 address and the first IPv6 one, or the IPv6 one alone.
func addresses(all []string) (first, second netip.Addr) {
	var v4, v6 netip.Addr
	for _, text := range all {
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil:
		case a.Is4():
			v4 = cmp.Or(v4, a)
		default:
			v6 = cmp.Or(v6, a)
		}
	}
	if !v4.IsValid() {
		return v6, netip.Addr{}
	}
	return v4, v6
}

func itoa(n int) string { return strconv.Itoa(n) }
