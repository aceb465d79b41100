package prove

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/agent/desired"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// text is a string of RFC 4251 section 5.
func text(parts ...[]byte) []byte {
	all := bytes.Join(parts, nil)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(all))), all...)
}

// certificate is a line as ssh-keygen -h -s writes it.
func certificate(t testing.TB, authority ed25519.PrivateKey, typ uint32, after, before time.Time, principals ...string) string {
	t.Helper()
	host, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var names []byte
	for _, p := range principals {
		names = append(names, text([]byte(p))...)
	}
	body := bytes.Join([][]byte{
		text([]byte("ssh-ed25519-cert-v01@openssh.com")), text([]byte("nonce")), text(host), make([]byte, 8), binary.BigEndian.AppendUint32(nil, typ),
		text([]byte("id")), text(names), binary.BigEndian.AppendUint64(nil, uint64(after.Unix())), binary.BigEndian.AppendUint64(nil, uint64(before.Unix())),
		text(), text(), text(), text(text([]byte("ssh-ed25519")), text(authority.Public().(ed25519.PublicKey))),
	}, nil)
	body = append(body, text(text([]byte("ssh-ed25519")), text(ed25519.Sign(authority, body)))...)
	return "ssh-ed25519-cert-v01@openssh.com " + base64.StdEncoding.EncodeToString(body) + " zk-1\n"
}

func TestCertified(t *testing.T) {
	_, authority, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now, day, fqdn := time.Now(), 24*time.Hour, "zk-1.example.internal"
	good := certificate(t, authority, 2, now.Add(-day), now.Add(day), fqdn, "zk-1")
	at := strings.Index(good, "AAAA") + 200
	for name, c := range map[string]struct {
		line  string
		state agentv1.ProofState
		found string
	}{
		"good":          {good, yes, ""},
		"expired":       {certificate(t, authority, 2, now.Add(-2*day), now.Add(-day), fqdn), no, "has expired"},
		"future":        {certificate(t, authority, 2, now.Add(day), now.Add(2*day), fqdn), no, "not valid yet"},
		"other name":    {certificate(t, authority, 2, now.Add(-day), now.Add(day), "zk-2.example.internal"), no, "is not for zk-1"},
		"other signer":  {certificate(t, other, 2, now.Add(-day), now.Add(day), fqdn), no, "not signed by the cluster"},
		"of a user":     {certificate(t, authority, 1, now.Add(-day), now.Add(day), fqdn), no, "no certificate of a host"},
		"tampered with": {good[:at] + "A" + strings.ToLower(good[at+1:at+3]) + good[at+3:], no, ""},
		"cut off":       {good[:len(good)/2], no, "no certificate of a host"},
	} {
		w, s := newWorld(t), state()
		s.Pool.Ssh = &agentv1.Ssh{Certificates: true}
		s.Machine.SshAuthorities = []string{"ssh-ed25519 " + base64.StdEncoding.EncodeToString(append(text([]byte("ssh-ed25519")), text(authority.Public().(ed25519.PublicKey))...)) + " cluster"}
		w.write(t, "etc/ssh/sshd_config.d/10-provisionr.conf", "PasswordAuthentication no\nHostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub\n")
		w.write(t, "etc/ssh/ssh_host_ed25519_key-cert.pub", c.line)
		if v := w.certified(s); v.state != c.state || !strings.Contains(v.found, c.found) {
			t.Errorf("%s: %v", name, v)
		}
	}
	w, s := newWorld(t), state()
	s.Pool.Ssh = &agentv1.Ssh{Certificates: true}
	s.Machine.SshAuthorities = []string{"ssh-ed25519 AAAA"}
	if v := w.certified(s); v.state != no {
		t.Errorf("without a drop-in: %v", v)
	}
}

func FuzzCertificate(f *testing.F) {
	f.Add([]byte("ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29t"))
	_, authority, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(certificate(f, authority, 2, time.Now(), time.Now(), "a")))
	f.Fuzz(func(t *testing.T, line []byte) {
		if c, err := parseCertificate(line); err == nil && c == nil {
			t.Error("neither a certificate nor an error")
		}
	})
}

func TestPing(t *testing.T) {
	for _, a := range []string{"127.0.0.1", "::1"} {
		// Only root may; a namespace may have no IPv6.
		err := ping(t.Context(), netip.MustParseAddr(a))
		if err != nil && !errors.Is(err, os.ErrPermission) && a == "127.0.0.1" {
			t.Errorf("%s: %v", a, err)
		}
	}
}

func TestLinksOfThisMachine(t *testing.T) {
	all, err := links()
	if err != nil || len(all) == 0 {
		t.Fatalf("%v, %v", all, err)
	}
}

// The databases that a stranger may write to, as far as the proofs read them.
func FuzzTables(f *testing.F) {
	f.Add([]byte("Package: a\nStatus: install ok installed\nVersion: 1\nProvides: b (= 1), c\n\nPackage: d\n"))
	f.Add([]byte("30 22 8:16 / /data rw - ext4 /dev/vdb rw\nhost0 0000090A FE00000A 0003 0 0 50 0000FFFF 0 0 0\nUUID=1 /data ext4\n"))
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		stanzas(content)
		s := &desired.State{Machine: &agentv1.MachineComponent{}, Pool: &agentv1.PoolComponent{
			Filesystems: []*agentv1.Filesystem{{Path: "/data"}}, Swap: &agentv1.Swap{SizeMib: 1}, Modules: []*agentv1.KernelModule{{Name: "a"}},
		}}
		for _, name := range []string{"proc/self/mountinfo", "proc/swaps", "proc/modules", "etc/fstab", "proc/self/net/route", "proc/self/net/ipv6_route"} {
			w.write(t, name, string(content))
		}
		for _, v := range []verdict{w.filesystems(s), w.swap(s), w.modules(s)} {
			if v.expected == "" {
				t.Errorf("%v", v)
			}
		}
		w.routes()
	})
}
