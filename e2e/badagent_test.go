//go:build machine

package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/ca"
	"github.com/provisionr/provisionr/server/seal"
	"github.com/provisionr/provisionr/server/state"
)

// agents join with tokens that are wrong, foreign or early, and call what is not theirs. It returns the tokens.
func agents(t *testing.T, d *dev) (secrets []string) {
	authority := authorityOf(t, d)
	var machineID string
	d.eventually("the pool has its machine", 10*time.Second, func() error {
		for _, m := range d.machines("lone") {
			machineID = m.Metadata.Name
			return nil
		}
		return errors.New("none")
	})
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	token := func(machine string, attempt uint32) string {
		token, err := authority.MachineToken(machine, attempt)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, token)
		return token
	}
	random := make([]byte, 32)
	_, _ = rand.Read(random)
	foreign := base64.RawURLEncoding.EncodeToString(random)
	secrets = append(secrets, foreign)
	const unknown = "m-aaaaaaaaaaaaaaaa"
	client := agentv1.NewAgentServiceClient(d.dial(d.agents(1), nil))
	for _, tt := range []struct {
		name, machine, token string
		attempt              uint32
		kind                 errs.Kind
	}{
		{"of another cluster", machineID, foreign, 1, errs.Unauthenticated},
		{"of another machine", machineID, token(unknown, 1), 1, errs.Unauthenticated},
		{"of another attempt", machineID, token(machineID, 2), 1, errs.Unauthenticated},
		{"none", machineID, "", 1, errs.Unauthenticated},
		{"of an unknown machine", unknown, token(unknown, 1), 1, errs.Denied},
		{"of a later attempt", machineID, token(machineID, 2), 2, errs.Denied},
		{"before the launch", machineID, token(machineID, 0), 0, errs.Denied},
	} {
		t.Run(tt.name, func(t *testing.T) {
			logged := len(d.fullLog())
			_, err := client.Join(t.Context(), &agentv1.JoinRequest{MachineId: tt.machine, Token: tt.token, Attempt: tt.attempt, Csr: csr})
			if err = errs.FromRPC(err); !errs.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.machine) {
				t.Errorf("kind %q, want %q: %v", errs.KindOf(err), tt.kind, err)
			}
			log := d.fullLog()[logged:]
			if !strings.Contains(log, "agent refused") || !strings.Contains(log, tt.machine) || !strings.Contains(log, "kind="+string(tt.kind)) {
				t.Errorf("the log does not name who was refused: %s", log)
			}
		})
	}
	chain, err := authority.Issue(pki.ID{Cluster: d.cluster(), Kind: pki.Agent, Name: machineID}, key.Public(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := pki.TLSCertificate(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = provisionrv1.NewPoolServiceClient(d.dial(d.api(1), certificate)).ListPools(t.Context(), &provisionrv1.ListPoolsRequest{})
	refused(t, "an agent calls the API", errs.FromRPC(err), errs.Denied)
	status, body := d.rest(t, http.MethodGet, "/v1/pools", "", certificate, "")
	refusedREST(t, status, body, http.StatusForbidden, errs.Denied)
	if err := handshake(d.members(1), d.tls(certificate, "h2")); err == nil {
		t.Error("the members' port takes an agent's certificate")
	}
	// The authority signed it, but the machine never joined with this key.
	session, err := agentv1.NewAgentServiceClient(d.dial(d.agents(1), certificate)).Session(t.Context())
	if err == nil {
		_ = session.Send(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Hello{Hello: &agentv1.Hello{}}})
		_, err = session.Recv()
	}
	if !errs.Is(errs.FromRPC(err), errs.Denied) {
		t.Errorf("a session with a key that is not the machine's: %v", err)
	}
	return secrets
}

// cluster is the id of the cluster.
func (d *dev) cluster() string {
	d.t.Helper()
	id, err := pki.FromCert(d.admin().Leaf)
	if err != nil {
		d.t.Fatal(err)
	}
	return id.Cluster
}

// authorityOf opens the authority of a cluster with what only its server has: its state and its key.
func authorityOf(t *testing.T, d *dev) *ca.CA {
	t.Helper()
	path := filepath.Join(d.dir, "state")
	d.pv("cluster", "snapshot", "save", path)
	store := state.New()
	if err := store.Restore(bytes.NewReader(read(t, path))); err != nil {
		t.Fatal(err)
	}
	key, err := seal.OpenMemberKey(filepath.Join(d.data(), "s1", "identity", "sealing.key"))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ca.New(ca.Config{State: func() ca.Records { return store.Read() }, Member: "s1", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return authority
}
