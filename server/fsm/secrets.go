package fsm

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// Bounds of secrets.
const (
	maxSecrets = 1000
	// maxCiphertext is a value of 64 KiB and what its encryption adds, in bytes.
	maxCiphertext = 64<<10 + 64
)

// putSecret creates or replaces a secret. Of two values that were written over the same one the second is refused, and so is
// what was encrypted with a data key that is not the newest any more: nothing would encrypt it anew.
func (a *applier) putSecret(c *raftlogv1.PutSecret) *errs.Error {
	wanted := c.GetSecret()
	name := wanted.GetMetadata().GetName()
	present, last := a.Secret(name), a.LastSecret(name).GetRevision()
	what, m, err := a.merge("secret", wanted.GetMetadata(), present.GetMetadata(), clip(c.GetUid(), maxName), false)
	if err != nil {
		return err
	}
	newest := a.SealedKey().GetNewest()
	switch {
	case len(wanted.GetCiphertext()) == 0 || len(wanted.GetCiphertext()) > maxCiphertext:
		return errs.New(errs.Invalid, "secret %s has %d bytes of ciphertext: 1 to %d are kept", name, len(wanted.GetCiphertext()), maxCiphertext)
	case wanted.GetRevision() != last+1:
		return errs.New(errs.Conflict, "secret %s is at revision %d", name, last).WithHint("it was changed meanwhile: set it again")
	case wanted.GetKeyVersion() == 0 || newest != 0 && wanted.GetKeyVersion() != newest:
		return errs.New(errs.Conflict, "secret %s is encrypted with data key %d, the present one is %d", name, wanted.GetKeyVersion(), newest).
			WithHint("the data key was exchanged meanwhile: set the secret again")
	case present == nil && count(a.Secrets(), maxSecrets) >= maxSecrets:
		return errs.New(errs.Exhausted, "there are %d secrets: no more are kept", maxSecrets)
	}
	// Labels and annotations are no part of a value.
	if present != nil {
		m.Labels, m.Annotations = present.GetMetadata().GetLabels(), present.GetMetadata().GetAnnotations()
	}
	a.Put(&provisionrv1.Secret{Metadata: m, Revision: wanted.GetRevision(), Ciphertext: wanted.GetCiphertext(), KeyVersion: wanted.GetKeyVersion()})
	reason := "SecretChanged"
	if what == created {
		reason = "SecretCreated"
	}
	a.event(reason, fmt.Sprintf("secret %s is at revision %d", name, wanted.GetRevision()), false, "", nil)
	return nil
}

func (a *applier) deleteSecret(name string) *errs.Error {
	secret := a.Secret(name)
	if secret == nil {
		return notFound("secret", name)
	}
	for p := range a.PoolsWithSecret(name) {
		return inUse("secret", name, "pool "+p.GetMetadata().GetName()).WithHint("take it out of the pool's files and templates first")
	}
	for z := range a.ZonesWithSecret(name) {
		// Members of the version before do not know of these.
		if a.NamesLevel() {
			return inUse("secret", name, "zone "+z.GetMetadata().GetName()).WithHint("take it out of the zone's transfer keys first")
		}
	}
	a.Delete(secret)
	// What is left counts on for a secret of the same name. The oldest such rest goes when there are too many.
	if count(a.DeletedSecrets(), maxSecrets) >= maxSecrets {
		a.Delete(slices.MinFunc(slices.Collect(a.DeletedSecrets()), func(x, y *provisionrv1.Secret) int {
			return cmp.Or(x.GetMetadata().GetDeleted().AsTime().Compare(y.GetMetadata().GetDeleted().AsTime()),
				cmp.Compare(x.GetMetadata().GetName(), y.GetMetadata().GetName()))
		}))
	}
	a.Put(&provisionrv1.Secret{
		Metadata: &provisionrv1.Metadata{Name: name, Version: a.version, Deleted: a.now}, Revision: secret.GetRevision(),
	})
	return nil
}

// reseal replaces ciphertexts by those that another data key made of the same values.
func (a *applier) reseal(key *raftlogv1.SealedKey, secrets []*provisionrv1.Secret) *errs.Error {
	if len(secrets) > 0 {
		if err := a.least(3, "a secret"); err != nil {
			return err
		}
	}
	for _, wanted := range secrets {
		name := clip(wanted.GetMetadata().GetName(), maxName)
		present := a.Secret(name)
		switch {
		case present == nil || present.GetRevision() != wanted.GetRevision():
			return errs.New(errs.Conflict, "secret %s was changed while the data key was exchanged", name).WithHint("try again")
		case wanted.GetKeyVersion() != key.GetNewest() || len(wanted.GetCiphertext()) == 0 || len(wanted.GetCiphertext()) > maxCiphertext:
			return errs.New(errs.Invalid, "secret %s is not encrypted with data key %d", name, key.GetNewest())
		}
		secret := proto.CloneOf(present)
		secret.Ciphertext, secret.KeyVersion = wanted.GetCiphertext(), wanted.GetKeyVersion()
		a.Put(secret)
	}
	return nil
}

// leavesBehind returns the first secret that nobody could decrypt with a key any more, or "".
func (a *applier) leavesBehind(key *raftlogv1.SealedKey) string {
	for s := range a.Secrets() {
		if s.GetKeyVersion() < key.GetOldest() || s.GetKeyVersion() > key.GetNewest() {
			return s.GetMetadata().GetName()
		}
	}
	return ""
}
