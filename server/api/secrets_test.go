package api

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/auth"
)

func (c *cluster) setSecret(name, value string) error {
	c.t.Helper()
	_, err := provisionrv1.NewSecretServiceClient(c.as(operator)).PutSecret(c.t.Context(), &provisionrv1.PutSecretRequest{Name: name, Value: []byte(value)})
	return errs.FromRPC(err)
}

func withFiles(o *provisionrv1.Object, files ...*provisionrv1.File) *provisionrv1.Object {
	o.GetPool().Spec.Files = files
	return o
}

func TestSecretsAreSealedAndNeverShown(t *testing.T) {
	c := newCluster(t)
	const value = "correct horse battery staple"
	c.ok(c.setSecret("db", "first"))
	c.ok(c.setSecret("db", value))
	row := c.store.Read().Secret("db")
	if plain, err := c.authority.OpenSecret(row); err != nil || string(plain) != value || row.GetRevision() != 2 {
		t.Fatalf("revision %d is %q: %v", row.GetRevision(), plain, err)
	}
	c.commit(withFiles(pool("web", 0), &provisionrv1.File{Path: "/etc/db", Secret: "db"}))

	// Every list and every stream that a viewer has, and the log of this server.
	conn := c.as(viewer)
	list, err := provisionrv1.NewSecretServiceClient(conn).ListSecrets(t.Context(), &provisionrv1.ListSecretsRequest{})
	c.ok(err)
	if len(list.Secrets) != 1 || list.Secrets[0].GetRevision() != 2 || !slices.Equal(list.Secrets[0].GetPools(), []string{"web"}) {
		t.Errorf("secrets %v", list.Secrets)
	}
	events, err := provisionrv1.NewEventServiceClient(conn).ListEvents(t.Context(), &provisionrv1.ListEventsRequest{})
	c.ok(err)
	if !slices.ContainsFunc(events.Events, func(e *provisionrv1.Event) bool {
		return e.GetReason() == "SecretChanged" && e.GetCaller().GetName() == "operator" && strings.Contains(e.GetMessage(), "revision 2")
	}) {
		t.Errorf("events %v", events.Events)
	}
	stream, err := provisionrv1.NewWatchServiceClient(conn).Watch(t.Context(), &provisionrv1.WatchRequest{Kinds: []string{"pools", "machines", "slots", "events", "members"}})
	c.ok(err)
	seen := fmt.Sprint(list, events, &c.log)
	for {
		r, err := stream.Recv()
		c.ok(err)
		seen += fmt.Sprint(r)
		if r.GetBookmark() != nil {
			break
		}
	}
	web := c.web(c.cert(pki.User, "viewer"))
	for _, path := range []string{"/v1/secrets", "/v1/pools", "/v1/events", "/v1/cluster", "/v1/zones"} {
		_, body := c.request(web, http.MethodGet, path, "")
		seen += string(body)
	}
	for what, text := range map[string]string{
		"the value": value, "the value in base64": base64.StdEncoding.EncodeToString([]byte(value)),
		"the ciphertext": string(row.GetCiphertext()), "the ciphertext in base64": base64.StdEncoding.EncodeToString(row.GetCiphertext()),
		"its field": "iphertext",
	} {
		if strings.Contains(seen, text) {
			t.Errorf("%s is shown", what)
		}
	}
	for _, kind := range []string{"secrets", "vpns"} {
		if _, err := tablesOf([]string{kind}); !errs.Is(err, errs.Invalid) {
			t.Errorf("watch of %s: %v", kind, err)
		}
	}
}

func TestSecretsOverREST(t *testing.T) {
	c := newCluster(t)
	c.user("olga", operator)
	c.user("vera", viewer)
	body := `{"value": "` + base64.StdEncoding.EncodeToString([]byte("v")) + `"}`
	if status, data := c.request(c.web(c.cert(pki.User, "vera")), http.MethodPut, "/v1/secrets/db", body); status != http.StatusForbidden {
		t.Errorf("a viewer: %d %s", status, data)
	}
	web := c.web(c.cert(pki.User, "olga"))
	if status, data := c.request(web, http.MethodPut, "/v1/secrets/Bad_Name", body); status != http.StatusBadRequest {
		t.Errorf("a bad name: %d %s", status, data)
	}
	if status, data := c.request(web, http.MethodPut, "/v1/secrets/db", body); status != http.StatusOK {
		t.Errorf("set: %d %s", status, data)
	}
	c.commit(withFiles(pool("web", 0), &provisionrv1.File{Path: "/a", Template: proto.String(`{{ secret "db" }}`)}))
	if status, data := c.request(web, http.MethodDelete, "/v1/secrets/db", ""); status != http.StatusConflict || !strings.Contains(string(data), "pool web") {
		t.Errorf("delete of one in use: %d %s", status, data)
	}
	c.commit(pool("web", 0))
	if status, data := c.request(web, http.MethodDelete, "/v1/secrets/db", ""); status != http.StatusOK {
		t.Errorf("delete: %d %s", status, data)
	}
}

// Writers at a time each get a revision of their own, or are told that they lost.
func TestSecretsAtATime(t *testing.T) {
	c := newCluster(t)
	api := provisionrv1.NewSecretServiceClient(c.as(operator))
	var writers sync.WaitGroup
	failed := make([]error, 8)
	for i := range failed {
		writers.Go(func() {
			_, err := api.PutSecret(t.Context(), &provisionrv1.PutSecretRequest{Name: "db", Value: []byte{byte(i)}})
			failed[i] = errs.FromRPC(err)
		})
	}
	writers.Wait()
	want := uint64(0)
	for i, err := range failed {
		switch {
		case err == nil:
			want++
		case !errs.Is(err, errs.Conflict):
			t.Errorf("writer %d: %v", i, err)
		}
	}
	if got := c.store.Read().Secret("db").GetRevision(); got != want || want == 0 {
		t.Errorf("revision %d after %d writes", got, want)
	}
}

func TestSecretsOutliveTheRemovalOfAMember(t *testing.T) {
	c := newCluster(t)
	c.ok(c.setSecret("db", "v"))
	c.member("b")
	member := c.store.Read().Member("b")
	sealing := proto.CloneOf(c.store.Read().Member("a")).SealingKey
	member = proto.CloneOf(member)
	member.SealingKey = sealing
	_, err := c.Do(t.Context(), nil, newID(), &raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: member}}})
	c.ok(err)
	before := c.store.Read().Secret("db")
	_, err = provisionrv1.NewClusterServiceClient(c.as(admin)).RemoveMember(t.Context(), &provisionrv1.RemoveMemberRequest{Name: "b"})
	c.ok(err)
	after := c.store.Read().Secret("db")
	if after.GetKeyVersion() != before.GetKeyVersion()+1 || after.GetRevision() != 1 || string(after.GetCiphertext()) == string(before.GetCiphertext()) {
		t.Errorf("key version %d, revision %d", after.GetKeyVersion(), after.GetRevision())
	}
	if plain, err := c.authority.OpenSecret(after); err != nil || string(plain) != "v" {
		t.Errorf("%q, %v", plain, err)
	}
	c.ok(c.setSecret("db", "w"))
}

func TestPlanWarnsOfMissingSecrets(t *testing.T) {
	c := newCluster(t)
	c.ok(c.setSecret("db", "v"))
	o := withFiles(poolAt("web", 1, "amazon"), &provisionrv1.File{Path: "/a", Secret: "db"}, &provisionrv1.File{Path: "/b", Secret: "later"})
	c.cloud("amazon", &fakeCloud{offer: twoChoices()})
	plan, err := provisionrv1.NewManifestServiceClient(c.as(operator)).Plan(t.Context(), &provisionrv1.PlanRequest{Objects: []*provisionrv1.Object{o}})
	c.ok(err)
	warnings := strings.Join(plan.Changes[0].Warnings, "\n")
	if !strings.Contains(warnings, "secret later does not exist yet") || strings.Contains(warnings, "secret db") {
		t.Errorf("warnings: %s", warnings)
	}
}

// meddler sets a secret the moment the rotation begins.
type meddler struct {
	Authority
	c    *cluster
	once sync.Once
}

func (m *meddler) Evict(member string) ([]*raftlogv1.Command, error) {
	commands, err := m.Authority.Evict(member)
	m.once.Do(func() {
		ciphertext, version, sealErr := m.SealSecret("late", 1, []byte("v"))
		m.c.ok(sealErr)
		_, putErr := m.c.Do(m.c.t.Context(), nil, newID(), &raftlogv1.Command{Kind: &raftlogv1.Command_PutSecret{PutSecret: &raftlogv1.PutSecret{
			Secret: &provisionrv1.Secret{Metadata: &provisionrv1.Metadata{Name: "late"}, Revision: 1, Ciphertext: ciphertext, KeyVersion: version},
		}}})
		m.c.ok(putErr)
	})
	return commands, err
}

func TestSecretSetWhileAMemberIsRemoved(t *testing.T) {
	c := newCluster(t)
	c.ok(c.setSecret("db", "v"))
	s := &clusterService{base: &base{Config: Config{Proposer: c, Syncer: c, State: c.store, Authority: &meddler{Authority: c.authority, c: c}}}}
	ctx := auth.NewContext(t.Context(), &auth.Session{Caller: &provisionrv1.Caller{Name: "ann", Kind: "user", Role: admin}})
	c.ok(s.evict(ctx, "b"))
	for secret := range c.store.Read().Secrets() {
		if plain, err := c.authority.OpenSecret(secret); err != nil || string(plain) != "v" || secret.GetKeyVersion() != c.store.Read().SealedKey().GetOldest() {
			t.Errorf("%s: %q, %v", secret.GetMetadata().GetName(), plain, err)
		}
	}
}
