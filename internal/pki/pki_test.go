package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/internal/errs"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func authority(t testing.TB, cluster string) *Authority {
	t.Helper()
	a, err := NewAuthority(cluster, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// party is a key and a certificate, with the authority's in its chain.
func party(t testing.TB, a *Authority, id ID, ttl time.Duration) *tls.Certificate {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Issue(Leaf{ID: id, Key: &key.PublicKey, TTL: ttl}, now)
	if err != nil {
		t.Fatal(err)
	}
	c, err := TLSCertificate(EncodeCerts(cert, a.Cert), key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestIDRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[a-z0-9][a-z0-9._-]{0,62}`)
		id := ID{
			Cluster: word.Draw(t, "cluster"), Name: word.Draw(t, "name"),
			Kind: rapid.SampledFrom([]Kind{Server, Agent, User}).Draw(t, "kind"),
		}
		if got, err := ParseID(id.String()); err != nil || got != id {
			t.Fatalf("ParseID(%q) = %v, %v", id, got, err)
		}
	})
}

func TestValid(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "0": true, "a.b_c-d": true, "m-0az9": true, strings.Repeat("a", 63): true,
		"": false, ".a": false, "_a": false, "-a": false, "A": false, "a/b": false, "a%": false, "a\n": false, "\u00e9": false, strings.Repeat("a", 64): false,
	} {
		if got := (ID{Cluster: "c", Kind: User, Name: name}).Valid(); got != want {
			t.Errorf("name %q: valid is %v", name, got)
		}
		if got := (ID{Cluster: name, Kind: User, Name: "n"}).Valid(); got != want {
			t.Errorf("cluster %q: valid is %v", name, got)
		}
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"spiffe://c/user/a", "spiffe://c/user/a/b", "spiffe://c/root/a", "spiffe://c/user/%61", "http://c/user/a", "spiffe://C/user/a", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil && id.String() != s {
			t.Fatalf("ParseID(%q) = %q: two spellings of one identity", s, id)
		}
	})
}

func FuzzParseCSR(f *testing.F) {
	key, err := NewKey()
	if err != nil {
		f.Fatal(err)
	}
	csr, err := NewCSR(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr)
	f.Fuzz(func(t *testing.T, der []byte) {
		if pub, err := ParseCSR(der); err == nil && pub.Curve != elliptic.P256() {
			t.Fatal("accepted a key of another curve")
		}
	})
}

func TestParseCSR(t *testing.T) {
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	if pub, err := ParseCSR(csr); err != nil || !key.PublicKey.Equal(pub) {
		t.Fatalf("ParseCSR: %v", err)
	}
	forged := bytes.Clone(csr)
	forged[len(forged)-1] ^= 1
	if _, err := ParseCSR(forged); !errs.Is(err, errs.Invalid) {
		t.Errorf("a forged signature: %v", err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if csr, err = NewCSR(other); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseCSR(csr); !errs.Is(err, errs.Invalid) {
		t.Errorf("P-384: %v", err)
	}
}

func TestIssue(t *testing.T) {
	a := authority(t, "c-1")
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	agent := ID{"c-1", Agent, "m-1"}
	cert, err := a.Issue(Leaf{ID: agent, Key: &key.PublicKey, TTL: AgentTTL}, now)
	if err != nil {
		t.Fatal(err)
	}
	if !cert.NotBefore.Equal(now.Add(-time.Hour)) || !cert.NotAfter.Equal(now.Add(24*time.Hour)) {
		t.Errorf("valid from %s to %s", cert.NotBefore, cert.NotAfter)
	}
	if half := RenewAt(cert); !half.Equal(now.Add(11*time.Hour + 30*time.Minute)) {
		t.Errorf("renewed at %s", half)
	}
	if _, err := Verify([]*x509.Certificate{cert}, []*x509.Certificate{a.Cert}, now, x509.ExtKeyUsageServerAuth); err == nil {
		t.Error("an agent passes as a server")
	}
	long, err := a.Issue(Leaf{ID: agent, Key: &key.PublicKey, TTL: 2 * AuthorityTTL}, now)
	if err != nil || !long.NotAfter.Equal(a.Cert.NotAfter) {
		t.Errorf("outlives its authority: %v", err)
	}
	for name, leaf := range map[string]Leaf{
		"no name":        {ID: ID{"c-1", Agent, ""}, Key: &key.PublicKey, TTL: 1},
		"path in name":   {ID: ID{"c-1", Agent, "a/b"}, Key: &key.PublicKey, TTL: 1},
		"no lifetime":    {ID: agent, Key: &key.PublicKey},
		"agent's host":   {ID: agent, Key: &key.PublicKey, TTL: 1, Hosts: []string{"a"}},
		"unknown kind":   {ID: ID{"c-1", "root", "a"}, Key: &key.PublicKey, TTL: 1},
		"traversal name": {ID: ID{"c-1", Agent, ".."}, Key: &key.PublicKey, TTL: 1},
	} {
		if _, err := a.Issue(leaf, now); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// handshake returns what client and server say of a connection between them.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		c := tls.Server(conn, server)
		_, err = c.Write([]byte("x"))
		done <- errors.Join(err, c.Close())
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
	}
	serverErr = <-done
	l.Close()
	return serverErr, err
}

func TestTLS(t *testing.T) {
	ours, foreign := authority(t, "c-1"), authority(t, "c-2")
	posing := authority(t, "c-1") // Another authority that claims our cluster's name.
	roots := func() []*x509.Certificate { return []*x509.Certificate{ours.Cert} }
	give := func(c *tls.Certificate) func() (*tls.Certificate, error) {
		return func() (*tls.Certificate, error) { return c, nil }
	}
	server := party(t, ours, ID{"c-1", Server, "a"}, ServerTTL)
	user := party(t, ours, ID{"c-1", User, "u"}, UserTTL)
	clock := func() time.Time { return now }
	late := func() time.Time { return now.Add(UserTTL + time.Hour) }
	base := ServerConfig{Certificate: give(server), Roots: roots, Cluster: "c-1", Now: clock}
	trusting := ClientConfig{Roots: roots, Cluster: "c-1", Now: clock, Certificate: give(user)}

	tests := []struct {
		name   string
		server func(*ServerConfig)
		client func(*ClientConfig)
		ok     bool
	}{
		{"mutual", nil, nil, true},
		{"no client certificate", nil, func(c *ClientConfig) { c.Certificate = nil }, false},
		{"none needed", func(s *ServerConfig) { s.Optional = true }, func(c *ClientConfig) { c.Certificate = nil }, true},
		{"optional but foreign", func(s *ServerConfig) { s.Optional = true },
			func(c *ClientConfig) { c.Certificate = give(party(t, foreign, ID{"c-2", User, "u"}, UserTTL)) }, false},
		{"same cluster name, other authority", nil,
			func(c *ClientConfig) { c.Certificate = give(party(t, posing, ID{"c-1", User, "u"}, UserTTL)) }, false},
		{"our authority, other cluster", nil,
			func(c *ClientConfig) { c.Certificate = give(party(t, ours, ID{"c-2", User, "u"}, UserTTL)) }, false},
		{"kind not let in", func(s *ServerConfig) { s.Clients = []Kind{Agent} }, nil, false},
		{"kind let in", func(s *ServerConfig) { s.Clients = []Kind{User, Server} }, nil, true},
		{"expired client", func(s *ServerConfig) { s.Now = late }, nil, false},
		{"expired client within grace", func(s *ServerConfig) { s.Now = late; s.ExpiredGrace = 2 * time.Hour }, nil, true},
		{"expired client beyond grace", func(s *ServerConfig) { s.Now = late; s.ExpiredGrace = time.Minute }, nil, false},
		{"foreign server", func(s *ServerConfig) { s.Certificate = give(party(t, foreign, ID{"c-2", Server, "a"}, ServerTTL)) }, nil, false},
		{"user as server", func(s *ServerConfig) { s.Certificate = give(user) }, nil, false},
		{"named member", nil, func(c *ClientConfig) { c.Name = "a" }, true},
		{"other member", nil, func(c *ClientConfig) { c.Name = "b" }, false},
		{"expired server", nil, func(c *ClientConfig) { c.Now = late }, false},
		{"pinned", nil, func(c *ClientConfig) { c.Pins = []string{SPKIPin(ours.Cert)} }, true},
		{"pinned, clock wrong by years", nil, func(c *ClientConfig) {
			c.Pins = []string{SPKIPin(ours.Cert)}
			c.Now = func() time.Time { return time.Unix(0, 0) }
		}, true},
		{"pinned to another", nil, func(c *ClientConfig) { c.Pins = []string{SPKIPin(foreign.Cert)} }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, c := base, trusting
			if tt.server != nil {
				tt.server(&s)
			}
			if tt.client != nil {
				tt.client(&c)
			}
			sc, err := ServerTLS(s)
			if err != nil {
				t.Fatal(err)
			}
			cc, err := ClientTLS(c)
			if err != nil {
				t.Fatal(err)
			}
			serverErr, clientErr := handshake(t, sc, cc)
			if ok := serverErr == nil && clientErr == nil; ok != tt.ok {
				t.Errorf("server: %v; client: %v", serverErr, clientErr)
			}
		})
	}
}

// A pinned root beside a leaf that it did not sign proves nothing: anybody can copy a root.
func TestPinnedChainMustBeSigned(t *testing.T) {
	ours, foreign := authority(t, "c-1"), authority(t, "c-1")
	leaf := party(t, foreign, ID{"c-1", Server, "a"}, ServerTTL).Leaf
	check := VerifyPinnedChain([]string{SPKIPin(ours.Cert)}, "c-1")
	if err := check(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf, ours.Cert}}); err == nil {
		t.Fatal("accepted")
	}
	if err := check(tls.ConnectionState{}); !errs.Is(err, errs.Unauthenticated) {
		t.Fatalf("empty chain: %v", err)
	}
}

// A root that is taken away ends trust in resumed sessions, too.
func TestResumedSessionIsVerified(t *testing.T) {
	a := authority(t, "c-1")
	trusted := []*x509.Certificate{a.Cert}
	server, user := party(t, a, ID{"c-1", Server, "a"}, ServerTTL), party(t, a, ID{"c-1", User, "u"}, UserTTL)
	clock := func() time.Time { return now }
	sc, err := ServerTLS(ServerConfig{
		Certificate: func() (*tls.Certificate, error) { return server, nil },
		Roots:       func() []*x509.Certificate { return trusted }, Cluster: "c-1", Now: clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	cc, err := ClientTLS(ClientConfig{
		Certificate: func() (*tls.Certificate, error) { return user, nil },
		Roots:       func() []*x509.Certificate { return []*x509.Certificate{a.Cert} }, Now: clock,
		Sessions: tls.NewLRUClientSessionCache(1),
	})
	if err != nil {
		t.Fatal(err)
	}
	resumed := false
	verify := cc.VerifyConnection
	cc.VerifyConnection = func(cs tls.ConnectionState) error { resumed = cs.DidResume; return verify(cs) }
	for i := range 2 {
		if s, c := handshake(t, sc, cc); s != nil || c != nil {
			t.Fatalf("handshake %d: %v, %v", i, s, c)
		}
	}
	if !resumed {
		t.Fatal("the second session was not resumed: the test shows nothing")
	}
	trusted = nil
	if s, _ := handshake(t, sc, cc); s == nil {
		t.Fatal("a session of a retired authority was resumed")
	}
}

func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity")
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Certificate(); !errs.Is(err, errs.Unavailable) {
		t.Errorf("a certificate before the first: %v", err)
	}
	a := authority(t, "c-1")
	cert, err := a.Issue(Leaf{ID: ID{"c-1", Server, "a"}, Key: &s.Key().PublicKey, TTL: ServerTTL}, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(EncodeCerts(cert), EncodeCerts(a.Cert)); err != nil {
		t.Fatal(err)
	}
	again, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Certificate(); err != nil || !got.Leaf.Equal(cert) || !again.Key().Equal(s.Key()) || len(again.Roots()) != 1 {
		t.Errorf("read again: %v", err)
	}
	foreign := party(t, a, ID{"c-1", Server, "a"}, ServerTTL)
	if err := s.Put(EncodeCerts(foreign.Leaf), EncodeCerts(a.Cert)); !errs.Is(err, errs.Invalid) {
		t.Errorf("a certificate for another key: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	for _, e := range entries {
		if fi, err := e.Info(); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %s, %v", e.Name(), fi.Mode(), err)
		}
	}
}

func TestParseKeyShowsNoKey(t *testing.T) {
	secret := "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
	if _, err := ParseKey([]byte(secret)); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("ParseKey: %v", err)
	}
}
