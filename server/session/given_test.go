package session

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// ports are what is found on machines' ports: "" never answers, a port that is not there refuses.
type ports map[string]string

func (p ports) dial(_ context.Context, _, address string) (net.Conn, error) {
	text, open := p[address]
	if !open {
		return nil, errors.New("connection refused")
	}
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		_, _ = there.Write([]byte(text))
	}()
	return here, nil
}

func said(reached []*agentv1.Reach) (out []string) {
	for _, r := range reached {
		out = append(out, fmt.Sprintf("%s %d %q %s", r.GetObserver(), r.GetPort(), r.GetGreeting(), r.GetError()))
	}
	return out
}

func TestConfirm(t *testing.T) {
	listening := ports{}
	m := start(t, func(c *Config) { c.Dial = listening.dial })
	a := m.join(t, m.log.launch(t, "zk", 1))
	client := m.dial(t, a.cert, "127.0.0.1")
	address := m.log.store.Read().Machine(a.id).GetStatus().GetAddress()
	confirm := func(ports ...uint32) []string {
		t.Helper()
		resp, err := client.Confirm(t.Context(), &agentv1.ConfirmRequest{Ports: ports})
		if err != nil {
			t.Fatal(err)
		}
		return said(resp.GetReached())
	}
	listening[address+":22"], listening[address+":7446"] = "SSH-2.0-OpenSSH\r\nmore", a.id+"\n"
	if got, want := confirm(7446, 22, 22), []string{`s1 22 "SSH-2.0-OpenSSH" `, `s1 7446 "` + a.id + `" `}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if _, err := client.Confirm(t.Context(), &agentv1.ConfirmRequest{Ports: []uint32{80}}); !errs.Is(errs.FromRPC(err), errs.Denied) {
		t.Errorf("another port: %v", err)
	}

	// The server does not reach it, and there is nobody else.
	delete(listening, address+":22")
	listening[address+":7446"] = "another machine\n"
	if got, want := confirm(22, 7446), []string{`s1 22 "" connection refused`, `s1 7446 "another machine" `}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}

	// Peers try for it.
	peer, late := m.join(t, m.log.launch(t, "zk", 2)), m.join(t, m.log.launch(t, "zk", 3))
	peer.mustConnect(m)
	late.mustConnect(m)
	go func() {
		ask := peer.hear(isAsk).GetAsk()
		var reached []*agentv1.Reach
		for _, port := range append(ask.GetProbe().GetPorts(), 80) {
			reached = append(reached, &agentv1.Reach{Port: port, Greeting: "SSH-2.0 of " + ask.GetProbe().GetAddress(), Observer: "somebody else"})
		}
		peer.say(answer(&agentv1.Answer{Id: ask.GetId(), Kind: &agentv1.Answer_Reached{Reached: &agentv1.ReachList{Reached: reached}}}))
		late.say(answer(&agentv1.Answer{Id: late.hear(isAsk).GetAsk().GetId(), Error: "probes are off"}))
	}()
	if got, want := confirm(22), []string{
		`s1 22 "" connection refused`, `zk-2 22 "SSH-2.0 of ` + address + `" `, `zk-3 22 "" the peer could not be asked: zk-3: probes are off`,
	}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestConfirmIsPaced(t *testing.T) {
	entered, leave := make(chan struct{}, perMachine), make(chan struct{})
	m := start(t, func(c *Config) {
		c.Dial = func(context.Context, string, string) (net.Conn, error) {
			entered <- struct{}{}
			<-leave
			return nil, errors.New("refused")
		}
	})
	a := m.join(t, m.log.launch(t, "zk", 1))
	client := m.dial(t, a.cert, "127.0.0.1")
	confirm := func() error {
		_, err := client.Confirm(t.Context(), &agentv1.ConfirmRequest{Ports: []uint32{22}})
		return errs.FromRPC(err)
	}
	done := make(chan error, perMachine)
	for range perMachine {
		go func() { done <- confirm() }()
		<-entered
	}
	if err := confirm(); !errs.Is(err, errs.Exhausted) {
		t.Errorf("one too many: %v", err)
	}
	close(leave)
	for range perMachine {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := confirm(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestGreeting(t *testing.T) {
	for text, want := range map[string]string{
		"m-1\n": "m-1", "SSH-2.0\r\nx": "SSH-2.0", "no end": "no end", strings.Repeat("x", 999): strings.Repeat("x", maxGreeting),
	} {
		if got, err := greeting(strings.NewReader(text)); err != nil || got != want {
			t.Errorf("greeting of %q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "\n", "\r\n"} {
		if got, err := greeting(strings.NewReader(text)); err == nil {
			t.Errorf("greeting of %q: %q", text, got)
		}
	}
}

// openSecrets says which revision it opened.
type openSecrets struct{}

func (openSecrets) OpenSecret(s *provisionrv1.Secret) ([]byte, error) {
	return fmt.Appendf(nil, "value %d of %s", s.GetRevision(), s.GetMetadata().GetName()), nil
}

func putSecret(name string, revision uint64) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_PutSecret{PutSecret: &raftlogv1.PutSecret{
		Secret: &provisionrv1.Secret{Metadata: named(name), Revision: revision, Ciphertext: []byte("sealed"), KeyVersion: 1},
	}}}
}

func TestSecrets(t *testing.T) {
	m := raised(t, func(c *Config) { c.Secrets = openSecrets{} })
	template := `{{ secret "tls" }}`
	m.log.must(t, putSecret("db", 1), putSecret("db", 2), putSecret("tls", 1), putSecret("other", 1), apply(poolObject("app", &provisionrv1.PoolSpec{
		Size: 1, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"},
		Files: []*provisionrv1.File{{Path: "/etc/db", Secret: "db"}, {Path: "/etc/tls", Template: &template}},
	})))
	a, stranger := m.join(t, m.log.launch(t, "app", 1)), m.join(t, m.log.launch(t, "zk", 1))
	ask := func(by *agent, refs ...*agentv1.SecretRef) ([]string, error) {
		resp, err := m.dial(t, by.cert, "127.0.0.1").Secrets(t.Context(), &agentv1.SecretsRequest{Secrets: refs})
		var values []string
		for _, v := range resp.GetValues() {
			values = append(values, string(v))
		}
		return values, errs.FromRPC(err)
	}
	ref := func(name string, revision uint64) *agentv1.SecretRef {
		return &agentv1.SecretRef{Name: name, Revision: revision}
	}
	got, err := ask(a, ref("tls", 1), ref("db", 2))
	if want := []string{"value 1 of tls", "value 2 of db"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, error %v", got, err)
	}
	for what, tt := range map[string]struct {
		by   *agent
		ref  *agentv1.SecretRef
		kind errs.Kind
	}{
		"not referred to": {a, ref("other", 1), errs.Denied},
		"unknown":         {a, ref("none", 1), errs.Denied},
		"an old revision": {a, ref("db", 1), errs.Conflict},
		"a coming one":    {a, ref("db", 3), errs.Conflict},
		"of another pool": {stranger, ref("db", 2), errs.Denied},
	} {
		if got, err := ask(tt.by, tt.ref); !errs.Is(err, tt.kind) {
			t.Errorf("%s: %q, error %v", what, got, err)
		}
	}
	if _, err := ask(a, make([]*agentv1.SecretRef, maxSecrets+1)...); !errs.Is(err, errs.Exhausted) {
		t.Errorf("too many: %v", err)
	}
	if _, err := ask(&agent{}, ref("db", 2)); !errs.Is(err, errs.Unauthenticated) {
		t.Errorf("without a certificate: %v", err)
	}
	m.log.phase(t, a.id, provisionrv1.Phase_PHASE_TERMINATING)
	if _, err := ask(a, ref("db", 2)); !errs.Is(err, errs.Denied) {
		t.Errorf("of a machine that is being deleted: %v", err)
	}
	if strings.Contains(m.records.String(), "value") {
		t.Error("a value is in the log")
	}
}

// hostSigner says what it signed.
type hostSigner struct{}

func (hostSigner) SignHost(key []byte, principals []string, ttl time.Duration) ([]byte, error) {
	if !bytes.HasPrefix(key, []byte("ssh-")) {
		return nil, errs.New(errs.Invalid, "not a public key")
	}
	return fmt.Appendln(nil, string(key), "for", principals, ttl), nil
}

func TestCertifyHost(t *testing.T) {
	m := start(t, func(c *Config) { c.HostSigner = hostSigner{} })
	a := m.join(t, m.log.launch(t, "zk", 1))
	client := m.dial(t, a.cert, "127.0.0.1")
	resp, err := client.CertifyHost(t.Context(), &agentv1.CertifyHostRequest{PublicKeys: []string{"ssh-a", "ssh-b"}})
	if err != nil {
		t.Fatal(err)
	}
	address := m.log.store.Read().Machine(a.id).GetStatus().GetAddress()
	if want := "ssh-b for [zk-1 zk-1.p.internal " + address + "] 720h0m0s"; len(resp.GetCertificates()) != 2 || resp.GetCertificates()[1] != want {
		t.Errorf("%q, want %q", resp.GetCertificates(), want)
	}
	if in := time.Until(resp.GetRenewAt().AsTime()); in < 14*24*time.Hour || in > 15*24*time.Hour {
		t.Errorf("renewed in %s", in)
	}
	for what, keys := range map[string][]string{
		"no key": {"-----BEGIN OPENSSH PRIVATE KEY-----"}, "a long one": {"ssh-" + strings.Repeat("x", maxKey)}, "too many": make([]string, maxHostKeys+1),
	} {
		if _, err := client.CertifyHost(t.Context(), &agentv1.CertifyHostRequest{PublicKeys: keys}); !errs.Is(errs.FromRPC(err), errs.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestPrincipals: a machine whose slot has another holder is certified for its addresses alone, and its calls have a pace.
func TestPrincipals(t *testing.T) {
	m := start(t, func(c *Config) { c.HostSigner = hostSigner{} })
	a := m.join(t, m.log.launch(t, "zk", 1))
	client := m.dial(t, a.cert, "127.0.0.1")
	certify := func() (string, error) {
		resp, err := client.CertifyHost(t.Context(), &agentv1.CertifyHostRequest{PublicKeys: []string{"ssh-a"}})
		if err != nil {
			return "", errs.FromRPC(err)
		}
		return resp.GetCertificates()[0], nil
	}
	slot := proto.CloneOf(m.log.store.Read().Slot("zk-1"))
	slot.Holder, slot.Heir = "m-other", a.id
	rows(t, m.log.store, slot)
	if got, err := certify(); err != nil || !strings.Contains(got, "[zk-1 zk-1.p.internal ") {
		t.Errorf("an heir gets %q, %v", got, err)
	}
	slot = proto.CloneOf(slot)
	slot.Heir = ""
	rows(t, m.log.store, slot)
	address := m.log.store.Read().Machine(a.id).GetStatus().GetAddress()
	if got, err := certify(); err != nil || !strings.Contains(got, "["+address+"]") {
		t.Errorf("after the handover it gets %q, %v", got, err)
	}
	var err error
	for range callBurst {
		if _, err = certify(); err != nil {
			break
		}
	}
	if !errs.Is(err, errs.Exhausted) {
		t.Errorf("after %d calls: %v", callBurst+2, err)
	}
}

// programs are programs in memory.
type programs [][]byte

func (p programs) Program(hash []byte) (io.ReaderAt, int64, bool) {
	for _, content := range p {
		if sum := sha256.Sum256(content); bytes.Equal(sum[:], hash) {
			return bytes.NewReader(content), int64(len(content)), true
		}
	}
	return nil, 0, false
}

func (p programs) Helpers() map[string][]byte {
	sum := sha256.Sum256(p[0])
	return map[string][]byte{"wireguard/amd64": sum[:]}
}

func TestFetch(t *testing.T) {
	content := bytes.Repeat([]byte("program "), 50_000)
	m := start(t, func(c *Config) { c.Programs = programs{content, {}} })
	a := m.join(t, m.log.launch(t, "zk", 1))
	client := m.dial(t, a.cert, "127.0.0.1")
	fetch := func(hash [32]byte, offset uint64) (got []byte, size uint64, err error) {
		stream, err := client.Fetch(t.Context(), &agentv1.FetchRequest{Sha256: hash[:], Offset: offset})
		if err != nil {
			return nil, 0, errs.FromRPC(err)
		}
		for {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return got, size, nil
			}
			if err != nil {
				return got, size, errs.FromRPC(err)
			}
			got, size = append(got, r.GetData()...), max(size, r.GetSize())
		}
	}
	hash := sha256.Sum256(content)
	for _, offset := range []uint64{0, 1, fetchChunk, uint64(len(content)) - 1, uint64(len(content))} {
		if got, size, err := fetch(hash, offset); err != nil || size != uint64(len(content)) || !bytes.Equal(got, content[offset:]) {
			t.Errorf("from %d: %d bytes of %d, error %v", offset, len(got), size, err)
		}
	}
	if got, size, err := fetch(sha256.Sum256(nil), 0); err != nil || len(got) != 0 || size != 0 {
		t.Errorf("an empty one: %d bytes of %d, error %v", len(got), size, err)
	}
	if _, _, err := fetch(hash, uint64(len(content))+1); !errs.Is(err, errs.Invalid) {
		t.Errorf("beyond the end: %v", err)
	}
	if _, _, err := fetch([32]byte{}, 0); !errs.Is(err, errs.NotFound) {
		t.Errorf("unknown: %v", err)
	}
	c, err := m.compiler.Compile(m.log.store.Read(), a.id)
	if err != nil {
		t.Fatal(err)
	}
	if own := decode(t, c, "machine", &agentv1.MachineComponent{}); !bytes.Equal(own.GetPrograms()["wireguard/amd64"], hash[:]) {
		t.Errorf("programs %v", own.GetPrograms())
	}
}

func TestPlacesAreBounded(t *testing.T) {
	p := newPlaces(3)
	var back []func()
	for _, id := range []string{"m-1", "m-1", "m-2"} {
		giveBack, err := p.take(id, "calls")
		if err != nil {
			t.Fatal(err)
		}
		back = append(back, giveBack)
	}
	if _, err := p.take("m-3", "calls"); !errs.Is(err, errs.Exhausted) {
		t.Errorf("a fourth: %v", err)
	}
	back[2]()
	if _, err := p.take("m-1", "calls"); !errs.Is(err, errs.Exhausted) {
		t.Errorf("a third of one machine: %v", err)
	}
	back[0]()
	back[1]()
	if p.all != 0 || len(p.taken) != 0 {
		t.Errorf("%d are left, of %v", p.all, p.taken)
	}
}

// TestUnsupportedCalls: a member without the means says so.
func TestUnsupportedCalls(t *testing.T) {
	m := start(t, nil)
	a := m.join(t, m.log.launch(t, "zk", 1))
	client := m.dial(t, a.cert, "127.0.0.1")
	_, secrets := client.Secrets(t.Context(), &agentv1.SecretsRequest{})
	_, certify := client.CertifyHost(t.Context(), &agentv1.CertifyHostRequest{})
	stream, err := client.Fetch(t.Context(), &agentv1.FetchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, fetch := stream.Recv()
	for what, err := range map[string]error{"secrets": secrets, "certify": certify, "fetch": fetch} {
		if !errs.Is(errs.FromRPC(err), errs.Unsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
