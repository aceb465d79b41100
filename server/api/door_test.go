package api

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// foreign makes a certificate of another cluster's authority.
func foreign(t *testing.T, cluster, name string) *tls.Certificate {
	t.Helper()
	a, err := pki.NewAuthority(cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Issue(pki.Leaf{ID: pki.ID{Cluster: cluster, Kind: pki.User, Name: name}, Key: &key.PublicKey, TTL: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c, err := pki.TLSCertificate(pki.EncodeCerts(cert), key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Each caller is tried over gRPC and over REST: there is one door.
func TestDoor(t *testing.T) {
	c := newCluster(t)
	for name, role := range map[string]provisionrv1.Role{"viewer": viewer, "operator": operator, "admin2": admin} {
		c.user(name, role)
	}
	admins := provisionrv1.NewAccessServiceClient(c.as(admin))
	token := func(user string, role provisionrv1.Role) string {
		resp, err := admins.CreateToken(t.Context(), &provisionrv1.CreateTokenRequest{User: user, Role: role})
		c.ok(err)
		return resp.Secret
	}
	c.commit(pool("web", 1))
	gone := token("operator", 0)
	name := strings.Split(gone, "_")[1]
	_, err := admins.DeleteToken(t.Context(), &provisionrv1.DeleteTokenRequest{Name: name})
	c.ok(err)

	const broken = errs.Kind("connection refused by TLS")
	tests := []struct {
		name        string
		cert        *tls.Certificate
		token       string
		read, write errs.Kind
	}{
		{"nobody", nil, "", errs.Unauthenticated, errs.Unauthenticated},
		{"foreign certificate", foreign(t, "c-other", "admin"), "", broken, broken},
		{"foreign authority, our name", foreign(t, c.id, "admin"), "", broken, broken},
		{"agent", c.cert(pki.Agent, "m-1"), "", errs.Denied, errs.Denied},
		{"unknown user", c.cert(pki.User, "nobody"), "", errs.Denied, errs.Denied},
		{"server that is no member", c.cert(pki.Server, "z"), "", errs.Denied, errs.Denied},
		{"member", c.cert(pki.Server, "a"), "", "", ""},
		{"viewer", c.cert(pki.User, "viewer"), "", "", errs.Denied},
		{"operator", c.cert(pki.User, "operator"), "", "", ""},
		{"operator's viewer token", nil, token("operator", viewer), "", errs.Denied},
		{"operator's token", nil, token("operator", 0), "", ""},
		{"deleted token", nil, gone, errs.Unauthenticated, errs.Unauthenticated},
		{"broken token beside a good certificate", c.cert(pki.User, "operator"), "pvr_x_y", errs.Unauthenticated, errs.Unauthenticated},
		{"weak token beside a strong certificate", c.cert(pki.User, "operator"), token("viewer", 0), "", errs.Denied},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn := c.dial(tt.cert)
			ctx := t.Context()
			if tt.token != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+tt.token)
			}
			pools := provisionrv1.NewPoolServiceClient(conn)
			_, err := pools.ListPools(ctx, &provisionrv1.ListPoolsRequest{})
			checkRPC(t, "read", err, tt.read, broken)
			_, err = pools.ScalePool(ctx, &provisionrv1.ScalePoolRequest{Name: "web", Size: 1})
			checkRPC(t, "write", err, tt.write, broken)

			client := c.web(tt.cert)
			if tt.read == broken {
				if resp, err := client.Get(c.url + "/v1/pools"); err == nil {
					resp.Body.Close()
					t.Errorf("REST: %s", resp.Status)
				}
				return
			}
			var header []string
			if tt.token != "" {
				header = []string{"Authorization", "Bearer " + tt.token}
			}
			checkREST(c, "read", tt.read)(c.request(client, http.MethodGet, "/v1/pools", "", header...))
			checkREST(c, "write", tt.write)(c.request(client, http.MethodPost, "/v1/pools/web:scale", `{"size":1}`, header...))
		})
	}
	log := c.log.String()
	for _, want := range []string{"caller refused", "call refused", "method=/provisionr.v1.PoolService/ScalePool outcome=ok", "caller=operator", "role=viewer"} {
		if !strings.Contains(log, want) {
			t.Errorf("the audit log lacks %q", want)
		}
	}
	if strings.Contains(log, strings.SplitN(gone, "_", 3)[2]) {
		t.Error("the audit log has a secret")
	}
}

func checkRPC(t *testing.T, what string, err error, want, broken errs.Kind) {
	t.Helper()
	got := errs.KindOf(errs.FromRPC(err))
	if want == broken {
		if err == nil {
			t.Errorf("gRPC %s: let in", what)
		}
		return
	}
	if got != want {
		t.Errorf("gRPC %s: kind %q, want %q: %v", what, got, want, err)
	}
	if want != "" && want != errs.Denied && errs.HintOf(errs.FromRPC(err)) == "" {
		t.Errorf("gRPC %s: no hint: %v", what, err)
	}
}

func checkREST(c *cluster, what string, want errs.Kind) func(int, []byte) {
	return func(code int, data []byte) {
		c.t.Helper()
		if want == "" {
			if code != http.StatusOK {
				c.t.Errorf("REST %s: %d %s", what, code, data)
			}
			return
		}
		if b := c.failure(data); b.Kind != want || b.Code != code || code != want.HTTPStatus() || b.Message == "" {
			c.t.Errorf("REST %s: %d %s, want %s", what, code, data, want)
		}
	}
}

// What serves members must not be reachable here, and neither may a stream of a method without REST form.
func TestOnlyThePublicAPI(t *testing.T) {
	c := newCluster(t)
	conn := c.as(admin)
	if _, err := memberv1.NewMemberServiceClient(conn).Propose(t.Context(), &memberv1.ProposeRequest{}); err == nil {
		t.Error("MemberService answers on the API's port")
	}
	desc := &grpc.StreamDesc{ServerStreams: true}
	stream, err := conn.NewStream(t.Context(), desc, "/no.Such/Method")
	if err == nil {
		err = stream.RecvMsg(&provisionrv1.Event{})
	}
	if err == nil {
		t.Error("an unknown method answers")
	}
	client := c.web(c.cert(pki.User, "admin"))
	if code, _ := c.request(client, http.MethodPost, "/v1/pools", "{}"); code != http.StatusNotImplemented {
		t.Errorf("POST /v1/pools: %d", code)
	}
	if code, data := c.request(client, http.MethodGet, "/v1/nothing", ""); code != http.StatusNotFound || c.failure(data).Kind != errs.NotFound {
		t.Errorf("GET /v1/nothing: %d %s", code, data)
	}
}

func TestCrossOriginWritesAreRefused(t *testing.T) {
	c := newCluster(t)
	c.commit(pool("web", 1))
	client := c.web(c.cert(pki.User, "admin"))
	code, data := c.request(client, http.MethodPost, "/v1/pools/web:scale", `{"size":9}`, "Origin", "https://elsewhere.example", "Sec-Fetch-Site", "cross-site")
	if code != http.StatusForbidden {
		t.Errorf("%d %s", code, data)
	}
	if size := c.store.Read().Pool("web").GetSpec().GetSize(); size != 1 {
		t.Errorf("scaled to %d", size)
	}
}

// Noise on the port harms nobody.
func TestRandomBytes(t *testing.T) {
	c := newCluster(t)
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(i*7919 + i/256)
	}
	for _, data := range [][]byte{noise, noise[:5], []byte("GET / HTTP/1.1\r\n\r\n"), []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), {0x16, 3, 1, 0xff, 0xff}, nil} {
		conn, err := net.Dial("tcp", c.addr)
		c.ok(err)
		c.ok(conn.SetDeadline(time.Now().Add(5 * time.Second)))
		_, err = conn.Write(data)
		c.ok(err)
		_ = conn.(*net.TCPConn).CloseWrite() // The server may have hung up by then.
		for buf := make([]byte, 4096); err == nil; {
			_, err = conn.Read(buf)
		}
		_ = conn.Close()
	}
	// The same within TLS, past the handshake.
	for _, protocol := range []string{"h2", "http/1.1"} {
		conn, err := tls.Dial("tcp", c.addr, c.clientTLS(nil, protocol))
		c.ok(err)
		c.ok(conn.SetDeadline(time.Now().Add(5 * time.Second)))
		_, _ = conn.Write(noise) // The server may have hung up by then.
		for buf := make([]byte, 4096); err == nil; {
			_, err = conn.Read(buf)
		}
		_ = conn.Close()
	}
	if code, data := c.request(c.web(nil), http.MethodGet, "/healthz", ""); code != http.StatusOK {
		t.Errorf("afterwards: %d %s", code, data)
	}
}

func TestPagesWithoutCaller(t *testing.T) {
	c := newCluster(t)
	client := c.web(nil)
	for path, want := range map[string]string{"/": "<!doctype html>", "/healthz": "ok", "/openapi.json": `"swagger"`} {
		if code, data := c.request(client, http.MethodGet, path, ""); code != http.StatusOK || !strings.Contains(string(data), want) {
			t.Errorf("%s: %d %.80s", path, code, data)
		}
	}
	if code, _ := c.request(client, http.MethodGet, "/boot/v1/agent/amd64", ""); code != http.StatusNotFound {
		t.Errorf("/boot/ without a handler: %d", code)
	}
}

func TestWatchEndsWithItsCaller(t *testing.T) {
	c := newCluster(t)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := provisionrv1.NewWatchServiceClient(c.as(viewer)).Watch(ctx, &provisionrv1.WatchRequest{})
	c.ok(err)
	_, err = stream.Recv()
	c.ok(err)
	cancel()
	for err == nil {
		_, err = stream.Recv()
	}
	if !errs.Is(errs.FromRPC(err), errs.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
