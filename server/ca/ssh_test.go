package ca

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/provisionr/provisionr/internal/errs"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// sshCluster has an authority for ssh.
func sshCluster(t *testing.T) *cluster {
	t.Helper()
	c, _ := newCluster(t)
	if cmd := must[*raftlogv1.Command](t)(c.cas["a"].EnsureSSHAuthority()); cmd != nil {
		t.Fatalf("an authority below level 3: %v", cmd)
	}
	if _, err := c.cas["a"].SignUser(userKey(t), "alice", []string{"alice"}, time.Hour); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("signed without an authority: %v", err)
	}
	c.cluster.FeatureLevel = 3
	roots := len(c.cas["a"].Roots())
	c.apply(t, must[*raftlogv1.Command](t)(c.cas["a"].EnsureSSHAuthority()))
	if cmd := must[*raftlogv1.Command](t)(c.cas["a"].EnsureSSHAuthority()); cmd != nil {
		t.Fatalf("a second authority: %v", cmd)
	}
	if got := len(c.cas["a"].Roots()); got != roots {
		t.Fatalf("%d roots with the authority for ssh, %d without", got, roots)
	}
	c.certificate(t, "a") // TLS does not take the authority for its own
	return c
}

func userKey(t *testing.T) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return lineOf(t, public)
}

func lineOf(t *testing.T, key any) string {
	t.Helper()
	public, err := ssh.NewPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return keyLine(public) + " somebody@somewhere"
}

func parseCert(t *testing.T, line string) *ssh.Certificate {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		t.Fatalf("%s is no certificate", key.Type())
	}
	return cert
}

func (c *cluster) checker(t *testing.T, at time.Time) *ssh.CertChecker {
	t.Helper()
	known := func(key ssh.PublicKey) bool {
		return slices.Contains(c.cas["a"].SSHAuthorities(), keyLine(key))
	}
	return &ssh.CertChecker{
		Clock: func() time.Time { return at }, IsUserAuthority: known,
		IsHostAuthority: func(key ssh.PublicKey, _ string) bool { return known(key) },
	}
}

func TestSignUser(t *testing.T) {
	c := sshCluster(t)
	c.join(t, "b")
	signed := must[*SSHCertificate](t)(c.cas["b"].SignUser(userKey(t), "alice", []string{"alice", "role:operator"}, time.Hour))
	cert := parseCert(t, signed.Line)
	if cert.CertType != ssh.UserCert || cert.KeyId != "alice" || cert.Serial == 0 || cert.Serial != signed.Serial {
		t.Errorf("type %d, id %s, serial %d", cert.CertType, cert.KeyId, cert.Serial)
	}
	for _, e := range []string{"permit-pty", "permit-agent-forwarding", "permit-port-forwarding", "permit-user-rc"} {
		if _, ok := cert.Extensions[e]; !ok {
			t.Errorf("%s is missing", e)
		}
	}
	if _, ok := cert.Extensions["permit-X11-forwarding"]; ok || len(cert.CriticalOptions) > 0 {
		t.Errorf("extensions %v, options %v", cert.Extensions, cert.CriticalOptions)
	}
	for _, tt := range []struct {
		principal string
		at        time.Time
		good      bool
	}{
		{"alice", now, true},
		{"role:operator", now.Add(59 * time.Minute), true},
		{"alice", now.Add(-4 * time.Minute), true},
		{"alice", now.Add(-6 * time.Minute), false},
		{"alice", now.Add(time.Hour), false},
		{"root", now, false},
		{"role:admin", now, false},
	} {
		err := c.checker(t, tt.at).CheckCert(tt.principal, cert)
		if (err == nil) != tt.good {
			t.Errorf("as %s at %s: %v", tt.principal, tt.at.Sub(now), err)
		}
	}
	if _, err := c.cas["a"].SignUser(userKey(t), "nobody", nil, time.Hour); err == nil {
		t.Error("signed for every account")
	}
	again := must[*SSHCertificate](t)(c.cas["a"].SignUser(userKey(t), "alice", []string{"alice"}, time.Hour))
	if again.Serial == signed.Serial {
		t.Error("a serial was used twice")
	}
}

// The authority for ssh outlives the exchange of the data key.
func TestEvictKeepsTheSSHAuthority(t *testing.T) {
	c := sshCluster(t)
	c.join(t, "b")
	before := c.cas["a"].SSHAuthorities()
	c.apply(t, must[[]*raftlogv1.Command](t)(c.cas["a"].Evict("b"))...)
	signed := must[*SSHCertificate](t)(c.cas["a"].SignUser(userKey(t), "alice", []string{"alice"}, time.Hour))
	if err := c.checker(t, now).CheckCert("alice", parseCert(t, signed.Line)); err != nil || !slices.Equal(before, c.cas["a"].SSHAuthorities()) {
		t.Errorf("after the rotation: %v", err)
	}
	if _, err := c.cas["b"].SignUser(userKey(t), "alice", []string{"alice"}, time.Hour); err == nil {
		t.Error("the evicted member still signs")
	}
}

func TestSignHost(t *testing.T) {
	c := sshCluster(t)
	ttl := 30 * 24 * time.Hour
	signed := must[[]byte](t)(c.cas["a"].SignHost([]byte(userKey(t)), []string{"web-1", "web-1.provisionr.internal", "10.88.0.2"}, ttl))
	cert := parseCert(t, string(signed))
	if cert.CertType != ssh.HostCert || len(cert.Extensions) > 0 || cert.ValidBefore != uint64(now.Add(ttl).Unix()) {
		t.Errorf("type %d, extensions %v, until %d", cert.CertType, cert.Extensions, cert.ValidBefore)
	}
	if _, err := c.cas["a"].SignHost([]byte(userKey(t)), nil, ttl); err == nil {
		t.Error("signed for every host")
	}
	if !c.checker(t, now).IsHostAuthority(cert.SignatureKey, "web-1:22") {
		t.Error("the signer is none of the authorities")
	}
	for principal, good := range map[string]bool{"web-1": true, "10.88.0.2": true, "web-2": false} {
		if err := c.checker(t, now).CheckCert(principal, cert); (err == nil) != good {
			t.Errorf("%s: %v", principal, err)
		}
	}
}

// skKey is the wire form of a key on a security key, of which no public constructor is at hand.
func skKey(t *testing.T, kind string, fields ...[]byte) string {
	t.Helper()
	var wire []byte
	for _, f := range append([][]byte{[]byte(kind)}, fields...) {
		wire = append(append(wire, byte(len(f)>>24), byte(len(f)>>16), byte(len(f)>>8), byte(len(f))), f...)
	}
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		t.Fatal(err)
	}
	return keyLine(key)
}

// number is a positive integer of so many bits in the form of the wire (RFC 4251 section 5).
func number(bits uint) []byte {
	return append([]byte{0}, new(big.Int).Lsh(big.NewInt(1), bits-1).Bytes()...)
}

func TestKeysThatAreCertified(t *testing.T) {
	c := sshCluster(t)
	ec := func(curve elliptic.Curve) string {
		key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(curve, rand.Reader))
		return lineOf(t, &key.PublicKey)
	}
	point := func() []byte {
		key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		return must[[]byte](t)(key.PublicKey.Bytes())
	}()
	large := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	cert := must[*SSHCertificate](t)(c.cas["a"].SignUser(userKey(t), "x", []string{"x"}, time.Hour))
	for name, tt := range map[string]struct {
		line string
		good bool
	}{
		"ed25519":     {userKey(t), true},
		"p256":        {ec(elliptic.P256()), true},
		"p384":        {ec(elliptic.P384()), true},
		"p521":        {ec(elliptic.P521()), true},
		"rsa 2048":    {lineOf(t, &large.PublicKey), true},
		"sk ed25519":  {skKey(t, ssh.KeyAlgoSKED25519, bytes.Repeat([]byte{7}, 32), []byte("ssh:")), true},
		"sk ecdsa":    {skKey(t, ssh.KeyAlgoSKECDSA256, []byte("nistp256"), point, []byte("ssh:")), true},
		"rsa 1024":    {lineOf(t, &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(3), 1022), E: 65537}), false},
		"dss":         {skKey(t, "ssh-dss", number(1024), number(160), number(1000), number(1000)), false},
		"certificate": {cert.Line, false},
		"noise":       {"hello", false},
		"two keys":    {userKey(t) + "\n" + userKey(t), false},
		"nothing":     {"", false},
		"options":     {`command="/bin/false" ` + userKey(t), false},
	} {
		got, err := c.cas["a"].SignUser(tt.line, "x", []string{"x"}, time.Hour)
		switch {
		case tt.good && err != nil:
			t.Errorf("%s: %v", name, err)
		case !tt.good && !errs.Is(err, errs.Invalid):
			t.Errorf("%s: %v, %v", name, got, err)
		case tt.good && c.checker(t, now).CheckCert("x", parseCert(t, got.Line)) != nil:
			t.Errorf("%s: the certificate does not hold", name)
		}
	}
}

func TestKeepSSH(t *testing.T) {
	c, _ := newCluster(t)
	c.cluster.FeatureLevel = 3
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	never := make(chan struct{})
	go func() {
		done <- c.cas["a"].KeepSSH(ctx, func() <-chan struct{} { return never }, func(_ context.Context, cmd *raftlogv1.Command) error {
			c.apply(t, cmd)
			cancel()
			return nil
		})
	}()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("KeepSSH: %v", err)
	}
	if lines := c.cas["a"].SSHAuthorities(); len(lines) != 1 || !strings.HasPrefix(lines[0], "ssh-ed25519 ") {
		t.Errorf("authorities: %q", lines)
	}
}
