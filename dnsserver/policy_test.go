package dnsserver_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver"
)

// nobody knows no source.
func nobody(netip.Addr) bool { return false }

func twoSecrets() [2][16]byte { return [2][16]byte{{1, 2, 3}, {4, 5, 6}} }

// question makes a query with EDNS options.
func question(name string, typ uint16, options ...dns.EDNS0) *dns.Msg {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), typ)
	m.RecursionDesired = false
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = options
	return m
}

func cookie(value string) *dns.EDNS0_COOKIE {
	return &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: value}
}

// ask exchanges one message over UDP.
func ask(t *testing.T, s *dnsserver.Server, m *dns.Msg) *dns.Msg {
	t.Helper()
	conn, err := dns.DialTimeout("udp", s.Addr().String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.UDPSize = 4096
	if err := conn.WriteMsg(m); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	r, err := conn.ReadMsg()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func option[T dns.EDNS0](m *dns.Msg) (found T) {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if o, ok := o.(T); ok {
				return o
			}
		}
	}
	return found
}

// extended returns the extended error of an answer; 65535, which is none, where it has none.
func extended(m *dns.Msg) uint16 {
	if e := option[*dns.EDNS0_EDE](m); e != nil {
		return e.InfoCode
	}
	return 65535
}

// TestUnknownSource: a large answer needs a cookie or TCP.
func TestUnknownSource(t *testing.T) {
	s := start(t, dnsserver.Config{Known: nobody, Cookies: twoSecrets}, zoneWith(t, 1, 40))
	if r := ask(t, s, question("all.example.test", dns.TypeA)); !r.Truncated || len(r.Answer) != 0 {
		t.Errorf("without a cookie: %v", r)
	}
	if r := ask(t, s, question("h-0.example.test", dns.TypeA)); r.Truncated || len(r.Answer) != 1 {
		t.Errorf("a small answer: %v", r)
	}
	r := ask(t, s, question("all.example.test", dns.TypeA, cookie("0011223344556677")))
	given := option[*dns.EDNS0_COOKIE](r)
	if !r.Truncated || given == nil || len(given.Cookie) != 48 || !strings.HasPrefix(given.Cookie, "0011223344556677") {
		t.Fatalf("with a new cookie: %v", r)
	}
	r = ask(t, s, question("all.example.test", dns.TypeA, cookie(given.Cookie)))
	if r.Truncated || len(r.Answer) != 40 || option[*dns.EDNS0_COOKIE](r).Cookie != given.Cookie {
		t.Errorf("with the server's cookie: %v", r)
	}
	r = ask(t, s, question("all.example.test", dns.TypeA, cookie(given.Cookie[:46]+"00")))
	if again := option[*dns.EDNS0_COOKIE](r); !r.Truncated || again == nil || again.Cookie[:32] == given.Cookie[:46] {
		t.Errorf("with a forged cookie: %v", r)
	}
	tcp := dns.Client{Net: "tcp", Timeout: 5 * time.Second}
	if r, _, err := tcp.Exchange(question("all.example.test", dns.TypeA), s.Addr().String()); err != nil || len(r.Answer) != 40 {
		t.Errorf("over tcp: %v %v", r, err)
	}
	if got := s.Stats(); got.Cookies != 1 || got.TCP != 1 || got.Truncated != 3 {
		t.Errorf("counted %+v", got)
	}
}

func TestKnownSource(t *testing.T) {
	s := start(t, dnsserver.Config{Known: func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.1") }, RateLimit: 1}, zoneWith(t, 1, 40))
	for range 5 {
		if r := ask(t, s, question("all.example.test", dns.TypeA)); len(r.Answer) != 40 {
			t.Fatal(r)
		}
	}
}

// TestCookieOnly: a query without a question asks for a cookie (RFC 7873 section 5.4).
func TestCookieOnly(t *testing.T) {
	with := start(t, dnsserver.Config{Cookies: twoSecrets}, zoneWith(t, 1, 1))
	without := start(t, dnsserver.Config{}, zoneWith(t, 1, 1))
	bare := question("x.", dns.TypeA, cookie("0011223344556677"))
	bare.Question = nil
	r := ask(t, with, bare)
	given := option[*dns.EDNS0_COOKIE](r)
	if r.Rcode != dns.RcodeSuccess || given == nil || len(given.Cookie) != 48 {
		t.Fatal(r)
	}
	bare.IsEdns0().Option = []dns.EDNS0{cookie(given.Cookie)}
	if r := ask(t, with, bare); r.Rcode != dns.RcodeSuccess {
		t.Error(r)
	}
	bare.IsEdns0().Option = []dns.EDNS0{cookie(given.Cookie[:46] + "00")}
	if r := ask(t, with, bare); r.Rcode != dns.RcodeBadCookie || option[*dns.EDNS0_COOKIE](r) == nil {
		t.Error(r)
	}
	if r := ask(t, without, bare); r.Rcode != dns.RcodeFormatError {
		t.Error(r)
	}
	if r := ask(t, without, question("h-0.example.test", dns.TypeA, cookie("0011223344556677"))); len(r.Answer) != 1 || option[*dns.EDNS0_COOKIE](r) != nil {
		t.Error(r)
	}
}

func TestExtendedErrors(t *testing.T) {
	s := start(t, dnsserver.Config{}, zoneWith(t, 1, 1))
	if r := ask(t, s, question("example.com", dns.TypeA)); r.Rcode != dns.RcodeRefused || extended(r) != dns.ExtendedErrorCodeNotAuthoritative {
		t.Error(r)
	}
	if r := ask(t, s, question("example.test", dns.TypeAXFR)); r.Rcode != dns.RcodeRefused || extended(r) != dns.ExtendedErrorCodeProhibited {
		t.Error(r)
	}
	chaos := question("version.bind", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	if r := ask(t, s, chaos); r.Rcode != dns.RcodeRefused {
		t.Error(r)
	}
	if r := ask(t, s, new(dns.Msg).SetQuestion("example.com.", dns.TypeA)); r.Rcode != dns.RcodeRefused || r.IsEdns0() != nil {
		t.Error(r)
	}
	early := listening(t, dnsserver.Config{})
	if r := ask(t, early, question("h-0.example.test", dns.TypeA)); r.Rcode != dns.RcodeServerFailure || extended(r) != dns.ExtendedErrorCodeNotReady {
		t.Error(r)
	}
}

func TestServerID(t *testing.T) {
	s := start(t, dnsserver.Config{ID: "server-1"}, zoneWith(t, 1, 1))
	nsid := &dns.EDNS0_NSID{Code: dns.EDNS0NSID}
	if r := ask(t, s, question("h-0.example.test", dns.TypeA, nsid)); option[*dns.EDNS0_NSID](r).Nsid != "7365727665722d31" {
		t.Error(r)
	}
	if r := ask(t, s, question("h-0.example.test", dns.TypeA)); option[*dns.EDNS0_NSID](r) != nil {
		t.Error(r)
	}
}

// TestRateLimit: beyond the limit every second answer is cut, the others are not sent; a client that has a cookie is told
// to use it, and one that does is not limited.
func TestRateLimit(t *testing.T) {
	s := start(t, dnsserver.Config{Known: nobody, Cookies: twoSecrets, RateLimit: 1}, zoneWith(t, 1, 1))
	conn, err := dns.DialTimeout("udp", s.Addr().String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// flood asks until the second's limit is far behind, and returns the answers by id.
	flood := func(options ...dns.EDNS0) (answers []*dns.Msg) {
		const n = 40
		for id := range uint16(n) {
			m := question("h-0.example.test", dns.TypeA, options...)
			m.Id = id
			if err := conn.WriteMsg(m); err != nil {
				t.Fatal(err)
			}
		}
		last := question("h-0.example.test", dns.TypeA, cookie(learn(t, s)))
		last.Id = n
		if err := conn.WriteMsg(last); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for {
			r, err := conn.ReadMsg()
			if err != nil {
				t.Fatal(err)
			}
			if r.Id == n {
				return answers
			}
			answers = append(answers, r)
		}
	}
	// The clock may turn a second over in between: then there are more answers.
	count := func(answers []*dns.Msg, is func(*dns.Msg) bool) (n int) {
		for _, r := range answers {
			if is(r) {
				n++
			}
		}
		return n
	}
	answers := flood()
	full := count(answers, func(r *dns.Msg) bool { return len(r.Answer) == 1 })
	cut := count(answers, func(r *dns.Msg) bool { return r.Truncated && len(r.Answer) == 0 })
	if full < 1 || full > 4 || cut < 14 || cut > 20 || full+cut != len(answers) {
		t.Errorf("%d answers in full and %d cut, of %d", full, cut, len(answers))
	}
	answers = flood(cookie("0011223344556677"))
	told := count(answers, func(r *dns.Msg) bool { return r.Rcode == dns.RcodeBadCookie && option[*dns.EDNS0_COOKIE](r) != nil })
	if told < 14 {
		t.Errorf("%d of %d answers say BADCOOKIE", told, len(answers))
	}
	if answers = flood(cookie(learn(t, s))); count(answers, func(r *dns.Msg) bool { return len(r.Answer) == 1 }) != 40 {
		t.Errorf("with a cookie: %d answers", len(answers))
	}
	if got := s.Stats(); got.Limited < 30 || got.Slipped < 30 || got.Cookies < 40 {
		t.Errorf("counted %+v", got)
	}
}

// learn returns a cookie with the server's part, which it gets over TCP.
func learn(t *testing.T, s *dnsserver.Server) string {
	t.Helper()
	tcp := dns.Client{Net: "tcp", Timeout: 5 * time.Second}
	r, _, err := tcp.Exchange(question("h-0.example.test", dns.TypeA, cookie("8899aabbccddeeff")), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return option[*dns.EDNS0_COOKIE](r).Cookie
}

// TestSpecial: transfers get as many messages as they like over TCP, one of bounded size over UDP.
func TestSpecial(t *testing.T) {
	tooLarge := make(chan error, 1)
	special := func(_ context.Context, from netip.AddrPort, query []byte, tcp bool, options []byte, send func([]byte) error) error {
		if !from.Addr().IsLoopback() {
			t.Errorf("from %s", from)
		}
		m := new(dns.Msg)
		if err := m.Unpack(query); err != nil {
			return err
		}
		if len(options) == 0 {
			t.Error("no options for the answer")
		}
		small, err := new(dns.Msg).SetReply(m).Pack()
		if err != nil {
			return err
		}
		if !tcp {
			tooLarge <- send(make([]byte, 1233))
			return send(small)
		}
		if m.Question[0].Name == "fail.test." {
			return errors.New("no")
		}
		return errors.Join(send(small), send(small), send(small))
	}
	s := start(t, dnsserver.Config{Special: special, Cookies: twoSecrets}, zoneWith(t, 1, 1))
	ours := cookie("0011223344556677")
	if r := ask(t, s, question("example.test", dns.TypeIXFR, ours)); r.Rcode != dns.RcodeSuccess {
		t.Error(r)
	}
	if err := <-tooLarge; !errors.Is(err, dnsserver.ErrTooLarge) {
		t.Errorf("1233 octets over udp: %v", err)
	}
	notify := question("example.test", dns.TypeSOA, ours)
	notify.Opcode = dns.OpcodeNotify
	if r := ask(t, s, notify); r.Rcode != dns.RcodeSuccess || r.Opcode != dns.OpcodeNotify {
		t.Error(r)
	}
	<-tooLarge
	conn, err := dns.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, name := range []string{"example.test", "fail.test"} {
		if err := conn.WriteMsg(question(name, dns.TypeAXFR)); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if _, err := conn.ReadMsg(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.ReadMsg(); err == nil {
		t.Error("an error does not end the connection")
	}
	plain := start(t, dnsserver.Config{}, zoneWith(t, 1, 1))
	if r := ask(t, plain, notify); r.Rcode != dns.RcodeNotImplemented {
		t.Error(r)
	}
}

// TestMaxFallback: queries beyond the bound are dropped, and those that wait end with the server.
func TestMaxFallback(t *testing.T) {
	waiting := make(chan struct{}, 3)
	s := start(t, dnsserver.Config{Readers: 1, MaxFallback: 2, Fallback: func(ctx context.Context, _ []byte, _ bool) []byte {
		waiting <- struct{}{}
		<-ctx.Done()
		return nil
	}}, zoneWith(t, 1, 1))
	conn, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	q, err := question("example.com", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := conn.Write(q); err != nil {
			t.Fatal(err)
		}
	}
	<-waiting
	<-waiting
	if r := ask(t, s, question("h-0.example.test", dns.TypeA)); len(r.Answer) != 1 {
		t.Error(r)
	}
	if got := s.Stats(); len(waiting) != 0 || got.Overflowed != 3 || got.Deferred != 5 {
		t.Errorf("%d more, %+v", len(waiting), got)
	}
}
