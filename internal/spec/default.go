package spec

import (
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/tmpl"
)

const (
	// LocalName is the name of the built-in provider and of its network.
	LocalName = "local"

	defaultName = "default"
	defaultMode = "0644"
	programMode = "0755"
	secretMode  = "0600"
	root        = "root"
)

// Default fills, in place, every default that does not depend on other objects or on other fields that may change
// later. It is idempotent. minSize, safety.maxUnavailable and ntp.servers stay unset: they follow size and network.
func Default(o *provisionrv1.Object) {
	switch o := o.GetKind().(type) {
	case *provisionrv1.Object_Pool:
		p := o.Pool
		p.ApiVersion, p.Kind = or(p.ApiVersion, APIVersion), or(p.Kind, "Pool")
		if p.Spec != nil {
			defaultPool(p.Spec)
		}
	case *provisionrv1.Object_Zone:
		z := o.Zone
		z.ApiVersion, z.Kind = or(z.ApiVersion, APIVersion), or(z.Kind, "Zone")
		if z.Spec != nil {
			z.Spec.Ttl = or(z.Spec.Ttl, 30)
			for _, k := range z.Spec.GetTransfer().GetKeys() {
				k.Algorithm = or(k.Algorithm, "hmac-sha256")
			}
		}
	case *provisionrv1.Object_Network:
		n := o.Network
		n.ApiVersion, n.Kind = or(n.ApiVersion, APIVersion), or(n.Kind, "Network")
		if prefix, err := netip.ParsePrefix(n.GetSpec().GetCidr()); err == nil && n.Spec.Gateway == "" {
			n.Spec.Gateway = prefix.Masked().Addr().Next().String()
		}
	case *provisionrv1.Object_Provider:
		p := o.Provider
		p.ApiVersion, p.Kind = or(p.ApiVersion, APIVersion), or(p.Kind, "Provider")
	case *provisionrv1.Object_User:
		u := o.User
		u.ApiVersion, u.Kind = or(u.ApiVersion, APIVersion), or(u.Kind, "User")
	case *provisionrv1.Object_Vpn:
		v := o.Vpn
		v.ApiVersion, v.Kind = or(v.ApiVersion, APIVersion), or(v.Kind, "Vpn")
		if v.Spec != nil {
			v.Spec.Port, v.Spec.MeshLimit, v.Spec.Mtu = or(v.Spec.Port, 51820), or(v.Spec.MeshLimit, 64), or(v.Spec.Mtu, 1420)
		}
	case *provisionrv1.Object_VpnPeer:
		p := o.VpnPeer
		p.ApiVersion, p.Kind = or(p.ApiVersion, APIVersion), or(p.Kind, "VpnPeer")
	}
}

func defaultPool(s *provisionrv1.PoolSpec) {
	s.Provider, s.Zone = or(s.Provider, LocalName), or(s.Zone, defaultName)
	if s.Provider == LocalName {
		s.Network = or(s.Network, LocalName)
	}
	for _, f := range s.Files {
		if !f.Absent && f.Link == "" {
			f.Mode, f.Owner, f.Group = or(f.Mode, fileMode(f)), or(f.Owner, root), or(f.Group, root)
		}
	}
	for _, v := range s.Downloads {
		v.Mode, v.Owner, v.Group = or(v.Mode, programMode), or(v.Owner, root), or(v.Group, root)
	}
	for _, u := range s.Users {
		if !u.Absent {
			u.Shell = or(u.Shell, "/bin/bash")
		}
	}
	s.Ntp = orNew(s.Ntp)
	s.Ntp.MaxOffset = orDuration(s.Ntp.MaxOffset, 100*time.Millisecond)
	s.Firewall = orNew(s.Firewall)
	if len(s.Firewall.SshFrom) == 0 {
		s.Firewall.SshFrom = []string{"any"}
	}
	for _, r := range s.Firewall.Rules {
		r.Protocol = or(r.Protocol, "tcp")
	}
	for _, r := range s.Firewall.Egress {
		r.Protocol = or(r.Protocol, "tcp")
	}
	for _, e := range s.Endpoints {
		e.Protocol = or(e.Protocol, "tcp")
	}
	for _, v := range s.Services {
		v.State = or(v.State, "running")
		if v.Enabled == nil {
			v.Enabled = proto.Bool(v.State == "running")
		}
	}
	defaultSystem(s)
	s.Safety = orNew(s.Safety)
	s.Safety.SilentAfter = orDuration(s.Safety.SilentAfter, 120*time.Second)
	s.Safety.BootDeadline = orDuration(s.Safety.BootDeadline, 600*time.Second)
	s.Safety.ConvergeDeadline = orDuration(s.Safety.ConvergeDeadline, 1800*time.Second)
}

// defaultSystem fills what is given of the operating system. What is not given stays as the image has it.
func defaultSystem(s *provisionrv1.PoolSpec) {
	if s.GetSwap().GetSizeMib() > 0 {
		s.Swap.Path = or(s.Swap.Path, "/swapfile")
	}
	for _, f := range s.Filesystems {
		f.Type = or(f.Type, "ext4")
		if len(f.Options) == 0 {
			f.Options = []string{"defaults", "nofail"}
		}
	}
}

// fileMode is the mode of a file that gives none: nobody else may read a secret.
func fileMode(f *provisionrv1.File) string {
	switch {
	case f.Directory:
		return programMode
	case f.Secret != "", len(tmpl.Secrets(f.GetTemplate())) > 0:
		return secretMode
	}
	return defaultMode
}

func or[T comparable](v, byDefault T) T {
	var zero T
	if v == zero {
		return byDefault
	}
	return v
}

func orNew[T any](p *T) *T {
	if p == nil {
		return new(T)
	}
	return p
}

func orDuration(d *durationpb.Duration, byDefault time.Duration) *durationpb.Duration {
	if d == nil {
		return durationpb.New(byDefault)
	}
	return d
}
