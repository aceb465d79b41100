package fsm

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

// Bounds of DNSSEC keys.
const (
	maxZoneKeys = 20000
	// maxKeysOf bounds the keys of an origin: an answer with all of them and their signatures fits a UDP message.
	maxKeysOf = 5
	// maxKeyCiphertext is a private key and what its encryption adds, in bytes.
	maxKeyCiphertext = 256
	// publicKeySize is that of ECDSA P-256 (RFC 6605 section 4), in bytes.
	publicKeySize = 64
	// maxAhead is how far the signing time may be ahead of the command.
	maxAhead = time.Hour
)

// validOrigin reports whether s is the name of a zone; those of classless ranges have a slash (RFC 2317).
func validOrigin(s string) bool { return validRecordName(strings.ReplaceAll(s, "/", "x")) }

// putZoneKey creates a DNSSEC key, or moves it on. The first key of an origin is active at once; each further one is published
// before, so that an origin that has keys always has an active one, and at most one that is published.
func (a *applier) putZoneKey(wanted *provisionrv1.ZoneKey) *errs.Error {
	name := wanted.GetMetadata().GetName()
	switch signed := wanted.GetSigned(); {
	case !validOrigin(wanted.GetOrigin()), wanted.GetTag() > 65535, name != state.ZoneKeyName(wanted.GetOrigin(), wanted.GetTag()):
		return errs.New(errs.Invalid, "%q is not the name of a zone key: it is ORIGIN/TAG", clip(name, maxFullName))
	case len(wanted.GetPublicKey()) != publicKeySize:
		return errs.New(errs.Invalid, "zone key %s has a public key of %d bytes, not %d", name, len(wanted.GetPublicKey()), publicKeySize)
	case signed != nil && (!signed.IsValid() || signed.AsTime().After(a.now.AsTime().Add(maxAhead))):
		return errs.New(errs.Invalid, "zone key %s: its signatures cannot be from the future", name)
	}
	if present := a.ZoneKey(name); present != nil {
		return a.moveZoneKey(present, wanted)
	}
	return a.createZoneKey(wanted)
}

func (a *applier) createZoneKey(wanted *provisionrv1.ZoneKey) *errs.Error {
	name, origin := wanted.GetMetadata().GetName(), wanted.GetOrigin()
	active, published := a.keyIn(origin, state.KeyActive), a.keyIn(origin, state.KeyPublished)
	newest := a.SealedKey().GetNewest()
	switch {
	case len(wanted.GetCiphertext()) == 0 || len(wanted.GetCiphertext()) > maxKeyCiphertext:
		return errs.New(errs.Invalid, "zone key %s has %d bytes of ciphertext: 1 to %d are kept", name, len(wanted.GetCiphertext()), maxKeyCiphertext)
	case wanted.GetKeyVersion() == 0 || newest != 0 && wanted.GetKeyVersion() != newest:
		return errs.New(errs.Conflict, "zone key %s is encrypted with data key %d, the present one is %d", name, wanted.GetKeyVersion(), newest).
			WithHint("the data key was exchanged meanwhile: try again")
	case wanted.GetState() == state.KeyActive && active != nil:
		return errs.New(errs.Conflict, "zone %s has the active key %d already", origin, active.GetTag()).WithHint("publish the new key first")
	case wanted.GetState() == state.KeyPublished && active == nil:
		return errs.New(errs.Conflict, "zone %s has no active key", origin).WithHint("its first key is made when the zone asks for dnssec")
	case wanted.GetState() == state.KeyPublished && published != nil:
		return errs.New(errs.Conflict, "zone %s has the published key %d already", origin, published.GetTag()).
			WithHint("activate that first: provisionr dns activate %s %d", origin, published.GetTag())
	case wanted.GetState() != state.KeyActive && wanted.GetState() != state.KeyPublished:
		return errs.New(errs.Invalid, "a new zone key is published or active, not %q", clip(wanted.GetState(), maxName))
	case count(a.ZoneKeysOf(origin), maxKeysOf) >= maxKeysOf:
		return errs.New(errs.Exhausted, "zone %s has %d keys: no more are kept", origin, maxKeysOf).WithHint("wait until retired ones are removed")
	case count(a.ZoneKeys(), maxZoneKeys) >= maxZoneKeys:
		return errs.New(errs.Exhausted, "there are %d zone keys: no more are kept", maxZoneKeys)
	}
	key := &provisionrv1.ZoneKey{
		Metadata: &provisionrv1.Metadata{Name: name, Generation: 1, Created: a.now},
		Origin:   origin, Tag: wanted.GetTag(), PublicKey: wanted.GetPublicKey(), Ciphertext: wanted.GetCiphertext(), KeyVersion: wanted.GetKeyVersion(),
	}
	a.putKey(key, wanted.GetState(), wanted.GetSigned())
	return nil
}

// moveZoneKey has a published key become active, and the active one before retired with it, or notes when an active key signed
// its zone anew. Nothing else about a key changes.
func (a *applier) moveZoneKey(present, wanted *provisionrv1.ZoneKey) *errs.Error {
	name, from, to := present.GetMetadata().GetName(), present.GetState(), wanted.GetState()
	switch {
	case !bytes.Equal(present.GetPublicKey(), wanted.GetPublicKey()):
		return errs.New(errs.Conflict, "zone key %s is another key", name).WithHint("make a new one: two keys of a zone have different tags")
	case from == to && to == state.KeyActive:
		if wanted.GetSigned() != nil && !proto.Equal(wanted.GetSigned(), present.GetSigned()) {
			key := proto.CloneOf(present)
			key.Signed = wanted.GetSigned()
			a.Put(key)
			a.names = true
		}
		return nil
	case from == to:
		return nil
	case from != state.KeyPublished || to != state.KeyActive:
		return errs.New(errs.Conflict, "zone key %s is %s: it cannot become %s", name, from, clip(to, maxName)).
			WithHint("a key is published, then active, and retired when the next one is active")
	}
	if before := a.keyIn(present.GetOrigin(), state.KeyActive); before != nil {
		a.putKey(proto.CloneOf(before), state.KeyRetired, nil)
	}
	a.putKey(proto.CloneOf(present), state.KeyActive, wanted.GetSigned())
	return nil
}

// putKey writes a key that begins another state.
func (a *applier) putKey(key *provisionrv1.ZoneKey, to string, signed *timestamppb.Timestamp) {
	key.State, key.Since, key.Signed = to, a.now, nil
	if to == state.KeyActive {
		if key.Signed = a.now; signed != nil {
			key.Signed = signed
		}
	}
	key.Metadata.Version = a.version
	a.Put(key)
	a.names = true
	a.event("ZoneKeyChanged", fmt.Sprintf("key %d of zone %s is %s", key.GetTag(), key.GetOrigin(), to), false, "", nil)
}

func (a *applier) keyIn(origin, in string) *provisionrv1.ZoneKey {
	for k := range a.ZoneKeysOf(origin) {
		if k.GetState() == in {
			return k
		}
	}
	return nil
}

// removeZoneKey forgets a key that no signature needs any more: one that is retired, or any of a zone that is not to be signed.
func (a *applier) removeZoneKey(name string) *errs.Error {
	key := a.ZoneKey(clip(safeKey(name), 2*maxFullName))
	if key == nil {
		return notFound("zone key", name)
	}
	if key.GetState() != state.KeyRetired && slices.ContainsFunc(dnszone.Signed(&a.Snapshot), func(z dnszone.SignedZone) bool { return z.Origin == key.GetOrigin() }) {
		return errs.New(errs.Conflict, "zone key %s is %s, and its zone is signed", key.GetMetadata().GetName(), key.GetState()).
			WithHint("activate another key first")
	}
	a.Delete(key)
	a.names = true
	a.event("ZoneKeyRemoved", fmt.Sprintf("key %d of zone %s was removed", key.GetTag(), key.GetOrigin()), false, "", nil)
	return nil
}

// resealZoneKeys replaces the ciphertexts of zone keys by those that another data key made of the same keys.
func (a *applier) resealZoneKeys(key *raftlogv1.SealedKey, zoneKeys []*provisionrv1.ZoneKey) *errs.Error {
	if len(zoneKeys) > 0 {
		if err := a.least(state.LevelNames, "a zone key"); err != nil {
			return err
		}
	}
	for _, wanted := range zoneKeys {
		name := clip(safeKey(wanted.GetMetadata().GetName()), 2*maxFullName)
		present := a.ZoneKey(name)
		switch {
		case present == nil || !bytes.Equal(present.GetPublicKey(), wanted.GetPublicKey()):
			return errs.New(errs.Conflict, "zone key %s was removed while the data key was exchanged", name).WithHint("try again")
		case wanted.GetKeyVersion() != key.GetNewest() || len(wanted.GetCiphertext()) == 0 || len(wanted.GetCiphertext()) > maxKeyCiphertext:
			return errs.New(errs.Invalid, "zone key %s is not encrypted with data key %d", name, key.GetNewest())
		}
		again := proto.CloneOf(present)
		again.Ciphertext, again.KeyVersion = wanted.GetCiphertext(), wanted.GetKeyVersion()
		a.Put(again)
	}
	return nil
}

// leavesZoneKeyBehind returns the first zone key that nobody could decrypt with a data key any more, or "".
func (a *applier) leavesZoneKeyBehind(key *raftlogv1.SealedKey) string {
	for k := range a.ZoneKeys() {
		if k.GetKeyVersion() < key.GetOldest() || k.GetKeyVersion() > key.GetNewest() {
			return k.GetMetadata().GetName()
		}
	}
	return ""
}
