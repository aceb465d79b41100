//go:build machine

package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// lone is a pool whose one machine stays pending: nobody runs its provider.
const lone = `
apiVersion: provisionr/v1
kind: Provider
metadata: {name: absent}
spec: {local: {owner: s1}}
---
apiVersion: provisionr/v1
kind: Network
metadata: {name: absent}
spec: {cidr: 10.222.2.0/24, provider: absent, managed: true}
---
apiVersion: provisionr/v1
kind: Pool
metadata: {name: lone}
spec:
  size: 1
  provider: absent
  network: absent
  os: {distribution: debian, release: "12"}
---
apiVersion: provisionr/v1
kind: User
metadata: {name: ann}
spec: {role: operator}
`

// TestBadInput is what strangers, guests and broken clients try at one server.
func TestBadInput(t *testing.T) {
	d := startServers(t, "", 1, 18400)
	d.pv("apply", "--yes", "--no-wait", "-f", d.manifest(lone))
	// Every secret that the server is shown; none may be in its log.
	var secrets []string
	t.Run("noise on every port", func(t *testing.T) { noise(t, d) })
	t.Run("nobody", func(t *testing.T) { nobody(t, d) })
	t.Run("foreign certificate", func(t *testing.T) { foreign(t, d) })
	t.Run("tokens", func(t *testing.T) { secrets = append(secrets, tokens(t, d)...) })
	t.Run("manifests and exit codes", func(t *testing.T) { manifests(t, d) })
	t.Run("agents", func(t *testing.T) { secrets = append(secrets, agents(t, d)...) })
	t.Run("no secret is logged", func(t *testing.T) {
		log := d.fullLog()
		for _, secret := range secrets {
			if len(secret) < 16 || strings.Contains(log, secret) {
				t.Errorf("a secret of %d characters is in the log", len(secret))
			}
		}
		if strings.Contains(log, "panic") {
			t.Error("the log tells of a panic")
		}
	})
	healthy(t, d)
}

// healthy checks that all that the server offers works.
func healthy(t *testing.T, d *dev) {
	t.Helper()
	select {
	case err := <-d.exited:
		d.exited <- err
		t.Fatalf("the server ended: %v", err)
	default:
	}
	if status, body := d.rest(t, http.MethodGet, "/healthz", "", nil, ""); status != http.StatusOK {
		t.Errorf("health: %d %s", status, body)
	}
	d.pv("get", "pools")
	for _, protocol := range []string{"+notcp", "+tcp"} {
		if got := output(t, "dig", "+short", "+tries=1", protocol, "-p", fmt.Sprint(d.dnsPort(1)), "@127.0.0.1", "provisionr.internal", "SOA"); !strings.Contains(got, "hostmaster") {
			t.Errorf("dns %s: %q", protocol, got)
		}
	}
	for _, address := range []string{d.agents(1), d.members(1)} {
		conn, err := tls.Dial("tcp", address, d.tls(nil, "h2"))
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		conn.Close()
	}
}

// rest makes one REST call and returns its status and body.
func (d *dev) rest(t *testing.T, method, path, body string, certificate *tls.Certificate, token string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: d.tls(certificate), DisableKeepAlives: true}, Timeout: callTimeout}
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+d.api(1)+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// noise sends random bytes, alone and after what each protocol begins with.
func noise(t *testing.T, d *dev) {
	random := func(n int) []byte {
		b := make([]byte, n)
		_, _ = rand.Read(b)
		return b
	}
	record := append([]byte{22, 3, 1, 64, 0}, random(16384)...)
	preface := append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), random(4096)...)
	say := func(conn net.Conn, err error, data []byte) {
		if err != nil {
			return // refused within the handshake
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(500 * time.Millisecond))
		// The server may hang up at any byte.
		_, _ = conn.Write(data)
		_, _ = io.Copy(io.Discard, io.LimitReader(conn, 1<<20))
	}
	for _, address := range []string{d.api(1), d.agents(1), d.members(1), d.dns(1)} {
		for _, data := range [][]byte{random(1), random(100), random(100_000), record, preface, append([]byte{0xff, 0xff}, random(65535)...)} {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatalf("%s does not listen: %v", address, err)
			}
			say(conn, nil, data)
		}
	}
	for _, address := range []string{d.api(1), d.agents(1), d.members(1)} {
		for _, certificate := range []*tls.Certificate{nil, d.admin()} {
			for _, protocols := range [][]string{nil, {"h2"}, {"http/1.1"}, {"provisionr-raft"}} {
				for _, data := range [][]byte{random(1000), preface, []byte("GET / HTTP/1.1\r\nHost: \x00\r\n" + string(random(2000)))} {
					conn, err := tls.Dial("tcp", address, d.tls(certificate, protocols...))
					say(conn, err, data)
				}
			}
		}
	}
	udp, err := net.Dial("udp", d.dns(1))
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for n := range 1000 {
		data := random(n % 1400)
		if n%2 == 0 && len(data) >= 12 {
			// One question that is noise.
			copy(data[2:], []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		}
		if _, err := udp.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	healthy(t, d)
}

// nobody calls without a certificate and without a token.
func nobody(t *testing.T, d *dev) {
	_, err := provisionrv1.NewPoolServiceClient(d.dial(d.api(1), nil)).ListPools(t.Context(), &provisionrv1.ListPoolsRequest{})
	refused(t, "gRPC", errs.FromRPC(err), errs.Unauthenticated)
	status, body := d.rest(t, http.MethodGet, "/v1/pools", "", nil, "")
	refusedREST(t, status, body, http.StatusUnauthorized, errs.Unauthenticated)
	for _, token := range []string{"x", "pvr_none_" + strings.Repeat("A", 43), strings.Repeat("A", 10_000)} {
		status, body := d.rest(t, http.MethodGet, "/v1/pools", "", nil, token)
		refusedREST(t, status, body, http.StatusUnauthorized, errs.Unauthenticated)
	}
	// The agents' and the members' ports.
	session, err := agentv1.NewAgentServiceClient(d.dial(d.agents(1), nil)).Session(t.Context())
	if err == nil {
		_, err = session.Recv()
	}
	if !errs.Is(errs.FromRPC(err), errs.Unauthenticated) {
		t.Errorf("a session without a certificate: %v", err)
	}
	if err := handshake(d.members(1), d.tls(nil, "h2")); err == nil {
		t.Error("the members' port takes a connection without a certificate")
	}
	if err := handshake(d.members(1), d.tls(d.admin(), "h2")); err == nil {
		t.Error("the members' port takes a user's certificate")
	}
}

// handshake returns why the server does not serve a connection: under TLS 1.3 it says so after the client's handshake.
func handshake(address string, config *tls.Config) error {
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// foreign presents the certificate of another cluster's authority for the same names.
func foreign(t *testing.T, d *dev) {
	id, err := pki.FromCert(d.admin().Leaf)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.NewAuthority(id.Cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []pki.Kind{pki.User, pki.Server, pki.Agent} {
		id := pki.ID{Cluster: id.Cluster, Kind: kind, Name: map[pki.Kind]string{pki.User: "admin", pki.Server: "s1", pki.Agent: "m-aaaaaaaaaaaaaaaa"}[kind]}
		key, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := other.Issue(pki.Leaf{ID: id, Key: key.Public(), TTL: time.Hour}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := pki.TLSCertificate(pki.EncodeCerts(leaf, other.Cert), key)
		if err != nil {
			t.Fatal(err)
		}
		for _, address := range []string{d.api(1), d.agents(1), d.members(1)} {
			if err := handshake(address, d.tls(certificate, "h2")); err == nil || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("%s with the certificate of a foreign %s: %v", address, kind, err)
			}
		}
	}
}

// tokens has a viewer write and an expired token read. It returns the tokens.
func tokens(t *testing.T, d *dev) (secrets []string) {
	viewer := d.createToken("viewer", "ann", provisionrv1.Role_ROLE_VIEWER, time.Hour)
	short := d.createToken("short", "ann", provisionrv1.Role_ROLE_OPERATOR, time.Second)
	conn := d.dial(d.api(1), nil, grpc.WithPerRPCCredentials(bearer(viewer)))
	pools := provisionrv1.NewPoolServiceClient(conn)
	if _, err := pools.ListPools(t.Context(), &provisionrv1.ListPoolsRequest{}); err != nil {
		t.Errorf("a viewer reads over gRPC: %v", err)
	}
	if status, body := d.rest(t, http.MethodGet, "/v1/pools", "", nil, viewer); status != http.StatusOK || !strings.Contains(body, `"lone"`) {
		t.Errorf("a viewer reads over REST: %d %s", status, body)
	}
	_, err := pools.ScalePool(t.Context(), &provisionrv1.ScalePoolRequest{Name: "lone", Size: 2})
	refused(t, "a viewer scales", errs.FromRPC(err), errs.Denied)
	_, err = provisionrv1.NewManifestServiceClient(conn).Apply(t.Context(), &provisionrv1.ApplyRequest{Objects: []*provisionrv1.Object{network("by-viewer", 1)}})
	refused(t, "a viewer applies", errs.FromRPC(err), errs.Denied)
	status, body := d.rest(t, http.MethodPost, "/v1/pools/lone:scale", `{"size": 2}`, nil, viewer)
	refusedREST(t, status, body, http.StatusForbidden, errs.Denied)
	if got := d.pv("get", "pools", "-o", "json"); !strings.Contains(got, `"size": 1`) {
		t.Errorf("a viewer changed the pool: %s", got)
	}
	d.eventually("the token of a second has expired", 10*time.Second, func() error {
		if status, body := d.rest(t, http.MethodGet, "/v1/pools", "", nil, short); status != http.StatusUnauthorized {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	status, body = d.rest(t, http.MethodGet, "/v1/pools", "", nil, short)
	refusedREST(t, status, body, http.StatusUnauthorized, errs.Unauthenticated)
	if !strings.Contains(body, "expired") {
		t.Errorf("the error does not say that the token has expired: %s", body)
	}
	_, err = provisionrv1.NewPoolServiceClient(d.dial(d.api(1), nil, grpc.WithPerRPCCredentials(bearer(short)))).
		ListPools(t.Context(), &provisionrv1.ListPoolsRequest{})
	refused(t, "an expired token over gRPC", errs.FromRPC(err), errs.Unauthenticated)
	d.pv("token", "delete", "viewer")
	status, body = d.rest(t, http.MethodGet, "/v1/pools", "", nil, viewer)
	refusedREST(t, status, body, http.StatusUnauthorized, errs.Unauthenticated)
	return []string{viewer, strings.TrimPrefix(viewer, "pvr_viewer_"), short, strings.TrimPrefix(short, "pvr_short_")}
}

// manifests are refused where they are wrong; the exit codes of plan say what there is to do.
func manifests(t *testing.T, d *dev) {
	before := d.pv("cluster", "info", "-o", "json")
	for _, tt := range []struct{ name, text, where, says string }{
		{"unknown field", "apiVersion: provisionr/v1\nkind: Pool\nmetadata: {name: p}\nspec:\n  size: 1\n  sise: 2\n", ":6:3: ", "sise"},
		{"wrong type", "apiVersion: provisionr/v1\nkind: Pool\nmetadata: {name: p}\nspec:\n  size: many\n", ":5:9: ", "size"},
		{"not YAML", "apiVersion: provisionr/v1\nkind: [\n", ":2:", ""},
		{"unknown kind", "apiVersion: provisionr/v1\nkind: Pol\nmetadata: {name: p}\n", ":2:7: ", "Pol"},
		{"second object wrong", user + "---\napiVersion: provisionr/v1\nkind: Zone\nmetadata: {name: z}\nspec: {domain: 'a b'}\n", "", "domain"},
		{"noise", "\x00\x01\xff", ":1:", ""},
	} {
		text := strings.ReplaceAll(tt.text, "%NAME%", "half")
		path := d.write("bad.yaml", text)
		for _, command := range [][]string{{"apply", "--yes", "-f", path}, {"plan", "-f", path}} {
			if code, out := d.code(command...); code != 1 || !strings.Contains(out, path+tt.where) || !strings.Contains(out, tt.says) {
				t.Errorf("%s: %s: exit %d: %s", tt.name, command[0], code, out)
			}
		}
	}
	// References that only the server can look up.
	missing := d.write("bad.yaml", strings.ReplaceAll(user, "%NAME%", "half")+strings.Replace(
		"---\napiVersion: provisionr/v1\nkind: Pool\nmetadata: {name: p}\nspec: {size: 0, provider: PROVIDER, os: {distribution: debian, release: '12'}}\n", "PROVIDER", "nowhere", 1))
	if code, out := d.code("apply", "--yes", "-f", missing); code != 1 || !strings.Contains(out, "nowhere") {
		t.Errorf("an unknown provider: exit %d: %s", code, out)
	}
	if after := d.pv("cluster", "info", "-o", "json"); !bytes.Equal(index(t, before), index(t, after)) {
		t.Errorf("what was refused changed the state:\n%s%s", before, after)
	}

	good := d.write("good.yaml", strings.ReplaceAll(user, "%NAME%", "good"))
	if code, out := d.code("plan", "-f", good); code != 2 || !strings.Contains(out, "create") {
		t.Errorf("a plan of changes: exit %d: %s", code, out)
	}
	d.pv("apply", "--yes", "-f", good)
	if code, out := d.code("plan", "-f", good); code != 0 || !strings.Contains(out, "nothing to change") {
		t.Errorf("a plan of nothing: exit %d: %s", code, out)
	}
	if code, out := d.code("plan", "-f", filepath.Join(d.dir, "none.yaml")); code != 1 || !strings.Contains(out, "none.yaml") {
		t.Errorf("a plan of no file: exit %d: %s", code, out)
	}
	if code, out := d.code("plan", "-f", good, "--server", "127.0.0.1:1"); code != 1 || !strings.Contains(out, "hint:") {
		t.Errorf("a plan without a server: exit %d: %s", code, out)
	}
}

// index is the part of the cluster's JSON that any change changes.
func index(t *testing.T, info string) []byte {
	t.Helper()
	var parsed struct{ Version json.RawMessage }
	if err := json.Unmarshal([]byte(info), &parsed); err != nil || len(parsed.Version) == 0 {
		t.Fatalf("%v: %s", err, info)
	}
	return parsed.Version
}

// refused checks an error that has a kind and says what to do.
func refused(t *testing.T, what string, err error, kind errs.Kind) {
	t.Helper()
	if !errs.Is(err, kind) || errs.HintOf(err) == "" {
		t.Errorf("%s: kind %q, want %q, with a hint: %v (%s)", what, errs.KindOf(err), kind, err, errs.HintOf(err))
	}
}

func refusedREST(t *testing.T, status int, body string, want int, kind errs.Kind) {
	t.Helper()
	var answer struct {
		Code                int
		Kind, Message, Hint string
	}
	err := json.Unmarshal([]byte(body), &answer)
	if err != nil || status != want || answer.Code != want || answer.Kind != string(kind) || answer.Message == "" || answer.Hint == "" {
		t.Errorf("REST answers %d, want %d, kind %s, with a message and a hint: %s (%v)", status, want, kind, body, err)
	}
}
