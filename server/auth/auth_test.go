package auth

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"crypto/x509"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

type records struct {
	users  map[string]*provisionrv1.User
	tokens map[string]*provisionrv1.Token
}

func (r *records) Cluster() *provisionrv1.Cluster           { return &provisionrv1.Cluster{Id: "c-1"} }
func (r *records) User(name string) *provisionrv1.User      { return r.users[name] }
func (r *records) Token(name string) *provisionrv1.Token    { return r.tokens[name] }
func (r *records) Member(string) *provisionrv1.Member       { return nil }
func (r *records) user(name string, role provisionrv1.Role) { r.users[name] = user(name, role) }

func user(name string, role provisionrv1.Role) *provisionrv1.User {
	return &provisionrv1.User{Metadata: &provisionrv1.Metadata{Name: name}, Spec: &provisionrv1.UserSpec{Role: role}}
}

const (
	viewer   = provisionrv1.Role_ROLE_VIEWER
	operator = provisionrv1.Role_ROLE_OPERATOR
	admin    = provisionrv1.Role_ROLE_ADMIN
)

func newDoor(t *testing.T) (*Door, *records, *bytes.Buffer) {
	t.Helper()
	r := &records{users: map[string]*provisionrv1.User{}, tokens: map[string]*provisionrv1.Token{}}
	var log bytes.Buffer
	d, err := New(Config{
		State: func() Records { return r }, Roots: func() []*x509.Certificate { return nil },
		Logger: slog.New(slog.NewTextHandler(&log, nil)), Now: func() time.Time { return now },
		Public: []string{"/public.Service/Method"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d, r, &log
}

func (r *records) token(name, user string, role provisionrv1.Role, ttl time.Duration) string {
	secret, sum := NewToken(name)
	r.tokens[name] = &provisionrv1.Token{User: user, Role: role, SecretSha256: sum, Expires: timestamppb.New(now.Add(ttl))}
	return secret
}

// Every method of every service that is linked in has a role, or is not part of the public API.
func TestEveryMethodHasARole(t *testing.T) {
	roles, err := methodRoles()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("provisionr.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				m := f.Services().Get(i).Methods().Get(j)
				role, _ := proto.GetExtension(m.Options(), provisionrv1.E_RequiredRole).(provisionrv1.Role)
				if role == 0 || roles[fullMethod(m)] != role {
					t.Errorf("%s: role %v, the door knows %v", m.FullName(), role, roles[fullMethod(m)])
				}
				seen++
			}
		}
		return true
	})
	if seen < 30 || seen != len(roles) {
		t.Errorf("%d methods, the door knows %d", seen, len(roles))
	}
}

func TestTokens(t *testing.T) {
	d, r, log := newDoor(t)
	r.user("ann", operator)
	r.user("off", admin)
	r.users["off"].Spec.Disabled = true
	good := r.token("good", "ann", 0, time.Hour)
	low := r.token("low", "ann", viewer, time.Hour)
	high := r.token("high", "ann", admin, time.Hour)
	other, _ := NewToken("good")
	tests := []struct {
		name   string
		header string
		kind   errs.Kind
		role   provisionrv1.Role
	}{
		{"the user's role", "Bearer " + good, "", operator},
		{"scheme in lower case", "bearer " + good, "", operator},
		{"a lower role", "Bearer " + low, "", viewer},
		{"not above the user's role", "Bearer " + high, "", operator},
		{"expired", "Bearer " + r.token("old", "ann", 0, -time.Second), errs.Unauthenticated, 0},
		{"disabled user", "Bearer " + r.token("off", "off", 0, time.Hour), errs.Denied, 0},
		{"no such user", "Bearer " + r.token("lost", "bob", 0, time.Hour), errs.Denied, 0},
		{"wrong secret", "Bearer " + other, errs.Unauthenticated, 0},
		{"unknown name", "Bearer " + strings.Replace(good, "good", "none", 1), errs.Unauthenticated, 0},
		{"no secret", "Bearer pvr_good_", errs.Unauthenticated, 0},
		{"other scheme", "Digest " + good, errs.Unauthenticated, 0},
		{"noise", "\x00\xff", errs.Unauthenticated, 0},
		{"very long", "Bearer pvr_a_" + strings.Repeat("A", 1<<16), errs.Unauthenticated, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := httptest.NewRequest(http.MethodGet, "/v1/pools", nil)
			req.Header.Set("Authorization", tt.header)
			s, err := d.Authenticate(req)
			if errs.KindOf(err) != tt.kind {
				t.Fatalf("kind %q: %v", errs.KindOf(err), err)
			}
			if (s == nil) != (err != nil) || err == nil && s.Caller.GetRole() != tt.role {
				t.Fatalf("caller %v", s)
			}
			if err == nil && !s.Expires.After(d.config.Now()) {
				t.Errorf("the token ends at %v", s.Expires)
			}
			if err != nil && errs.HintOf(err) == "" && tt.kind == errs.Unauthenticated {
				t.Errorf("no hint: %v", err)
			}
		})
	}
	basic := httptest.NewRequest(http.MethodGet, "/v1/pools", nil)
	basic.SetBasicAuth("anything", good)
	if s, err := d.Authenticate(basic); err != nil || s.Caller.GetName() != "ann" {
		t.Errorf("Basic: %v", err)
	}
	refused := httptest.NewRequest(http.MethodGet, "/v1/pools", nil)
	refused.Header.Set("Authorization", "Bearer "+other)
	w := httptest.NewRecorder()
	d.Handler(http.NotFoundHandler()).ServeHTTP(w, refused)
	if w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), `"kind":"unauthenticated"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	_, secret, _ := strings.Cut(strings.TrimPrefix(other, tokenPrefix), "_")
	if log.Len() == 0 || strings.Contains(log.String(), secret) {
		t.Errorf("the log is empty or has the secret: %s", log)
	}
}

// Until the state is current, a caller that is not known is told to come back, and one that is known is let in.
func TestBeforeTheStateIsCurrent(t *testing.T) {
	d, r, _ := newDoor(t)
	current := false
	d.config.Current = func() bool { return current }
	token := r.token("t", "ann", 0, time.Hour)
	req := httptest.NewRequest(http.MethodGet, "/v1/pools", nil)
	req.Header.Set("Authorization", "Bearer "+token)
	if _, err := d.Authenticate(req); !errs.Is(err, errs.Unavailable) || errs.HintOf(err) == "" {
		t.Errorf("an unknown user while the state is not current: %v", err)
	}
	current = true
	if _, err := d.Authenticate(req); !errs.Is(err, errs.Denied) {
		t.Errorf("an unknown user: %v", err)
	}
	current = false
	r.user("ann", viewer)
	if _, err := d.Authenticate(req); err != nil {
		t.Errorf("a known user while the state is not current: %v", err)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("pvr_a_b")
	token, _ := NewToken("a")
	f.Add(token)
	f.Fuzz(func(t *testing.T, s string) {
		name, _, ok := parseToken(s)
		if ok && !strings.HasPrefix(s, tokenPrefix+name+"_") {
			t.Fatalf("%q names %q", s, name)
		}
	})
}

func TestUnaryDoor(t *testing.T) {
	d, r, log := newDoor(t)
	r.user("ann", viewer)
	const (
		read  = provisionrv1.PoolService_ListPools_FullMethodName
		write = provisionrv1.PoolService_ScalePool_FullMethodName
		high  = provisionrv1.AccessService_CreateToken_FullMethodName
	)
	caller := func(role provisionrv1.Role) context.Context {
		return NewContext(t.Context(), &Session{Caller: &provisionrv1.Caller{Name: "ann", Kind: "user", Role: role}, Credential: "token x"})
	}
	tests := []struct {
		name   string
		ctx    context.Context
		method string
		kind   errs.Kind
		log    string
	}{
		{"viewer reads", caller(viewer), read, "", ""},
		{"viewer writes", caller(viewer), write, errs.Denied, "call refused"},
		{"operator writes", caller(operator), write, "", "outcome=ok"},
		{"operator administers", caller(operator), high, errs.Denied, "call refused"},
		{"admin administers", caller(admin), high, "", "outcome=ok"},
		{"nobody", t.Context(), read, errs.Unauthenticated, "call refused"},
		{"no role", caller(0), read, errs.Denied, "call refused"},
		{"unknown method", caller(admin), "/provisionr.v1.PoolService/Other", errs.Denied, "call refused"},
		{"internal service", caller(admin), "/member.v1.MemberService/Propose", errs.Denied, "call refused"},
		{"public", t.Context(), "/public.Service/Method", "", "outcome=ok"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log.Reset()
			called := false
			_, err := d.Unary(tt.ctx, nil, &grpc.UnaryServerInfo{FullMethod: tt.method}, func(context.Context, any) (any, error) {
				called = true
				return nil, nil
			})
			if errs.KindOf(err) != tt.kind || called != (tt.kind == "") {
				t.Errorf("%v, called %v", err, called)
			}
			if tt.log == "" && log.Len() > 0 || !strings.Contains(log.String(), tt.log) {
				t.Errorf("log: %s", log)
			}
		})
	}
}

type fakeStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s fakeStream) Context() context.Context { return s.ctx }
func (s fakeStream) SendMsg(any) error        { return nil }

// A stream ends when its caller loses the right to it.
func TestStreamIsCheckedAgain(t *testing.T) {
	d, r, _ := newDoor(t)
	r.user("ann", viewer)
	clock := now
	d.config.Now = func() time.Time { return clock }
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.Header.Set("Authorization", "Bearer "+r.token("t", "ann", 0, time.Hour))
	session, err := d.Authenticate(req)
	if err != nil {
		t.Fatal(err)
	}
	info := &grpc.StreamServerInfo{FullMethod: provisionrv1.WatchService_Watch_FullMethodName}
	err = d.Stream(nil, fakeStream{ctx: NewContext(t.Context(), session)}, info, func(_ any, ss grpc.ServerStream) error {
		clock = clock.Add(recheckEvery)
		if err := ss.SendMsg(nil); err != nil {
			t.Errorf("while the user is in order: %v", err)
		}
		r.users["ann"].Spec.Disabled = true
		clock = clock.Add(recheckEvery)
		return ss.SendMsg(nil)
	})
	if !errs.Is(err, errs.Denied) {
		t.Errorf("after the user was disabled: %v", err)
	}
}
