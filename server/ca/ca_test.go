package ca

import (
	"crypto/x509"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/seal"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// records is a state that keeps what commands put.
type records struct {
	cluster     *provisionrv1.Cluster
	sealed      *raftlogv1.SealedKey
	authorities map[string]*raftlogv1.Authority
	members     map[string]*provisionrv1.Member
	secrets     map[string]*provisionrv1.Secret
	zoneKeys    map[string]*provisionrv1.ZoneKey
}

func (r *records) Cluster() *provisionrv1.Cluster  { return r.cluster }
func (r *records) SealedKey() *raftlogv1.SealedKey { return r.sealed }
func (r *records) Authorities() iter.Seq[*raftlogv1.Authority] {
	return func(yield func(*raftlogv1.Authority) bool) {
		for _, id := range slices.Sorted(maps.Keys(r.authorities)) {
			if !yield(r.authorities[id]) {
				return
			}
		}
	}
}
func (r *records) Members() iter.Seq[*provisionrv1.Member]   { return maps.Values(r.members) }
func (r *records) Secrets() iter.Seq[*provisionrv1.Secret]   { return maps.Values(r.secrets) }
func (r *records) ZoneKeys() iter.Seq[*provisionrv1.ZoneKey] { return maps.Values(r.zoneKeys) }

func (r *records) apply(t *testing.T, commands ...*raftlogv1.Command) {
	t.Helper()
	for _, c := range commands {
		switch c := proto.CloneOf(c).Kind.(type) {
		case *raftlogv1.Command_InitCluster:
			r.cluster = c.InitCluster.Cluster
		case *raftlogv1.Command_PutMember:
			r.members[c.PutMember.Member.Metadata.Name] = c.PutMember.Member
		case *raftlogv1.Command_PutAuthority:
			r.authorities[c.PutAuthority.Authority.Id] = c.PutAuthority.Authority
		case *raftlogv1.Command_PutSealedKey:
			if c.PutSealedKey.Key.Version <= r.sealed.GetVersion() {
				t.Fatalf("data key goes from version %d to %d", r.sealed.GetVersion(), c.PutSealedKey.Key.Version)
			}
			r.sealed = c.PutSealedKey.Key
			for _, s := range c.PutSealedKey.Secrets {
				r.secrets[s.Metadata.Name] = s
			}
			for _, k := range c.PutSealedKey.ZoneKeys {
				r.zoneKeys[k.Metadata.Name] = k
			}
		default:
			t.Fatalf("unexpected command %T", c)
		}
	}
}

type cluster struct {
	*records
	keys map[string]*seal.MemberKey
	cas  map[string]*CA
	now  time.Time
}

func newCluster(t *testing.T) (*cluster, *Material) {
	t.Helper()
	c := &cluster{
		records: &records{authorities: map[string]*raftlogv1.Authority{}, members: map[string]*provisionrv1.Member{}, secrets: map[string]*provisionrv1.Secret{}, zoneKeys: map[string]*provisionrv1.ZoneKey{}},
		keys:    map[string]*seal.MemberKey{}, cas: map[string]*CA{}, now: now,
	}
	member := c.member(t, "a")
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	m, err := Bootstrap(BootstrapConfig{
		Cluster: &provisionrv1.Cluster{Name: "test"}, Member: member, ServerKey: &key.PublicKey, Hosts: []string{"localhost"}, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.apply(t, m.Commands...)
	return c, m
}

func (c *cluster) member(t *testing.T, name string) *provisionrv1.Member {
	t.Helper()
	key, err := seal.NewMemberKey()
	if err != nil {
		t.Fatal(err)
	}
	c.keys[name] = key
	c.cas[name], err = New(Config{
		State: func() Records { return c.records }, Member: name, Key: key, Now: func() time.Time { return c.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return &provisionrv1.Member{Metadata: &provisionrv1.Metadata{Name: name}, SealingKey: key.Public()}
}

func (c *cluster) join(t *testing.T, name string) {
	t.Helper()
	member := c.member(t, name)
	cmd, err := c.cas["a"].Admit(name, member.SealingKey)
	if err != nil {
		t.Fatal(err)
	}
	c.apply(t, &raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: member}}}, cmd)
}

// certificate issues through a member and returns the leaf.
func (c *cluster) certificate(t *testing.T, member string) *x509.Certificate {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := c.cas[member].Issue(pki.ID{Cluster: c.cluster.Id, Kind: pki.Agent, Name: "m-1"}, &key.PublicKey, pki.AgentTTL)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := pki.ParseCerts(chain)
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

func (c *cluster) trusts(cert *x509.Certificate) bool {
	_, err := pki.Verify([]*x509.Certificate{cert}, c.cas["a"].Roots(), c.now, x509.ExtKeyUsageClientAuth)
	return err == nil
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestBootstrap(t *testing.T) {
	c, m := newCluster(t)
	chain := must[[]*x509.Certificate](t)(pki.ParseCerts(m.Certificate))
	roots := must[[]*x509.Certificate](t)(pki.ParseCerts(m.Roots))
	id, err := pki.Verify(chain[:1], roots, now, x509.ExtKeyUsageServerAuth)
	if err != nil || id != (pki.ID{Cluster: m.ClusterID, Kind: pki.Server, Name: "a"}) {
		t.Errorf("server certificate: %v, %v", id, err)
	}
	if pki.SPKIPin(chain[len(chain)-1]) != c.cas["a"].Pins()[0] {
		t.Error("the server's chain does not end with the pinned root")
	}
	key := must[[]byte](t)(m.IssueUser(Admin, chain[0].PublicKey, pki.UserTTL))
	admin := must[[]*x509.Certificate](t)(pki.ParseCerts(key))
	if id, err := pki.FromCert(admin[0]); err != nil || id.Kind != pki.User || id.Name != Admin {
		t.Errorf("admin certificate: %v, %v", id, err)
	}
	if u := m.Commands[0].GetInitCluster().Objects[0].GetUser(); u.GetSpec().GetRole() != provisionrv1.Role_ROLE_ADMIN {
		t.Errorf("no admin among the first objects: %v", u)
	}
	if !c.trusts(c.certificate(t, "a")) {
		t.Error("the first member's certificates are not trusted")
	}
}

func TestTokens(t *testing.T) {
	c, _ := newCluster(t)
	c.join(t, "b")
	a, b := c.cas["a"], c.cas["b"]
	token := must[string](t)(a.MachineToken("m-1", 1))
	if other := must[string](t)(b.MachineToken("m-1", 1)); other != token {
		t.Error("two members make different tokens")
	}
	if err := b.CheckMachineToken("m-1", 1, token); err != nil {
		t.Errorf("right token: %v", err)
	}
	beacon := must[string](t)(a.BeaconToken("m-1", 1))
	if err := b.CheckBeaconToken("m-1", 1, beacon); err != nil {
		t.Errorf("right beacon token: %v", err)
	}
	for name, err := range map[string]error{
		"other machine":        a.CheckMachineToken("m-2", 1, token),
		"other attempt":        a.CheckMachineToken("m-1", 2, token),
		"empty":                a.CheckMachineToken("m-1", 1, ""),
		"beacon as join token": a.CheckMachineToken("m-1", 1, beacon),
		"join as beacon token": a.CheckBeaconToken("m-1", 1, token),
	} {
		if !errs.Is(err, errs.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	foreign, _ := newCluster(t)
	if err := foreign.cas["a"].CheckMachineToken("m-1", 1, token); !errs.Is(err, errs.Unauthenticated) {
		t.Errorf("foreign token: %v", err)
	}
}

func TestRotation(t *testing.T) {
	c, _ := newCluster(t)
	ca := c.cas["a"]
	old := c.certificate(t, "a")
	first := slices.Collect(maps.Keys(c.authorities))[0]
	if _, err := ca.Retire(first); !errs.Is(err, errs.Conflict) {
		t.Errorf("the signing authority can be retired: %v", err)
	}

	c.now = now.Add(24 * time.Hour)
	prepare := must[*raftlogv1.Command](t)(ca.Prepare())
	c.apply(t, prepare)
	second := prepare.GetPutAuthority().Authority.Id
	if len(ca.Roots()) != 2 {
		t.Errorf("%d roots while one is prepared", len(ca.Roots()))
	}
	if issuer := c.certificate(t, "a").Issuer.String(); issuer != old.Issuer.String() {
		t.Error("a prepared authority signs")
	}

	c.apply(t, must[*raftlogv1.Command](t)(ca.Activate(second)))
	fresh := c.certificate(t, "a")
	if fresh.Issuer.String() == old.Issuer.String() {
		t.Error("the activated authority does not sign")
	}
	c.now = now.Add(23 * time.Hour) // Within the old certificate's life.
	if !c.trusts(old) || !c.trusts(fresh) {
		t.Error("both must be trusted until the old one is retired")
	}

	c.apply(t, must[*raftlogv1.Command](t)(ca.Retire(first)))
	if c.trusts(old) || !c.trusts(fresh) {
		t.Error("the retired authority is trusted, or the active one is not")
	}
	if _, err := ca.Activate(first); !errs.Is(err, errs.Conflict) {
		t.Errorf("a retired authority comes back: %v", err)
	}
	if _, err := ca.Activate("none"); !errs.Is(err, errs.NotFound) {
		t.Errorf("an unknown authority: %v", err)
	}
}

// After any prefix of an eviction's commands the remaining members work, and calling it again completes it.
func TestEvict(t *testing.T) {
	count := 1
	for done := 0; done <= count; done++ {
		c, _ := newCluster(t)
		c.join(t, "b")
		token := must[string](t)(c.cas["a"].MachineToken("m-1", 1))
		commands := must[[]*raftlogv1.Command](t)(c.cas["a"].Evict("b"))
		count = len(commands)
		c.apply(t, commands[:done]...)
		if !c.trusts(c.certificate(t, "a")) {
			t.Errorf("after %d commands: cannot issue", done)
		}
		c.apply(t, must[[]*raftlogv1.Command](t)(c.cas["a"].Evict("b"))...)
		if again := must[string](t)(c.cas["a"].MachineToken("m-1", 1)); again != token {
			t.Errorf("after %d commands: tokens changed", done)
		}
		if !c.trusts(c.certificate(t, "a")) {
			t.Errorf("after %d commands and again: cannot issue", done)
		}
		if _, err := c.cas["b"].MachineToken("m-1", 1); err == nil {
			t.Errorf("after %d commands and again: the evicted member still opens secrets", done)
		}
		ring, _, err := c.cas["a"].open(c.records)
		if err != nil || !ring.Settled() {
			t.Errorf("after %d commands and again: the rotation is not complete: %v", done, err)
		}
	}
}

func TestBeforeInit(t *testing.T) {
	c := &cluster{records: &records{}, keys: map[string]*seal.MemberKey{}, cas: map[string]*CA{}, now: now}
	c.member(t, "a")
	if _, err := c.cas["a"].MachineToken("m-1", 1); !errs.Is(err, errs.Unavailable) {
		t.Errorf("MachineToken: %v", err)
	}
	if _, err := c.cas["a"].IssueServer("a", nil, nil); !errs.Is(err, errs.Unavailable) {
		t.Errorf("IssueServer: %v", err)
	}
	if roots := c.cas["a"].Roots(); roots != nil {
		t.Errorf("roots: %v", roots)
	}
}

func FuzzParseServerToken(f *testing.F) {
	f.Add("pvj_abc_AAAA")
	f.Add("pvj__")
	f.Add(strings.Repeat("_", 300))
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseServerToken(s)
		if err != nil {
			return
		}
		again, err := token.Encode()
		if err != nil || again != strings.TrimSpace(s) {
			t.Fatalf("%q becomes %q, %v", s, again, err)
		}
	})
}

func TestServerToken(t *testing.T) {
	c, m := newCluster(t)
	token := must[ServerToken](t)(c.cas["a"].NewServerToken())
	text := must[string](t)(token.Encode())
	got := must[ServerToken](t)(ParseServerToken(text + "\n"))
	roots := must[[]*x509.Certificate](t)(pki.ParseCerts(m.Roots))
	if got.ID != token.ID || string(got.Secret) != string(token.Secret) || got.Pin != pki.SPKIPin(roots[0]) {
		t.Error("the token changed on its way")
	}
	if strings.Contains(text, token.String()) || !strings.Contains(token.String(), "redacted") {
		t.Errorf("String shows the secret: %s", token)
	}
}
