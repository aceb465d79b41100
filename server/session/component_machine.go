package session

import (
	"encoding/base64"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strings"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

// purposeSSH marks the authorities that sign SSH certificates; their certificate is a public key in the format of RFC 4253
// section 6.6.
const purposeSSH = "ssh"

func (v *view) machine(m *provisionrv1.Machine, pool *provisionrv1.Pool) *agentv1.MachineComponent {
	spec := m.GetSpec()
	network := v.s.Network(spec.GetNetwork()).GetSpec()
	c := &agentv1.MachineComponent{
		MachineId: m.GetMetadata().GetName(), Name: spec.GetSlot(), Fqdn: spec.GetFqdn(), Index: spec.GetIndex(), Pool: spec.GetPool(),
		Cidr:       network.GetCidr(),
		NtpServers: pool.GetSpec().GetNtp().GetServers(), NtpPools: pool.GetSpec().GetNtp().GetPools(),
		HttpProxy: network.GetHttpProxy(), ProxyEnvironment: network.GetProxyEnvironment(), NoProxy: network.GetNoProxy(),
		PackageMirrors: maps.Clone(network.GetPackageMirrors()),
		DnsServers:     v.dnsServers(spec.GetNetwork()),
		Zones:          v.origins,
		Os:             &agentv1.OperatingSystem{Distribution: spec.GetOs().GetDistribution(), Release: spec.GetOs().GetRelease()},
		SshAuthorities: v.authorities,
		ServerRanges:   v.serverRanges(spec.GetNetwork()),
		SharedKernel:   v.s.Provider(spec.GetProvider()).GetSpec().GetLocal() != nil,
		Vpn:            v.vpnMember(m, pool),
	}
	_, c.Domain, _ = strings.Cut(c.Fqdn, ".")
	if len(c.NtpServers) == 0 && len(c.NtpPools) == 0 {
		c.NtpServers = network.GetNtpServers()
	}
	if addrs := dnszone.Addresses(v.s, m); len(addrs) > 0 {
		c.Address = addrs[0].String()
	}
	return c
}

// sshAuthorities returns the keys that sign user and host certificates, in the form of authorized_keys(5), by id.
func sshAuthorities(s *state.Snapshot) []string {
	var keys []string
	for a := range s.Authorities() {
		if a.GetPurpose() != purposeSSH || a.GetState() == "retired" {
			continue
		}
		if algorithm, ok := sshAlgorithm(a.GetCertificate()); ok {
			keys = append(keys, algorithm+" "+base64.StdEncoding.EncodeToString(a.GetCertificate()))
		}
	}
	return keys
}

// sshAlgorithm reads the string that a public key of SSH begins with (RFC 4251 section 5).
func sshAlgorithm(wire []byte) (string, bool) {
	if len(wire) < 4 {
		return "", false
	}
	n := binary.BigEndian.Uint32(wire)
	if n == 0 || uint64(n) > uint64(len(wire)-4) {
		return "", false
	}
	return string(wire[4 : 4+n]), true
}

// serverRanges returns where the connections of members come from, as far as their records tell it, for machines of a
// network: what they are called there, and the addresses that agents and other members reach them at.
func (v *view) serverRanges(network string) []string {
	if known, ok := v.ranges[network]; ok {
		return known
	}
	var found []netip.Prefix
	for m := range v.s.Members() {
		for _, host := range []string{m.GetNetworkHosts()[network], hostOf(m.GetAgentAddress()), hostOf(m.GetRaftAddress()), hostOf(m.GetApiAddress())} {
			if addr, err := netip.ParseAddr(host); err == nil && !addr.IsUnspecified() && !addr.IsLoopback() && addr.Zone() == "" {
				found = append(found, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
			}
		}
	}
	slices.SortFunc(found, netip.Prefix.Compare)
	var ranges []string
	for _, p := range slices.Compact(found) {
		ranges = append(ranges, p.String())
	}
	v.ranges[network] = ranges
	return ranges
}
