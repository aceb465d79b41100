package api

import (
	"crypto/ed25519"
	"crypto/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func TestSignSshKey(t *testing.T) {
	c := newCluster(t)
	public, _, err := ed25519.GenerateKey(rand.Reader)
	c.ok(err)
	wire, err := ssh.NewPublicKey(public)
	c.ok(err)
	line := string(ssh.MarshalAuthorizedKey(wire))
	sign := func(role provisionrv1.Role, ttl time.Duration, line string) (*provisionrv1.SignSshKeyResponse, error) {
		r := &provisionrv1.SignSshKeyRequest{PublicKey: line}
		if ttl != 0 {
			r.Ttl = durationpb.New(ttl)
		}
		resp, err := provisionrv1.NewAccessServiceClient(c.as(role)).SignSshKey(t.Context(), r)
		return resp, errs.FromRPC(err)
	}
	if _, err := sign(operator, 0, line); !errs.Is(err, errs.Unavailable) {
		t.Errorf("without an authority: %v", err)
	}
	made, err := c.authority.EnsureSSHAuthority()
	c.ok(err)
	_, err = c.Do(t.Context(), nil, newID(), made)
	c.ok(err)
	for role, want := range map[provisionrv1.Role][]string{
		operator: {"operator", "role:operator"}, admin: {"admin", "role:operator", "role:admin"},
	} {
		resp, err := sign(role, 0, line)
		c.ok(err)
		if in := time.Until(resp.Expires.AsTime()); !slices.Equal(resp.Principals, want) || in > time.Hour || in < 59*time.Minute {
			t.Errorf("%s: principals %v, expires in %s", role, resp.Principals, in)
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(resp.Certificate))
		c.ok(err)
		if cert, ok := key.(*ssh.Certificate); !ok || !slices.Equal(cert.ValidPrincipals, want) || cert.CertType != ssh.UserCert || cert.KeyId != "user "+want[0] {
			t.Errorf("%s: certificate %v", role, key)
		}
	}
	for name, err := range map[string]error{
		"too long": second(sign(operator, 25*time.Hour, line)), "negative": second(sign(operator, -time.Hour, line)),
		"no key": second(sign(operator, 0, "hello")),
	} {
		if !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The caller's own certificate lasts an hour.
	if resp, err := sign(operator, 24*time.Hour, line); err != nil || time.Until(resp.Expires.AsTime()) > time.Hour {
		t.Errorf("a certificate outlives the credential: %v, %v", resp.GetExpires().AsTime(), err)
	}
	if _, err := sign(viewer, 0, line); !errs.Is(err, errs.Denied) {
		t.Errorf("a viewer: %v", err)
	}
	if !strings.Contains(c.log.String(), "key certified for ssh") || !strings.Contains(c.log.String(), "serial=") {
		t.Error("the log does not say whom a serial is of")
	}
	found, err := provisionrv1.NewAccessServiceClient(c.as(viewer)).GetSshAuthorities(t.Context(), &provisionrv1.GetSshAuthoritiesRequest{})
	c.ok(err)
	if len(found.PublicKeys) != 1 || !strings.HasPrefix(found.PublicKeys[0], "ssh-ed25519 ") || !slices.Equal(found.Domains, []string{"provisionr.internal"}) {
		t.Errorf("authorities %v", found)
	}
}

func second[T any](_ T, err error) error { return err }
