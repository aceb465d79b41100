package state

import (
	"iter"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// DefaultZone, DefaultProvider are the objects that a pool uses where it names none.
const (
	DefaultZone     = "default"
	DefaultProvider = "local"
)

// Network returns the network, or nil.
func (s *Snapshot) Network(name string) *provisionrv1.Network {
	return get[*provisionrv1.Network](s, TableNetworks, key(name))
}

// Networks yields all networks by name.
func (s *Snapshot) Networks() iter.Seq[*provisionrv1.Network] {
	return scan[*provisionrv1.Network](s, TableNetworks, idIndex, nil)
}

// Provider returns the provider, or nil.
func (s *Snapshot) Provider(name string) *provisionrv1.Provider {
	return get[*provisionrv1.Provider](s, TableProviders, key(name))
}

// Providers yields all providers by name.
func (s *Snapshot) Providers() iter.Seq[*provisionrv1.Provider] {
	return scan[*provisionrv1.Provider](s, TableProviders, idIndex, nil)
}

// User returns the user, or nil.
func (s *Snapshot) User(name string) *provisionrv1.User {
	return get[*provisionrv1.User](s, TableUsers, key(name))
}

// Users yields all users by name.
func (s *Snapshot) Users() iter.Seq[*provisionrv1.User] {
	return scan[*provisionrv1.User](s, TableUsers, idIndex, nil)
}

// Token returns the API token, or nil.
func (s *Snapshot) Token(name string) *provisionrv1.Token {
	return get[*provisionrv1.Token](s, TableTokens, key(name))
}

// Tokens yields all API tokens by name.
func (s *Snapshot) Tokens() iter.Seq[*provisionrv1.Token] {
	return scan[*provisionrv1.Token](s, TableTokens, idIndex, nil)
}

// TokensOf yields the API tokens of a user.
func (s *Snapshot) TokensOf(user string) iter.Seq[*provisionrv1.Token] {
	return scan[*provisionrv1.Token](s, TableTokens, "user", key(user))
}

// Member returns the member, or nil.
func (s *Snapshot) Member(name string) *provisionrv1.Member {
	return get[*provisionrv1.Member](s, TableMembers, key(name))
}

// Members yields all members by name.
func (s *Snapshot) Members() iter.Seq[*provisionrv1.Member] {
	return scan[*provisionrv1.Member](s, TableMembers, idIndex, nil)
}

// Authority returns the signing key's record, or nil.
func (s *Snapshot) Authority(id string) *raftlogv1.Authority {
	return get[*raftlogv1.Authority](s, TableAuthorities, key(id))
}

// Authorities yields all signing keys by id.
func (s *Snapshot) Authorities() iter.Seq[*raftlogv1.Authority] {
	return scan[*raftlogv1.Authority](s, TableAuthorities, idIndex, nil)
}

// JoinToken returns the token for a new server, or nil.
func (s *Snapshot) JoinToken(id string) *raftlogv1.JoinToken {
	return get[*raftlogv1.JoinToken](s, TableJoinTokens, key(id))
}

// JoinTokens yields all tokens for new servers by id.
func (s *Snapshot) JoinTokens() iter.Seq[*raftlogv1.JoinToken] {
	return scan[*raftlogv1.JoinToken](s, TableJoinTokens, idIndex, nil)
}

// DefaultZoneName returns the name of the zone of pools that name none.
func (s *Snapshot) DefaultZoneName() string {
	if name := s.Cluster().GetDefaultZone(); name != "" {
		return name
	}
	return DefaultZone
}

// ZoneName returns the name of the zone that a pool's machines are named in.
func (s *Snapshot) ZoneName(p *provisionrv1.Pool) string {
	if name := p.GetSpec().GetZone(); name != "" {
		return name
	}
	return s.DefaultZoneName()
}

// ProviderName returns the name of the provider of a pool's machines.
func ProviderName(p *provisionrv1.Pool) string {
	if name := p.GetSpec().GetProvider(); name != "" {
		return name
	}
	return DefaultProvider
}

// ProviderDomain names, among the claims, where a provider's machines without a network have their addresses. No network has
// such a name.
func ProviderDomain(provider string) string { return "provider:" + provider }

// NetworkOf returns the network of a pool's machines: the one it names, else its provider's network of the provider's
// own name, else its provider's first by name, else nil.
func (s *Snapshot) NetworkOf(p *provisionrv1.Pool) *provisionrv1.Network {
	if name := p.GetSpec().GetNetwork(); name != "" {
		return s.Network(name)
	}
	provider := ProviderName(p)
	if n := s.Network(provider); n.GetSpec().GetProvider() == provider {
		return n
	}
	for n := range s.Networks() {
		if n.GetSpec().GetProvider() == provider {
			return n
		}
	}
	return nil
}
