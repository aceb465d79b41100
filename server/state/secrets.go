package state

import (
	"iter"
	"slices"

	"github.com/provisionr/provisionr/internal/tmpl"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Secret returns the secret, whose value is encrypted, or nil.
func (s *Snapshot) Secret(name string) *provisionrv1.Secret {
	if secret := s.LastSecret(name); secret.GetMetadata().GetDeleted() == nil {
		return secret
	}
	return nil
}

// LastSecret returns the secret, or what is left of one that was deleted: its name and last revision. Machines remember values
// by name and revision, so that a secret of the same name has to go on counting.
func (s *Snapshot) LastSecret(name string) *provisionrv1.Secret {
	return get[*provisionrv1.Secret](s, TableSecrets, key(name))
}

// Secrets yields all secrets by name.
func (s *Snapshot) Secrets() iter.Seq[*provisionrv1.Secret] {
	return s.secrets(false)
}

// DeletedSecrets yields what is left of secrets that were deleted, by name.
func (s *Snapshot) DeletedSecrets() iter.Seq[*provisionrv1.Secret] {
	return s.secrets(true)
}

func (s *Snapshot) secrets(deleted bool) iter.Seq[*provisionrv1.Secret] {
	return func(yield func(*provisionrv1.Secret) bool) {
		for secret := range scan[*provisionrv1.Secret](s, TableSecrets, idIndex, nil) {
			if (secret.GetMetadata().GetDeleted() != nil) == deleted && !yield(secret) {
				return
			}
		}
	}
}

// SecretsOf returns the names of the secrets that a pool's files and templates refer to, sorted, whether these exist or not.
func SecretsOf(p *provisionrv1.Pool) []string {
	var names []string
	for _, f := range p.GetSpec().GetFiles() {
		if f.GetSecret() != "" {
			names = append(names, f.GetSecret())
		}
		if f.GetTemplate() != "" {
			names = append(names, tmpl.Secrets(f.GetTemplate())...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// PoolsWithSecret yields the pools that refer to a secret, by name.
func (s *Snapshot) PoolsWithSecret(name string) iter.Seq[*provisionrv1.Pool] {
	return func(yield func(*provisionrv1.Pool) bool) {
		for p := range s.Pools() {
			if _, refers := slices.BinarySearch(SecretsOf(p), name); refers && !yield(p) {
				return
			}
		}
	}
}
