package session

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

func TestJoin(t *testing.T) {
	m := start(t, nil)
	id := m.log.launch(t, "zk", 1)
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // The same key may try again until its first session.
		resp, err := m.joinWith(t, id, token(id, 1), key)
		if err != nil {
			t.Fatal(err)
		}
		certs, err := pki.ParseCerts(resp.GetCertificate())
		if err != nil {
			t.Fatal(err)
		}
		if who, err := pki.FromCert(certs[0]); err != nil || who != (pki.ID{Cluster: clusterID, Kind: pki.Agent, Name: id}) {
			t.Errorf("certificate of %v, error %v", who, err)
		}
		trust := resp.GetTrust()
		if !slices.Equal(trust.GetEndpoints(), []string{"10.88.0.1:7444"}) || trust.GetClusterId() != clusterID || len(trust.GetRoots()) == 0 || trust.GetVersion() == 0 {
			t.Errorf("trust %v", trust)
		}
		if since := time.Since(resp.GetServerTime().AsTime()); since < 0 || since > time.Minute {
			t.Errorf("server's time is %v off", since)
		}
	}
	fingerprint, err := pki.Fingerprint(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if got := m.log.store.Read().Machine(id).GetStatus(); got.GetKeyFingerprint() != fingerprint || got.GetCertificateSerial() == "" {
		t.Errorf("status %v", got)
	}
}

func TestJoinRefused(t *testing.T) {
	m := start(t, nil)
	id, gone := m.log.launch(t, "zk", 1), m.log.launch(t, "zk", 2)
	m.log.phase(t, gone, provisionrv1.Phase_PHASE_TERMINATING)
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, id, token string
		kind            errs.Kind
	}{
		{"foreign token", id, "secret of another", errs.Unauthenticated},
		{"token of another machine", id, token(gone, 1), errs.Unauthenticated},
		{"token of another attempt", id, token(id, 2), errs.Unauthenticated},
		{"unknown machine", "m-none", token("m-none", 1), errs.Denied},
		{"deleted machine", gone, token(gone, 1), errs.Denied},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := m.joinWith(t, tt.id, tt.token, key)
			if !errs.Is(err, tt.kind) {
				t.Fatalf("error %v of kind %s, want %s", err, errs.KindOf(err), tt.kind)
			}
			if !strings.Contains(err.Error(), tt.id) {
				t.Errorf("error %q does not name the machine", err)
			}
			if log := m.records.String(); !strings.Contains(log, tt.id) || !strings.Contains(log, string(tt.kind)) {
				t.Errorf("not logged: %s", log)
			}
			if strings.Contains(err.Error()+m.records.String(), tt.token) {
				t.Error("the token is shown")
			}
		})
	}
	if _, err := m.dial(t, nil, "127.0.0.1").Join(t.Context(), &agentv1.JoinRequest{MachineId: id, Token: token(id, 1), Attempt: 1, Csr: []byte("junk")}); !errs.Is(errs.FromRPC(err), errs.Invalid) {
		t.Errorf("broken csr: %v", err)
	}
}

func TestTokenIsUsedUp(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.mustConnect(m)
	if !m.log.store.Read().Machine(a.id).GetStatus().GetSessionSeen() {
		t.Error("the first session is not recorded")
	}
	if _, err := m.joinWith(t, a.id, token(a.id, 1), a.key); !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), "used") {
		t.Errorf("error %v", err)
	}
}

func TestSecondKeyQuarantines(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.mustConnect(m)
	other, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.joinWith(t, a.id, token(a.id, 1), other); !errs.Is(err, errs.Denied) {
		t.Fatalf("error %v", err)
	}
	if err := a.end(); !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), "quarantined") {
		t.Errorf("the running session ended with %v", err)
	}
	if _, err := a.connect(m, "127.0.0.1", "boot-1"); !errs.Is(err, errs.Denied) {
		t.Errorf("a quarantined machine connects: %v", err)
	}
	if got := reasons(m.log.store.Read()); !slices.Contains(got, "MachineQuarantined") {
		t.Errorf("events %v", got)
	}
}

func TestRenew(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	id := pki.ID{Cluster: clusterID, Kind: pki.Agent, Name: a.id}
	other, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	day := 24 * time.Hour
	tests := []struct {
		name string
		ttl  time.Duration
		swap bool
		kind errs.Kind
	}{
		{"in time", time.Hour, false, ""},
		{"ended yesterday", -day, false, ""},
		{"ended too long ago", -31 * day, false, errs.Unavailable}, // TLS refuses it: to the client the connection breaks.
		{"another key in the request", time.Hour, true, errs.Denied},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key := a.key
			if tt.swap {
				key = other
			}
			csr, err := pki.NewCSR(key)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := m.dial(t, m.certificate(t, id, a.key, tt.ttl), "127.0.0.1").Renew(t.Context(), &agentv1.RenewRequest{Csr: csr})
			if kind := errs.KindOf(errs.FromRPC(err)); kind != tt.kind {
				t.Fatalf("error %v of kind %q, want %q", err, kind, tt.kind)
			}
			if err != nil {
				return
			}
			cert, err := pki.TLSCertificate(resp.GetCertificate(), a.key)
			if err != nil || pki.Expired(cert.Leaf, time.Now()) {
				t.Fatalf("certificate %v, error %v", cert, err)
			}
			if got := m.log.store.Read().Machine(a.id).GetStatus().GetCertificateSerial(); got != pki.Serial(cert.Leaf) {
				t.Errorf("recorded serial %s, issued %s", got, pki.Serial(cert.Leaf))
			}
		})
	}
	t.Run("key of nobody", func(t *testing.T) {
		csr, err := pki.NewCSR(other)
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.dial(t, m.certificate(t, id, other, time.Hour), "127.0.0.1").Renew(t.Context(), &agentv1.RenewRequest{Csr: csr})
		if !errs.Is(errs.FromRPC(err), errs.Denied) {
			t.Errorf("error %v", err)
		}
	})
}

func TestSessionRefused(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	id := pki.ID{Cluster: clusterID, Kind: pki.Agent, Name: a.id}
	right := a.cert
	t.Run("ended certificate", func(t *testing.T) {
		a.cert = m.certificate(t, id, a.key, -time.Minute)
		if _, err := a.connect(m, "127.0.0.1", "b"); !errs.Is(err, errs.Unauthenticated) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("no certificate", func(t *testing.T) {
		a.cert = nil
		if _, err := a.connect(m, "127.0.0.1", "b"); !errs.Is(err, errs.Unauthenticated) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a user's certificate", func(t *testing.T) {
		a.cert = m.certificate(t, pki.ID{Cluster: clusterID, Kind: pki.User, Name: "admin"}, nil, time.Hour)
		if _, err := a.connect(m, "127.0.0.1", "b"); err == nil {
			t.Error("no error")
		}
	})
	t.Run("deleted machine", func(t *testing.T) {
		a.cert = right
		m.log.phase(t, a.id, provisionrv1.Phase_PHASE_TERMINATING)
		if _, err := a.connect(m, "127.0.0.1", "b"); !errs.Is(err, errs.Denied) {
			t.Errorf("error %v", err)
		}
	})
}

func TestClonedIdentity(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	clone := *a
	a.mustConnect(m)
	if _, err := clone.connect(m, "127.0.0.2", "boot-2"); !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), "quarantined") {
		t.Errorf("the clone: %v", err)
	}
	if err := a.end(); !errs.Is(err, errs.Denied) {
		t.Errorf("the original: %v", err)
	}
	m.eventually(t, "quarantine", func(s *state.Snapshot) bool {
		return strings.Contains(s.Machine(a.id).GetStatus().GetQuarantined(), "cloned identity")
	})
	if _, ids := m.Sessions(); len(ids) != 0 {
		t.Errorf("sessions %v", ids)
	}
}
