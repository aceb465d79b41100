package stub

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/agent/dnsclient"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

func packed(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	octets, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return octets
}

func unpacked(t testing.TB, octets []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(octets); err != nil {
		t.Fatal(err)
	}
	return m
}

// text answers with as many octets of text, and with the cookie that it is asked with.
func text(octets int) func(*dns.Msg) *dns.Msg {
	return func(q *dns.Msg) *dns.Msg {
		r := new(dns.Msg).SetReply(q)
		r.Authoritative = true
		txt := &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}}
		for n := octets; n > 0; n -= 256 {
			txt.Txt = append(txt.Txt, strings.Repeat("x", min(n-1, 255)))
		}
		r.Answer = []dns.RR{txt}
		if opt := q.IsEdns0(); opt != nil {
			r.Extra = []dns.RR{dns.Copy(opt)}
		}
		return r
	}
}

// withCookie asks for text with room for so many octets.
func withCookie(size uint16, cookie string) *dns.Msg {
	q := new(dns.Msg).SetQuestion("db.p.internal.", dns.TypeTXT).SetEdns0(size, false)
	q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: cookie}}
	return q
}

// TestRememberedForOthers: what is remembered holds nothing of the client that asked, and no more than another takes.
func TestRememberedForOthers(t *testing.T) {
	cluster := serve(t, text(1024))
	s, addr := start(t, nil)
	set(t, s, cluster)
	c := dns.Client{Net: "udp", Timeout: 5 * time.Second}
	r, _, err := c.Exchange(withCookie(4096, "0123456789abcdef"), addr)
	if err != nil || len(r.IsEdns0().Option) != 1 {
		t.Fatal(r, err)
	}
	cluster.stop()
	for _, network := range []string{"udp", "tcp"} {
		c := dns.Client{Net: network, Timeout: 5 * time.Second}
		for _, size := range []uint16{4096, 600} {
			r, _, err := c.Exchange(withCookie(size, "fedcba9876543210"), addr)
			if err != nil {
				t.Fatal(err)
			}
			whole := network == "tcp" || size == 4096
			if r.Truncated == whole || (len(r.Answer) == 1) != whole || !r.Authoritative || r.Rcode != dns.RcodeSuccess {
				t.Errorf("over %s with %d octets: %v", network, size, r)
			}
			if opt := r.IsEdns0(); opt == nil || len(opt.Option) != 0 {
				t.Errorf("over %s with %d octets: OPT record %v", network, size, opt)
			}
		}
	}
	// Signatures are another answer.
	q := withCookie(4096, "fedcba9876543210")
	q.IsEdns0().SetDo()
	if r, _, err := c.Exchange(q, addr); err != nil || r.Rcode != dns.RcodeServerFailure {
		t.Error(r, err)
	}
}

// TestTooLarge: an answer that is larger than what is given on over UDP says so.
func TestTooLarge(t *testing.T) {
	upstream := serve(t, text(dnsclient.MaxUDP+100))
	_, addr := start(t, func(c *Config) { c.Upstreams = func() []netip.AddrPort { return []netip.AddrPort{upstream.addr} } })
	for network, whole := range map[string]bool{"udp": false, "tcp": true} {
		c := dns.Client{Net: network, Timeout: 5 * time.Second}
		r, _, err := c.Exchange(new(dns.Msg).SetQuestion("example.com.", dns.TypeTXT).SetEdns0(8192, false), addr)
		if err != nil || r.Truncated == whole || (len(r.Answer) == 1) != whole || !r.Authoritative || r.IsEdns0() == nil {
			t.Errorf("over %s: %v %v", network, r, err)
		}
	}
}

// TestTooManyAlikeIsNotDown: questions that are cut off say nothing about the servers.
func TestTooManyAlikeIsNotDown(t *testing.T) {
	s, _ := start(t, nil)
	cluster := serve(t, says("192.0.2.1"))
	set(t, s, cluster)
	query := packed(t, new(dns.Msg).SetQuestion("db-1.p.internal.", dns.TypeA))
	key, _ := zone.Key(query)
	s.calls.questions[key[:len(key)-1]] = maxAlike
	if got := summary(unpacked(t, s.forward(t.Context(), query, false))); got != "SERVFAIL" {
		t.Error(got)
	}
	if s.down.Load() != 0 || cluster.asked.Load() != 0 {
		t.Error("the servers count as down, or were asked")
	}
}

// TestDeadUpstreams: queries that wait for upstreams leave room for the cluster's names, and further ones fail at once.
func TestDeadUpstreams(t *testing.T) {
	asked, released := make(chan struct{}, maxUpstream+1), make(chan struct{})
	upstream := serve(t, func(q *dns.Msg) *dns.Msg {
		asked <- struct{}{}
		<-released
		return says("192.0.2.2")(q)
	})
	cluster := serve(t, says("192.0.2.1"))
	s, addr := start(t, func(c *Config) {
		c.Upstreams = func() []netip.AddrPort { return []netip.AddrPort{upstream.addr} }
		c.UpstreamTimeout = time.Minute
	})
	set(t, s, cluster)
	release := sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	var waiting sync.WaitGroup
	for i := range maxUpstream {
		query := packed(t, new(dns.Msg).SetQuestion(dns.Fqdn(strings.Repeat("a", 1+i%60)+"."+strings.Repeat("b", 1+i/60)), dns.TypeA))
		waiting.Go(func() {
			if got := summary(unpacked(t, s.forward(t.Context(), query, false))); got != "NOERROR 192.0.2.2" {
				t.Error(got)
			}
		})
	}
	for range maxUpstream {
		<-asked
	}
	for name, want := range map[string]string{"example.com": "SERVFAIL", "db-1.p.internal": "NOERROR 192.0.2.1", "zk-2.p.internal": "NOERROR 10.88.0.3"} {
		if got := summary(ask(t, "udp", addr, name, dns.TypeA)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	release()
	waiting.Wait()
	if got := summary(ask(t, "udp", addr, "example.com", dns.TypeA)); got != "NOERROR 192.0.2.2" || s.upstream.Load() != 0 {
		t.Errorf("%s, %d wait", got, s.upstream.Load())
	}
}

// TestWithoutOptions: only the options of a final OPT record are taken; an answer with another is not remembered.
func TestWithoutOptions(t *testing.T) {
	q := withCookie(4096, "0123456789abcdef")
	r := says("192.0.2.1")(q)
	r.Ns = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: "p.internal.", Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: 5}, Ns: "ns.p.internal."}}
	r.Compress = true
	plain := packed(t, r)
	if got := withoutOptions(slices.Concat(plain, []byte("behind"))); string(got) != string(plain) {
		t.Error("an answer without OPT record changes")
	}
	opt := q.IsEdns0()
	r.Extra = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "ns.p.internal.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(10, 0, 0, 1).To4()}, opt}
	got := unpacked(t, withoutOptions(packed(t, r)))
	opt.Option = nil
	if got.String() != r.String() {
		t.Errorf("%v, want %v", got, r)
	}
	slices.Reverse(r.Extra)
	if withoutOptions(packed(t, r)) != nil {
		t.Error("an OPT record before another is passed over")
	}
}
