package fsm

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func validRole(r provisionrv1.Role) bool {
	return r >= provisionrv1.Role_ROLE_VIEWER && r <= provisionrv1.Role_ROLE_ADMIN
}

func (a *applier) applyUser(wanted *provisionrv1.User, uid string) *errs.Error {
	name := wanted.GetMetadata().GetName()
	present := a.User(name)
	what, m, err := a.merge("user", wanted.GetMetadata(), present.GetMetadata(), uid, proto.Equal(wanted.GetSpec(), present.GetSpec()))
	if err != nil || what == unchanged {
		return err
	}
	if !validRole(wanted.GetSpec().GetRole()) {
		return errs.New(errs.Invalid, "user %s has no role", name).WithHint("a role is viewer, operator or admin")
	}
	if present == nil && count(a.Users(), maxObjects) >= maxObjects {
		return full("users")
	}
	if isAdmin(present) {
		user := &provisionrv1.User{Metadata: m, Spec: wanted.GetSpec()}
		if err := a.keepsAdmin(name, isAdmin(user)); err != nil {
			return err
		}
	}
	a.Put(&provisionrv1.User{ApiVersion: wanted.GetApiVersion(), Kind: wanted.GetKind(), Metadata: m, Spec: wanted.GetSpec()})
	a.changed(what, "User", name, "")
	return nil
}

func isAdmin(u *provisionrv1.User) bool {
	return u.GetSpec().GetRole() == provisionrv1.Role_ROLE_ADMIN && !u.GetSpec().GetDisabled()
}

// keepsAdmin refuses to take the last administrator away, after whom nobody could make one.
func (a *applier) keepsAdmin(name string, still bool) *errs.Error {
	if still {
		return nil
	}
	for u := range a.Users() {
		if isAdmin(u) && u.GetMetadata().GetName() != name {
			return nil
		}
	}
	return errs.New(errs.Conflict, "user %s is the last admin", name).WithHint("make another admin first")
}

func (a *applier) deleteUser(name string) *errs.Error {
	user := a.User(name)
	if user == nil {
		return notFound("user", name)
	}
	if err := a.keepsAdmin(name, !isAdmin(user)); err != nil {
		return err
	}
	for _, t := range slices.Collect(a.TokensOf(name)) {
		a.Delete(t)
	}
	a.Delete(user)
	return nil
}

func (a *applier) applyToken(wanted *provisionrv1.Token, uid string) *errs.Error {
	name := wanted.GetMetadata().GetName()
	if a.Token(name) != nil {
		return errs.New(errs.Exists, "token %s exists already", name).WithHint("delete it, or choose another name")
	}
	_, m, err := a.merge("token", wanted.GetMetadata(), nil, uid, false)
	if err != nil {
		return err
	}
	user := a.User(wanted.GetUser())
	switch {
	case user == nil:
		return errs.New(errs.Invalid, "token %s is for user %s, who does not exist", name, clip(wanted.GetUser(), maxName))
	case !validRole(wanted.GetRole()) || wanted.GetRole() > user.GetSpec().GetRole():
		return errs.New(errs.Invalid, "token %s has a role that user %s has not", name, wanted.GetUser())
	case len(wanted.GetSecretSha256()) != 32:
		return errs.New(errs.Invalid, "token %s has no hash of a secret", name)
	case count(a.Tokens(), maxObjects) >= maxObjects:
		return full("tokens")
	}
	token := proto.CloneOf(wanted)
	token.Metadata = m
	a.Put(token)
	a.changed(created, "Token", name, "")
	return nil
}

func (a *applier) deleteToken(name string) *errs.Error {
	token := a.Token(name)
	if token == nil {
		return notFound("token", name)
	}
	a.Delete(token)
	return nil
}
