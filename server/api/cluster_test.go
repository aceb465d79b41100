package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/ca"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/seal"
)

// newServer is a server that wants to join.
func newServer(t *testing.T, name string) (csr []byte, key *seal.MemberKey, member *provisionrv1.Member) {
	t.Helper()
	private, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if csr, err = pki.NewCSR(private); err != nil {
		t.Fatal(err)
	}
	if key, err = seal.NewMemberKey(); err != nil {
		t.Fatal(err)
	}
	return csr, key, &provisionrv1.Member{
		Metadata: &provisionrv1.Metadata{Name: name}, SealingKey: key.Public(), FeatureLevel: fsm.Level, RaftAddress: "127.0.0.1:1",
	}
}

func TestJoin(t *testing.T) {
	c := newCluster(t)
	resp, err := provisionrv1.NewClusterServiceClient(c.as(admin)).CreateJoinToken(t.Context(), &provisionrv1.CreateJoinTokenRequest{})
	c.ok(err)
	token, err := ca.ParseServerToken(resp.Token)
	c.ok(err)
	csr, key, member := newServer(t, "b")

	wrong := token
	wrong.Secret = bytes.Repeat([]byte{1}, 32)
	before := c.store.Read().Version().GetIndex()
	if _, err := JoinCluster(t.Context(), c.addr, wrong, csr, member); !errs.Is(err, errs.Denied) {
		t.Errorf("wrong secret: %v", err)
	}
	large := proto.CloneOf(member)
	large.Version = strings.Repeat("x", 1<<20)
	if _, err := JoinCluster(t.Context(), c.addr, token, csr, large); err == nil {
		t.Error("a stranger may send as much as it likes")
	}
	if after := c.store.Read().Version().GetIndex(); after != before {
		t.Errorf("strangers wrote %d entries to the log", after-before)
	}
	stranger := token
	stranger.Pin = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	if _, err := JoinCluster(t.Context(), c.addr, stranger, csr, member); err == nil {
		t.Error("the server's pin is not checked")
	}
	_, _, taken := newServer(t, "a")
	if _, err := JoinCluster(t.Context(), c.addr, token, csr, taken); !errs.Is(err, errs.Exists) {
		t.Errorf("a present member's name: %v", err)
	}
	if c.store.Read().Member("b") != nil {
		t.Fatal("a refused server is a member")
	}

	// A server that did not get the answer asks again.
	var joined *memberv1.JoinResponse
	for range 2 {
		joined, err = JoinCluster(t.Context(), c.addr, token, csr, member)
		c.ok(err)
	}
	chain, err := pki.ParseCerts(joined.Certificate)
	c.ok(err)
	if id, err := pki.FromCert(chain[0]); err != nil || id != (pki.ID{Cluster: c.id, Kind: pki.Server, Name: "b"}) {
		t.Errorf("certificate of %v, %v", id, err)
	}
	if joined.ClusterId != c.id || len(joined.Members) != 2 {
		t.Errorf("%d members of %s", len(joined.Members), joined.ClusterId)
	}
	other, err := ca.New(ca.Config{State: func() ca.Records { return c.store.Read() }, Member: "b", Key: key})
	c.ok(err)
	ours, err := c.authority.MachineToken("m-1", 1)
	c.ok(err)
	if theirs, err := other.MachineToken("m-1", 1); err != nil || theirs != ours {
		t.Errorf("the new member cannot open the cluster's secrets: %v", err)
	}

	csr2, _, third := newServer(t, "c")
	if _, err := JoinCluster(t.Context(), c.addr, token, csr2, third); !errs.Is(err, errs.Denied) {
		t.Errorf("a used token: %v", err)
	}

	// Its removal takes its keys away.
	admins := provisionrv1.NewClusterServiceClient(c.as(admin))
	_, err = admins.RemoveMember(t.Context(), &provisionrv1.RemoveMemberRequest{Name: "b"})
	c.ok(err)
	if _, err := other.MachineToken("m-1", 1); err == nil {
		t.Error("the removed member still opens the cluster's secrets")
	}
	if again, err := c.authority.MachineToken("m-1", 1); err != nil || again != ours {
		t.Errorf("tokens changed with the data key: %v", err)
	}
	if len(c.removed) != 1 || c.store.Read().Member("b") != nil {
		t.Errorf("removed from Raft: %v", c.removed)
	}
	if _, err := admins.RemoveMember(t.Context(), &provisionrv1.RemoveMemberRequest{Name: "a"}); !errs.Is(errs.FromRPC(err), errs.Conflict) {
		t.Errorf("the only member: %v", err)
	}
}

func TestSnapshots(t *testing.T) {
	c := newCluster(t)
	api := provisionrv1.NewClusterServiceClient(c.as(admin))
	stream, err := api.SaveSnapshot(t.Context(), &provisionrv1.SaveSnapshotRequest{})
	c.ok(err)
	var saved []byte
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		c.ok(err)
		saved = append(saved, chunk.Data...)
	}
	if !bytes.Equal(saved, bytes.Repeat([]byte("snapshot"), 30000)) {
		t.Errorf("saved %d bytes", len(saved))
	}
	up, err := api.RestoreSnapshot(t.Context())
	c.ok(err)
	for part := range bytes.SplitSeq(saved, []byte("p")) {
		c.ok(up.Send(&provisionrv1.SnapshotChunk{Data: append(part, 'p')}))
	}
	_, err = up.CloseAndRecv()
	c.ok(err)
	if len(c.removed) != 1 || c.removed[0] != "snapshot" {
		t.Errorf("restored %q", c.removed)
	}
}

func TestAccess(t *testing.T) {
	c := newCluster(t)
	c.user("ann", operator)
	api := provisionrv1.NewAccessServiceClient(c.as(admin))
	ctx := t.Context()
	key, err := pki.NewKey()
	c.ok(err)
	csr, err := pki.NewCSR(key)
	c.ok(err)
	issued, err := api.IssueCertificate(ctx, &provisionrv1.IssueCertificateRequest{User: "ann", Csr: csr})
	c.ok(err)
	cert, err := pki.TLSCertificate([]byte(issued.Certificate), key)
	c.ok(err)
	who, err := provisionrv1.NewClusterServiceClient(c.dial(cert)).GetCluster(ctx, &provisionrv1.GetClusterRequest{})
	c.ok(err)
	if who.Caller.GetName() != "ann" || who.Caller.GetRole() != operator || who.Leader != "a" || who.ServerVersion != "v0" {
		t.Errorf("caller %v", who)
	}
	for name, req := range map[string]*provisionrv1.IssueCertificateRequest{
		"unknown user": {User: "bob", Csr: csr}, "broken request": {User: "ann", Csr: []byte("x")},
	} {
		if _, err := api.IssueCertificate(ctx, req); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
	created, err := api.CreateToken(ctx, &provisionrv1.CreateTokenRequest{Name: "ci", User: "ann", Role: viewer})
	c.ok(err)
	if created.Token.SecretSha256 != nil || created.Token.GetMetadata().GetUid() == "" || !strings.HasPrefix(created.Secret, "pvr_ci_") {
		t.Errorf("%v", created.Token)
	}
	if _, err := api.CreateToken(ctx, &provisionrv1.CreateTokenRequest{Name: "ci", User: "ann"}); !errs.Is(errs.FromRPC(err), errs.Exists) {
		t.Errorf("the same name again: %v", err)
	}
	if _, err := api.CreateToken(ctx, &provisionrv1.CreateTokenRequest{User: "ann", Role: admin}); !errs.Is(errs.FromRPC(err), errs.Invalid) {
		t.Errorf("more than the user's role: %v", err)
	}
	tokens, err := api.ListTokens(ctx, &provisionrv1.ListTokensRequest{})
	c.ok(err)
	if len(tokens.Tokens) != 1 || tokens.Tokens[0].SecretSha256 != nil {
		t.Errorf("%v", tokens)
	}
	client := c.web(nil)
	if code, data := c.request(client, http.MethodGet, "/v1/pools", "", "Authorization", "Bearer "+created.Secret); code != http.StatusOK {
		t.Errorf("token: %d %s", code, data)
	}
	_, err = api.DeleteUser(ctx, &provisionrv1.DeleteUserRequest{Name: "ann"})
	c.ok(err)
	if code, _ := c.request(client, http.MethodGet, "/v1/pools", "", "Authorization", "Bearer "+created.Secret); code == http.StatusOK {
		t.Error("the token of a deleted user works")
	}
	if _, err := api.DeleteUser(ctx, &provisionrv1.DeleteUserRequest{Name: "admin"}); !errs.Is(errs.FromRPC(err), errs.Conflict) {
		t.Errorf("the last admin: %v", err)
	}
}

// lines reads a REST stream line by line.
type lines struct {
	c    *cluster
	body io.Closer
	scan *bufio.Scanner
}

func (c *cluster) lines(client *http.Client, path string) *lines {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.url+path, nil)
	c.ok(err)
	resp, err := client.Do(r)
	c.ok(err)
	if resp.StatusCode != http.StatusOK {
		c.t.Fatalf("%s: %s", path, resp.Status)
	}
	return &lines{c, resp.Body, bufio.NewScanner(resp.Body)}
}

func (l *lines) next() map[string]any {
	l.c.t.Helper()
	if !l.scan.Scan() {
		l.c.t.Fatalf("the stream ended: %v", l.scan.Err())
	}
	var m struct{ Result map[string]any }
	l.c.ok(json.Unmarshal(l.scan.Bytes(), &m))
	return m.Result
}

func TestWatchOverREST(t *testing.T) {
	c := newCluster(t)
	c.commit(pool("web", 1))
	s := c.lines(c.web(c.cert(pki.User, "admin")), "/v1/watch?kinds=pools&kinds=machines")
	defer s.body.Close()
	if m := s.next(); m["put"] == nil {
		t.Errorf("first: %v", m)
	}
	if m := s.next(); m["bookmark"] == nil {
		t.Errorf("then: %v", m)
	}
	id := c.machine("web", 1)
	seen := map[string]bool{}
	for !seen["bookmark"] {
		m := s.next()
		for k := range m {
			seen[k] = true
		}
		if put, ok := m["put"].(map[string]any); ok {
			for k := range put {
				seen[k] = true
			}
		}
	}
	// The pool is put again, for its status counts the machine.
	if !seen["machine"] || !seen["pool"] {
		t.Errorf("after a machine was made: %v", seen)
	}
	for _, step := range [][2]provisionrv1.Phase{
		{provisionrv1.Phase_PHASE_PENDING, provisionrv1.Phase_PHASE_TERMINATING}, {provisionrv1.Phase_PHASE_TERMINATING, provisionrv1.Phase_PHASE_GONE},
	} {
		c.phase(id, step[0], step[1])
	}
	_, err := c.Do(t.Context(), nil, newID(), &raftlogv1.Command{Kind: &raftlogv1.Command_ForgetMachine{ForgetMachine: &raftlogv1.ForgetMachine{Id: id}}})
	c.ok(err)
	for {
		if removed, ok := s.next()["removed"].(map[string]any); ok {
			if removed["kind"] != "machines" || removed["name"] != id {
				t.Errorf("removed %v", removed)
			}
			return
		}
	}
}

func TestWatchRelistsAfterRestore(t *testing.T) {
	c := newCluster(t)
	stream, err := provisionrv1.NewWatchServiceClient(c.as(viewer)).Watch(t.Context(), &provisionrv1.WatchRequest{Kinds: []string{"pools", "members", "slots", "events"}})
	c.ok(err)
	for {
		m, err := stream.Recv()
		c.ok(err)
		if m.GetBookmark() != nil {
			break
		}
	}
	_, err = c.Do(t.Context(), nil, newID(), &raftlogv1.Command{Kind: &raftlogv1.Command_BeginIncarnation{BeginIncarnation: &raftlogv1.BeginIncarnation{Incarnation: 2, SerialBase: 1 << 20}}})
	c.ok(err)
	m, err := stream.Recv()
	c.ok(err)
	if !m.GetRelist() {
		t.Errorf("after a restore: %v", m)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after relist: %v", err)
	}
}

func TestEvents(t *testing.T) {
	c := newCluster(t)
	api := provisionrv1.NewEventServiceClient(c.as(viewer))
	c.commit(pool("web", 1))
	list, err := api.ListEvents(t.Context(), &provisionrv1.ListEventsRequest{Pool: "web"})
	c.ok(err)
	if len(list.Events) != 1 || list.Events[0].Reason != "PoolCreated" {
		t.Fatalf("%v", list.Events)
	}
	if limited, err := api.ListEvents(t.Context(), &provisionrv1.ListEventsRequest{Limit: 1}); err != nil || len(limited.Events) != 1 || limited.Events[0].Reason != "PoolCreated" {
		t.Errorf("the newest one: %v, %v", limited, err)
	}
	if _, err := api.ListEvents(t.Context(), &provisionrv1.ListEventsRequest{Limit: 20000}); !errs.Is(errs.FromRPC(err), errs.Invalid) {
		t.Errorf("limit: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := api.WatchEvents(ctx, &provisionrv1.ListEventsRequest{After: list.Version.Index})
	c.ok(err)
	_, err = stream.Header()
	c.ok(err)
	c.commit(pool("db", 1))
	e, err := stream.Recv()
	c.ok(err)
	if e.Pool != "db" {
		t.Errorf("%v", e)
	}
}
