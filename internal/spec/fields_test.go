package spec_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/reflect/protoreflect"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/spec"
)

// The manifest that the tests of round trips and defaults are made with leaves no field out.
func TestFullUsesEveryField(t *testing.T) {
	used := map[protoreflect.FullName]bool{}
	var walk func(m protoreflect.Message)
	walk = func(m protoreflect.Message) {
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			used[f.FullName()] = true
			switch {
			case f.IsMap() || f.Message() == nil:
			case f.IsList():
				for i := range v.List().Len() {
					walk(v.List().Get(i).Message())
				}
			default:
				walk(v.Message())
			}
			return true
		})
	}
	seen := map[protoreflect.FullName]bool{}
	var missing func(m protoreflect.MessageDescriptor)
	missing = func(m protoreflect.MessageDescriptor) {
		if seen[m.FullName()] || strings.HasPrefix(string(m.FullName()), "google.") {
			return
		}
		seen[m.FullName()] = true
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			if spec.OutputOnly(f) {
				continue
			}
			if !used[f.FullName()] {
				t.Errorf("testdata/full.yaml does not use %s", f.FullName())
			}
			if f.Message() != nil && !f.IsMap() {
				missing(f.Message())
			}
		}
	}
	objects := full(t)
	for _, o := range objects {
		walk(spec.Message(o).ProtoReflect())
	}
	for _, o := range objects {
		missing(spec.Message(o).ProtoReflect().Descriptor())
	}
}

func TestDefaultModes(t *testing.T) {
	pool := full(t)[0]
	spec.Default(pool)
	s := pool.GetPool().GetSpec()
	want := map[string]string{
		"/etc/secrets/db": "0600", "/srv/app": "0755", "/srv/app/current": "", "/etc/secrets/url": "0600", "/etc/motd": "0644", "/etc/app/app.conf": "0640",
	}
	for _, f := range s.Files {
		if mode, ok := want[f.Path]; ok && f.Mode != mode {
			t.Errorf("mode of %s is %q, want %q", f.Path, f.Mode, mode)
		}
	}
	if s.Downloads[1].Mode != "0755" || s.Downloads[1].Owner != "root" || s.Downloads[0].Mode != "0750" {
		t.Errorf("downloads: %v", s.Downloads)
	}
}

// keyLine is a line of authorized_keys of a key in the wire format.
func keyLine(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func TestKeyTypes(t *testing.T) {
	convert := func(key any) ssh.PublicKey {
		t.Helper()
		out, err := ssh.NewPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	edPublic, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys := []ssh.PublicKey{convert(edPublic), convert(&rsaKey.PublicKey)}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, convert(&key.PublicKey))
	}
	sk := ssh.Marshal(struct {
		Type        string
		Key         []byte
		Application string
	}{"sk-ssh-ed25519@openssh.com", edPublic, "ssh:"})
	parsed, err := ssh.ParsePublicKey(sk)
	if err != nil {
		t.Fatal(err)
	}
	keys = append(keys, parsed)

	pool := func(line string) *provisionrv1.Object {
		return &provisionrv1.Object{Kind: &provisionrv1.Object_Pool{Pool: &provisionrv1.Pool{
			ApiVersion: spec.APIVersion, Kind: "Pool", Metadata: &provisionrv1.Metadata{Name: "web"},
			Spec: &provisionrv1.PoolSpec{
				Os:    &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"},
				Users: []*provisionrv1.UserAccount{{Name: "ops", SshKeys: []string{line}}},
			},
		}}}
	}
	for _, key := range keys {
		if err := spec.Validate(pool(keyLine(key))); err != nil {
			t.Errorf("%s: %v", key.Type(), err)
		}
	}

	// dsaKey is of p = 2^1023, q = 2^159, g = 2, y = 4.
	const dsaKey = "ssh-dss AAAAB3NzaC1kc3MAAACBAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAFQCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAECAAAAAQQ="
	signer, err := ssh.NewSignerFromKey(edPrivate)
	if err != nil {
		t.Fatal(err)
	}
	certificate := &ssh.Certificate{Key: keys[0], CertType: ssh.UserCert}
	if err := certificate.SignCert(rand.Reader, signer); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		dsaKey:               "is a DSA key, which sshd refuses",
		keyLine(certificate): "is a certificate, not a key",
	} {
		if err := spec.Validate(pool(line)); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}
