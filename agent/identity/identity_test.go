package identity_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/agent/agenttest"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/identity"
	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func open(t *testing.T, h host.Host) *identity.Identity {
	t.Helper()
	i, err := identity.Open(identity.Config{Host: h, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// issue answers a request of the machine as a server would.
func issue(t *testing.T, s *agenttest.Server, i *identity.Identity) *agentv1.JoinResponse {
	t.Helper()
	req, err := i.JoinRequest("test")
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Join(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestKeyIsOnDiskBeforeJoinAndStays(t *testing.T) {
	h, _, _ := hosttest.New(t)
	s := agenttest.New(t, nil)
	s.Bootstrap(t, h, agenttest.Token)
	first := open(t, h)
	if _, err := os.Stat(filepath.Join(h.Root, "var/lib/provisionr-agent/identity/key.pem")); err != nil {
		t.Fatalf("no key before Join: %v", err)
	}
	issue(t, s, first) // the answer is lost
	second := open(t, h)
	if second.Joined() {
		t.Fatal("joined without a certificate")
	}
	resp := issue(t, s, second)
	if s.Keys[0] != s.Keys[1] {
		t.Error("the second Join used another key")
	}
	if err := second.Accept(resp, time.Now()); err != nil {
		t.Fatal(err)
	}
	data, err := h.ReadFile("/etc/provisionr/bootstrap.json")
	if err != nil || strings.Contains(string(data), agenttest.Token) || !strings.Contains(string(data), agenttest.MachineID) {
		t.Errorf("bootstrap file after Join: %s, %v", data, err)
	}
	if st, err := os.Stat(filepath.Join(h.Root, "etc/provisionr/bootstrap.json")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("bootstrap file: %v, %v", st.Mode(), err)
	}
	third := open(t, h)
	if !third.Joined() || third.MachineID() != agenttest.MachineID || third.Endpoints()[0] != s.Addr {
		t.Error("the identity was not read back")
	}
	if _, err := third.JoinRequest("test"); !errs.Is(err, errs.Unauthenticated) || errs.HintOf(err) == "" {
		t.Errorf("a second use of the token: %v", err)
	}
}

// TestScrubAfterCrash opens an identity whose token was not yet removed when the agent was killed.
func TestScrubAfterCrash(t *testing.T) {
	h, _, _ := hosttest.New(t)
	s := agenttest.New(t, nil)
	s.Bootstrap(t, h, agenttest.Token)
	i := open(t, h)
	if err := i.Accept(issue(t, s, i), time.Now()); err != nil {
		t.Fatal(err)
	}
	s.Bootstrap(t, h, agenttest.Token)
	if !open(t, h).Joined() {
		t.Error("joins again")
	}
	if data, err := h.ReadFile("/etc/provisionr/bootstrap.json"); err != nil || strings.Contains(string(data), agenttest.Token) {
		t.Errorf("the token is still there: %s, %v", data, err)
	}
}

func TestReusedDiskStartsAnew(t *testing.T) {
	h, _, _ := hosttest.New(t)
	s := agenttest.New(t, nil)
	s.Bootstrap(t, h, agenttest.Token)
	i := open(t, h)
	if err := i.Accept(issue(t, s, i), time.Now()); err != nil {
		t.Fatal(err)
	}
	data := `{"cluster_id":"test-cluster","machine_id":"m-other","attempt":1,"token":"t","ca_pins":["x"],"agent_endpoints":["a:1"]}`
	if err := h.WriteFile("/etc/provisionr/bootstrap.json", []byte(data), host.Attributes{}); err != nil {
		t.Fatal(err)
	}
	again := open(t, h)
	if again.Joined() || again.MachineID() != "m-other" || again.Endpoints()[0] != "a:1" {
		t.Errorf("machine %s, joined %v", again.MachineID(), again.Joined())
	}
}

func TestTrustOnlyGrows(t *testing.T) {
	h, _, _ := hosttest.New(t)
	s := agenttest.New(t, nil)
	s.Bootstrap(t, h, agenttest.Token)
	s.Trust.Version = 5
	i := open(t, h)
	if err := i.Accept(issue(t, s, i), time.Now()); err != nil {
		t.Fatal(err)
	}
	newer := &agentv1.Trust{Version: 6, ClusterId: agenttest.Cluster, Roots: s.Trust.Roots, Endpoints: []string{"new:7444"}}
	for _, step := range []struct {
		name  string
		trust *agentv1.Trust
		fails bool
		first string
	}{
		{"newer", newer, false, "new:7444"},
		{"older", s.Trust, false, "new:7444"},
		{"foreign", &agentv1.Trust{Version: 7, ClusterId: "other", Roots: s.Trust.Roots, Endpoints: []string{"x:1"}}, true, "new:7444"},
		{"no endpoints", &agentv1.Trust{Version: 7, ClusterId: agenttest.Cluster, Roots: s.Trust.Roots}, true, "new:7444"},
		{"bad endpoint", &agentv1.Trust{Version: 7, ClusterId: agenttest.Cluster, Roots: s.Trust.Roots, Endpoints: []string{"x"}}, true, "new:7444"},
		{"no roots", &agentv1.Trust{Version: 7, ClusterId: agenttest.Cluster, Endpoints: []string{"x:1"}}, true, "new:7444"},
	} {
		if err := i.SetTrust(step.trust); (err != nil) != step.fails {
			t.Errorf("%s: %v", step.name, err)
		}
		if got := i.Endpoints()[0]; got != step.first {
			t.Errorf("%s: first endpoint %s", step.name, got)
		}
		if got := open(t, h).Endpoints()[0]; got != step.first {
			t.Errorf("%s: first endpoint %s after a restart", step.name, got)
		}
	}
	// A renewal by a server that lags behind keeps the newer bundle.
	req, err := i.RenewRequest()
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Join(t.Context(), &agentv1.JoinRequest{MachineId: agenttest.MachineID, Token: agenttest.Token, Csr: req.Csr})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Accept(resp, time.Now()); err != nil || i.Endpoints()[0] != "new:7444" {
		t.Errorf("endpoints %v, %v", i.Endpoints(), err)
	}
}

func TestAcceptRefuses(t *testing.T) {
	h, _, _ := hosttest.New(t)
	s := agenttest.New(t, nil)
	s.Bootstrap(t, h, agenttest.Token)
	i := open(t, h)
	good := issue(t, s, i)
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := s.Authority.Issue(pki.Leaf{ID: pki.ID{Cluster: agenttest.Cluster, Kind: pki.Agent, Name: agenttest.MachineID}, Key: &key.PublicKey, TTL: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, resp := range map[string]*agentv1.JoinResponse{
		"another key":   {Certificate: pki.EncodeCerts(foreign), Trust: good.Trust},
		"no chain":      {Trust: good.Trust},
		"other cluster": {Certificate: good.Certificate, Trust: &agentv1.Trust{Version: 1, ClusterId: "other", Roots: good.Trust.Roots, Endpoints: good.Trust.Endpoints}},
	} {
		if err := i.Accept(resp, time.Now()); err == nil || i.Joined() {
			t.Errorf("%s: %v, joined %v", name, err, i.Joined())
		}
	}
}

func TestRenewalAtHalfLife(t *testing.T) {
	h, _, _ := hosttest.New(t)
	s := agenttest.New(t, nil)
	s.Bootstrap(t, h, agenttest.Token)
	i := open(t, h)
	if err := i.Accept(issue(t, s, i), time.Now()); err != nil {
		t.Fatal(err)
	}
	// 24 h back-dated by one: half of 25 h is 11.5 h from now, and a tenth of 25 h is the jitter.
	for range 100 {
		if in, err := i.RenewIn(); err != nil || in < 11*time.Hour+29*time.Minute || in > 14*time.Hour {
			t.Fatalf("renewal in %s, %v", in, err)
		}
	}
	if i.Expired() {
		t.Error("a new certificate has expired")
	}
	// The servers' clock is what counts.
	i.Observe(time.Now().Add(25*time.Hour), time.Now())
	if !i.Expired() || i.Skew() > -24*time.Hour {
		t.Errorf("expired %v, skew %s", i.Expired(), i.Skew())
	}
	if again := open(t, h); !again.Expired() {
		t.Error("the clock's offset was forgotten")
	}
}

func TestBootstrapRefusals(t *testing.T) {
	for _, data := range []string{``, `[]`, `{}`, `{"cluster_id":"c","machine_id":"m"}`, `{"cluster_id":"c","machine_id":"m","ca_pins":["x"]}`,
		`{"cluster_id":"c","machine_id":"m","ca_pins":["x"],"agent_endpoints":["host"]}`, `{"token":"secret"`} {
		if _, err := identity.ParseBootstrap([]byte(data)); !errs.Is(err, errs.Invalid) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", data, err)
		}
	}
	h, _, _ := hosttest.New(t)
	if _, err := identity.Open(identity.Config{Host: h, Logger: slog.New(slog.DiscardHandler)}); !errs.Is(err, errs.NotFound) || errs.HintOf(err) == "" {
		t.Errorf("no bootstrap file: %v", err)
	}
}

func FuzzParseBootstrap(f *testing.F) {
	f.Add([]byte(`{"cluster_id":"c","machine_id":"m","attempt":1,"token":"t","ca_pins":["x"],"agent_endpoints":["h:1"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := identity.ParseBootstrap(data)
		if err == nil && (b.MachineID == "" || len(b.AgentEndpoints) == 0) {
			t.Errorf("accepted %s", data)
		}
	})
}
