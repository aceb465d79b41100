package auth

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Records is what the door reads of the state: a row, or nil where there is none.
type Records interface {
	Cluster() *provisionrv1.Cluster
	User(name string) *provisionrv1.User
	Token(name string) *provisionrv1.Token
	Member(name string) *provisionrv1.Member
}

// Config of a Door.
type Config struct {
	// State returns the newest records. Required.
	State func() Records
	// Roots returns the authorities that are trusted now. Required.
	Roots func() []*x509.Certificate
	// Public are full method names, as /member.v1.JoinService/Join, that anybody may call. Default: none.
	Public []string
	// Current reports whether the state has caught up with the cluster since this server started. Before that, a caller
	// that it does not know may be one that it does not know yet. Default: always.
	Current func() bool
	// Logger gets the audit log. Required.
	Logger *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Door authenticates and authorises calls. Its methods may be called concurrently.
type Door struct {
	config Config
	public map[string]bool
	roles  map[string]provisionrv1.Role
}

// New makes a Door. It fails if any method of the API lacks a role.
func New(c Config) (*Door, error) {
	if c.State == nil || c.Roots == nil || c.Logger == nil {
		return nil, errs.New(errs.Internal, "cannot make door: state, roots and logger are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Current == nil {
		c.Current = func() bool { return true }
	}
	roles, err := methodRoles()
	if err != nil {
		return nil, err
	}
	d := &Door{config: c, roles: roles, public: make(map[string]bool)}
	for _, m := range c.Public {
		d.public[m] = true
	}
	return d, nil
}

// Session is an authenticated caller.
type Session struct {
	// Caller as of the last check.
	Caller *provisionrv1.Caller
	// Credential names what the caller showed: "certificate SERIAL" or "token NAME".
	Credential string
	// Expires is when the credential ends; the zero value if it does not.
	Expires time.Time
	// check authenticates again with the same credential.
	check func() (*provisionrv1.Caller, error)
}

type sessionKey struct{}

// NewContext returns a context that carries the session.
func NewContext(ctx context.Context, s *Session) context.Context {
	return context.WithValue(ctx, sessionKey{}, s)
}

// FromContext returns the session of a call, or nil.
func FromContext(ctx context.Context) *Session {
	s, _ := ctx.Value(sessionKey{}).(*Session)
	return s
}

// CallerOf returns who makes the call; nil where nobody was authenticated.
func CallerOf(ctx context.Context) *provisionrv1.Caller {
	if s := FromContext(ctx); s != nil {
		return s.Caller
	}
	return nil
}

// Authenticate finds out who makes a request. Errors have the kind errs.Unauthenticated or errs.Denied,
// or errs.Unavailable while the state is not current.
func (d *Door) Authenticate(r *http.Request) (*Session, error) {
	s := &Session{}
	if text, present := bearer(r); present {
		name, sum, ok := parseToken(text)
		if !ok {
			return nil, errs.New(errs.Unauthenticated, "cannot accept the Authorization header: it holds no token").
				WithHint("send \"Authorization: Bearer pvr_...\", or the token as the password of Basic authentication")
		}
		s.Credential = "token " + name
		s.check = func() (*provisionrv1.Caller, error) { return d.tokenCaller(name, sum) }
	} else if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		chain := r.TLS.PeerCertificates
		s.Credential = "certificate " + pki.Serial(chain[0])
		s.check = func() (*provisionrv1.Caller, error) { return d.certCaller(chain) }
	} else {
		return nil, errs.New(errs.Unauthenticated, "cannot tell who is calling: no client certificate and no token").
			WithHint("use a context file with a client certificate, or send a token")
	}
	// Asked first: what is current now may not have been when the check failed.
	current := d.config.Current()
	caller, err := s.check()
	if err != nil && !current {
		return nil, errs.New(errs.Unavailable, "cannot tell yet who is calling: this server has not caught up with the cluster since it started").
			WithHint("try again in a moment, or ask another server")
	}
	if err != nil {
		return nil, err
	}
	s.Caller = caller
	if name, ok := strings.CutPrefix(s.Credential, "token "); !ok {
		s.Expires = r.TLS.PeerCertificates[0].NotAfter
	} else if end := d.config.State().Token(name).GetExpires(); end != nil {
		s.Expires = end.AsTime()
	}
	return s, nil
}

// certCaller verifies the chain although the TLS layer did: connections outlive certificates and authorities.
func (d *Door) certCaller(chain []*x509.Certificate) (*provisionrv1.Caller, error) {
	id, err := pki.Verify(chain, d.config.Roots(), d.config.Now(), x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, err
	}
	records := d.config.State()
	if id.Cluster != records.Cluster().GetId() {
		return nil, errs.New(errs.Unauthenticated, "cannot accept certificate of %s: it is of another cluster", id)
	}
	switch id.Kind {
	case pki.User:
		role, err := userRole(records, id.Name)
		return &provisionrv1.Caller{Name: id.Name, Kind: string(pki.User), Role: role}, err
	case pki.Server:
		if records.Member(id.Name) == nil {
			return nil, errs.New(errs.Denied, "cannot let server %q in: it is not a member", id.Name)
		}
		// A member commits what it likes through Raft: less than admin here would be for show.
		return &provisionrv1.Caller{Name: id.Name, Kind: string(pki.Server), Role: provisionrv1.Role_ROLE_ADMIN}, nil
	}
	return nil, errs.New(errs.Denied, "cannot let %s %q in: only users and servers call the API", id.Kind, id.Name).
		WithHint("agents connect to port 7444")
}

func (d *Door) tokenCaller(name string, sum [32]byte) (*provisionrv1.Caller, error) {
	records := d.config.State()
	token := records.Token(name)
	// An unknown name and a wrong secret get the same answer.
	if !sameHash(token.GetSecretSha256(), sum) {
		return nil, errs.New(errs.Unauthenticated, "cannot accept token: it is unknown or wrong").
			WithHint("an admin makes tokens with: provisionr token create")
	}
	if end := token.GetExpires(); end != nil && d.config.Now().After(end.AsTime()) {
		return nil, errs.New(errs.Unauthenticated, "cannot accept token %q: it expired at %s", name, end.AsTime().UTC().Format(time.RFC3339)).
			WithHint("an admin makes a new one with: provisionr token create")
	}
	role, err := userRole(records, token.GetUser())
	if err != nil {
		return nil, err
	}
	if token.GetRole() != provisionrv1.Role_ROLE_UNSPECIFIED {
		role = min(role, token.GetRole())
	}
	return &provisionrv1.Caller{Name: token.GetUser(), Kind: string(pki.User), Role: role}, nil
}

func userRole(records Records, name string) (provisionrv1.Role, error) {
	user := records.User(name)
	switch {
	case user == nil:
		return 0, errs.New(errs.Denied, "cannot let user %q in: there is no such user", name).
			WithHint("an admin adds users with a manifest of kind User")
	case user.GetMetadata().GetDeleted() != nil:
		return 0, errs.New(errs.Denied, "cannot let user %q in: the user was deleted", name)
	case user.GetSpec().GetDisabled():
		return 0, errs.New(errs.Denied, "cannot let user %q in: the user is disabled", name)
	}
	return user.GetSpec().GetRole(), nil
}
