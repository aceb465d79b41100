package fsm

import (
	"crypto/subtle"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// Bounds of the tables of keys.
const (
	maxAuthorities = 64
	maxJoinTokens  = 1000
)

func (a *applier) putAuthority(wanted *raftlogv1.Authority) *errs.Error {
	if id := wanted.GetId(); len(id) != 64 || safeKey(id) != id {
		return errs.New(errs.Invalid, "an authority's id is 64 hexadecimal characters")
	}
	if !slices.Contains([]string{"prepared", "active", "retired"}, wanted.GetState()) {
		return errs.New(errs.Invalid, "an authority is prepared, active or retired, not %q", clip(wanted.GetState(), maxName))
	}
	if err := a.checkPurpose(wanted); err != nil {
		return err
	}
	present := a.Authority(wanted.GetId())
	if present == nil && count(a.Authorities(), maxAuthorities) >= maxAuthorities {
		return errs.New(errs.Exhausted, "there are %d authorities: no more are kept", maxAuthorities)
	}
	if proto.Equal(present, wanted) {
		return nil
	}
	a.Put(proto.CloneOf(wanted))
	a.event("AuthorityChanged", fmt.Sprintf("signing key %.16s is %s", wanted.GetId(), wanted.GetState()), false, "", nil)
	return nil
}

// checkPurpose keeps the authorities of TLS and of SSH apart. Those of SSH have no dates to order them by: one alone is active.
func (a *applier) checkPurpose(wanted *raftlogv1.Authority) *errs.Error {
	purpose := wanted.GetPurpose()
	if present := a.Authority(wanted.GetId()); present != nil && present.GetPurpose() != purpose {
		return errs.New(errs.Conflict, "signing key %.16s has another purpose", wanted.GetId())
	}
	switch purpose {
	case "":
		return nil
	case "ssh":
	default:
		return errs.New(errs.Invalid, "an authority is for TLS or for ssh, not for %q", clip(purpose, maxName))
	}
	if err := a.least(3, "an authority for ssh"); err != nil {
		return err
	}
	for other := range a.Authorities() {
		if other.GetPurpose() == purpose && other.GetState() == "active" && wanted.GetState() == "active" && other.GetId() != wanted.GetId() {
			return errs.New(errs.Conflict, "signing key %.16s is active for ssh already", other.GetId())
		}
	}
	return nil
}

// putSealedKey replaces the key by one of a higher version. It was made from the one before: of two that were made from
// the same one the second is refused, or it would take out what the first put in. So is a key that leaves secrets or zone keys
// behind which it cannot decrypt.
func (a *applier) putSealedKey(c *raftlogv1.PutSealedKey) *errs.Error {
	wanted, present := c.GetKey(), a.SealedKey()
	switch {
	case wanted.GetNewest() < wanted.GetOldest():
		return errs.New(errs.Invalid, "the newest data key, %d, is before the oldest, %d", wanted.GetNewest(), wanted.GetOldest())
	case wanted.GetVersion() == 0:
		return errs.New(errs.Invalid, "a data key needs a version")
	case proto.Equal(present, wanted) && len(c.GetSecrets())+len(c.GetZoneKeys()) == 0:
		return nil
	case wanted.GetVersion() <= present.GetVersion():
		return errs.New(errs.Conflict, "the data key is at version %d", present.GetVersion())
	}
	if err := a.reseal(wanted, c.GetSecrets()); err != nil {
		return err
	}
	if err := a.resealZoneKeys(wanted, c.GetZoneKeys()); err != nil {
		return err
	}
	if name := a.leavesBehind(wanted); name != "" {
		return errs.New(errs.Conflict, "data key %d cannot decrypt secret %s", wanted.GetNewest(), name).
			WithHint("the secret was changed while the data key was exchanged: try again")
	}
	if name := a.leavesZoneKeyBehind(wanted); name != "" {
		return errs.New(errs.Conflict, "data key %d cannot decrypt zone key %s", wanted.GetNewest(), name).
			WithHint("the zone key was made while the data key was exchanged: try again")
	}
	a.PutSealedKey(proto.CloneOf(wanted))
	return nil
}

func (a *applier) putJoinToken(wanted *raftlogv1.JoinToken) *errs.Error {
	if err := checkName("join token", wanted.GetId()); err != nil {
		return err
	}
	if len(wanted.GetSecretSha256()) != 32 || !wanted.GetExpires().IsValid() {
		return errs.New(errs.Invalid, "a join token needs a hash and an expiry")
	}
	if a.JoinToken(wanted.GetId()) != nil {
		return errs.New(errs.Exists, "join token %s exists already", wanted.GetId())
	}
	for _, t := range slices.Collect(a.JoinTokens()) {
		if t.GetExpires().AsTime().Before(a.now.AsTime()) {
			a.Delete(t)
		}
	}
	if count(a.JoinTokens(), maxJoinTokens) >= maxJoinTokens {
		return errs.New(errs.Exhausted, "there are %d join tokens: no more are kept", maxJoinTokens).WithHint("wait until some expire")
	}
	a.Put(proto.CloneOf(wanted))
	return nil
}

// useJoinToken admits a member once; the same member may repeat it.
func (a *applier) useJoinToken(c *raftlogv1.UseJoinToken) *errs.Error {
	t := a.JoinToken(c.GetId())
	if t == nil || subtle.ConstantTimeCompare(t.GetSecretSha256(), c.GetSecretSha256()) != 1 {
		return errs.New(errs.Denied, "the join token is not valid")
	}
	if t.GetExpires().AsTime().Before(a.now.AsTime()) {
		return errs.New(errs.Denied, "the join token has expired").WithHint("make a new one: provisionr cluster join-token")
	}
	if err := checkName("member", c.GetMember()); err != nil {
		return err
	}
	switch t.GetUsedBy() {
	case c.GetMember():
		return nil
	case "":
	default:
		return errs.New(errs.Denied, "the join token was used by server %s", t.GetUsedBy()).WithHint("make a new one: provisionr cluster join-token")
	}
	t = proto.CloneOf(t)
	t.UsedBy = c.GetMember()
	a.Put(t)
	a.event("JoinTokenUsed", fmt.Sprintf("server %s used join token %s", c.GetMember(), c.GetId()), false, "", nil)
	return nil
}
