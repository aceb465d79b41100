package stub

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/dnsserver/zone"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a DNS server on loopback that answers as it is told, and counts.
type server struct {
	addr  netip.AddrPort
	asked atomic.Int64
	stop  func()
}

func serve(t *testing.T, handle func(q *dns.Msg) *dns.Msg) *server {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: netip.MustParseAddrPort(tcp.Addr().String())}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		s.asked.Add(1)
		if r := handle(q); r != nil {
			// A client that went away does not matter.
			_ = w.WriteMsg(r)
		}
	})
	var group sync.WaitGroup
	servers := []*dns.Server{{PacketConn: udp, Handler: handler}, {Listener: tcp, Handler: handler}}
	for _, d := range servers {
		started := make(chan struct{})
		d.NotifyStartedFunc = func() { close(started) }
		group.Go(func() { _ = d.ActivateAndServe() })
		<-started
	}
	s.stop = sync.OnceFunc(func() {
		for _, d := range servers {
			_ = d.Shutdown()
		}
		group.Wait()
	})
	t.Cleanup(s.stop)
	return s
}

// says answers every A question with an address.
func says(address string) func(*dns.Msg) *dns.Msg {
	return func(q *dns.Msg) *dns.Msg {
		r := new(dns.Msg).SetReply(q)
		r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 86400}, A: net.ParseIP(address)}}
		return r
	}
}

func fails(code int) func(*dns.Msg) *dns.Msg {
	return func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, code) }
}

func silent(*dns.Msg) *dns.Msg { return nil }

func start(t *testing.T, edit func(*Config)) (*Stub, string) {
	t.Helper()
	cfg := Config{
		Addr: netip.MustParseAddrPort("127.0.0.1:0"), Logger: slog.New(slog.DiscardHandler),
		ServerTimeout: 200 * time.Millisecond, UpstreamTimeout: 200 * time.Millisecond,
	}
	if edit != nil {
		edit(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, run(t, s)
}

func run(t *testing.T, s *Stub) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s.mu.Lock()
	started := s.ready
	s.mu.Unlock()
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	<-started
	addr, err := s.addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return addr.String()
}

func set(t *testing.T, s *Stub, servers ...*server) {
	t.Helper()
	var addrs []string
	for _, server := range servers {
		addrs = append(addrs, server.addr.String())
	}
	err := s.Set(&desired.State{
		Machine: &agentv1.MachineComponent{
			MachineId: "m-1", Name: "zk-1", Fqdn: "zk-1.p.internal", Pool: "zk", Domain: "p.internal", DnsServers: append(addrs, "by-name:53"),
			Zones: []string{"0.88.10.in-addr.arpa", "p.internal"},
		},
		Pool: &agentv1.PoolComponent{Name: "zk", Aliases: []string{"quorum"}},
		Members: map[string][]*agentv1.Member{
			"zk": {
				{Name: "zk-1", Fqdn: "zk-1.p.internal", Index: 1, Address: "10.88.0.2", MachineId: "m-1", Ready: true},
				{Name: "zk-2", Fqdn: "zk-2.p.internal", Index: 2, Address: "10.88.0.3", MachineId: "m-2"},
				{Name: "zk-3", Fqdn: "zk-3.p.internal", Index: 3},
			},
			// In a range whose reverse zone is not the cluster's.
			"edge": {{Name: "edge-1", Fqdn: "edge-1.p.internal", Index: 1, Address: "10.99.0.66", MachineId: "m-4", Ready: true}},
			"web":  {{Name: "web-1", Fqdn: "web-1.p.internal", Index: 1, Address: "10.88.0.9", MachineId: "m-3", Ready: true}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func ask(t *testing.T, network, addr, name string, typ uint16) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 5 * time.Second}
	r, _, err := c.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), typ), addr)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// summary is code, then data.
func summary(r *dns.Msg) string {
	out := []string{dns.RcodeToString[r.Rcode]}
	for _, rr := range r.Answer {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return strings.Join(out, " ")
}

func TestStub(t *testing.T) {
	cluster, upstream := serve(t, says("192.0.2.1")), serve(t, says("192.0.2.2"))
	s, addr := start(t, func(c *Config) { c.Upstreams = func() []netip.AddrPort { return []netip.AddrPort{upstream.addr} } })
	set(t, s, cluster)
	tests := []struct {
		name, ask string
		typ       uint16
		want      string
		from      *server
	}{
		{"own name", "zk-1.p.internal", dns.TypeA, "NOERROR 10.88.0.2", nil},
		{"any case", "ZK-2.P.internal", dns.TypeA, "NOERROR 10.88.0.3", nil},
		{"no such data", "zk-1.p.internal", dns.TypeAAAA, "NOERROR", nil},
		{"back", "3.0.88.10.in-addr.arpa", dns.TypePTR, "NOERROR zk-2.p.internal.", nil},
		{"ready members of the pool", "zk.p.internal", dns.TypeA, "NOERROR 10.88.0.2", nil},
		{"alias", "quorum.p.internal", dns.TypeA, "NOERROR 10.88.0.2", nil},
		{"referenced pool", "web-1.p.internal", dns.TypeA, "NOERROR 10.88.0.9", nil},
		{"its name", "web.p.internal", dns.TypeA, "NOERROR 10.88.0.9", nil},
		{"member without address", "zk-3.p.internal", dns.TypeA, "NOERROR 192.0.2.1", cluster},
		{"rest of the zone", "db-1.p.internal", dns.TypeA, "NOERROR 192.0.2.1", cluster},
		{"rest of the reverse zone", "77.0.88.10.in-addr.arpa", dns.TypeA, "NOERROR 192.0.2.1", cluster},
		{"elsewhere", "example.com", dns.TypeA, "NOERROR 192.0.2.2", upstream},
		{"back from somebody else's reverse zone", "66.0.99.10.in-addr.arpa", dns.TypePTR, "NOERROR edge-1.p.internal.", nil},
		{"the neighbour there", "67.0.99.10.in-addr.arpa", dns.TypePTR, "NOERROR 192.0.2.2", upstream},
		{"other reverse zone", "1.1.88.10.in-addr.arpa", dns.TypeA, "NOERROR 192.0.2.2", upstream},
	}
	for _, tt := range tests {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(tt.name+" over "+network, func(t *testing.T) {
				before := []int64{cluster.asked.Load(), upstream.asked.Load()}
				r := ask(t, network, addr, tt.ask, tt.typ)
				if got := summary(r); got != tt.want {
					t.Errorf("%s, want %s", got, tt.want)
				}
				if r.Question[0].Name != dns.Fqdn(tt.ask) {
					t.Errorf("question comes back as %s", r.Question[0].Name)
				}
				for i, server := range []*server{cluster, upstream} {
					if asked := server.asked.Load() != before[i]; asked != (server == tt.from) {
						t.Errorf("server %d asked: %v", i, asked)
					}
				}
			})
		}
	}
}

func TestServersAreTriedInTurn(t *testing.T) {
	good := serve(t, says("192.0.2.1"))
	s, addr := start(t, nil)
	set(t, s, serve(t, silent), serve(t, fails(dns.RcodeRefused)), serve(t, fails(dns.RcodeServerFailure)), good)
	if got := summary(ask(t, "udp", addr, "db-1.p.internal", dns.TypeA)); got != "NOERROR 192.0.2.1" {
		t.Error(got)
	}
}

func TestAllServersDead(t *testing.T) {
	cluster := serve(t, says("192.0.2.1"))
	s, addr := start(t, nil)
	set(t, s, cluster)
	ask(t, "udp", addr, "db-1.p.internal", dns.TypeA)
	cluster.stop()
	for _, name := range []string{"db-1.p.internal", "DB-1.p.internal"} {
		r := ask(t, "udp", addr, name, dns.TypeA)
		if got := summary(r); got != "NOERROR 192.0.2.1" {
			t.Errorf("remembered: %s", got)
		}
		if ttl := r.Answer[0].Header().Ttl; ttl != staleTTL {
			t.Errorf("ttl %d", ttl)
		}
	}
	for name, want := range map[string]string{"db-2.p.internal": "SERVFAIL", "zk-2.p.internal": "NOERROR 10.88.0.3", "3.0.88.10.in-addr.arpa": "NOERROR"} {
		if got := summary(ask(t, "udp", addr, name, dns.TypeA)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestUpstreams(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		s, addr := start(t, nil)
		if got := summary(ask(t, "udp", addr, "example.com", dns.TypeA)); got != "REFUSED" {
			t.Error(got)
		}
		set(t, s)
		if got := summary(ask(t, "udp", addr, "example.com", dns.TypeA)); got != "REFUSED" {
			t.Error(got)
		}
	})
	t.Run("dead", func(t *testing.T) {
		dead := serve(t, silent)
		_, addr := start(t, func(c *Config) { c.Upstreams = func() []netip.AddrPort { return []netip.AddrPort{dead.addr} } })
		if got := summary(ask(t, "udp", addr, "example.com", dns.TypeA)); got != "SERVFAIL" {
			t.Error(got)
		}
	})
}

// TestLoop: an upstream that asks the stub in turn gets no further, and the stub lives.
func TestLoop(t *testing.T) {
	var self atomic.Pointer[netip.AddrPort]
	_, addr := start(t, func(c *Config) {
		c.Upstreams = func() []netip.AddrPort { return []netip.AddrPort{*self.Load()} }
	})
	own := netip.MustParseAddrPort(addr)
	self.Store(&own)
	if got := summary(ask(t, "udp", addr, "example.com", dns.TypeA)); got != "SERVFAIL" {
		t.Error(got)
	}
}

// TestOneQuestionIsAskedOnce: equal queries at one time cost the servers one, and too many that differ are cut off.
func TestOneQuestionIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := calls{running: map[string]*call{}, questions: map[string]int{}}
		release, asked, cut := make(chan struct{}), atomic.Int64{}, atomic.Int64{}
		ask := func() []byte {
			asked.Add(1)
			<-release
			return []byte("answer")
		}
		for i := range 10 { // Only the id, which comes first, differs.
			go c.do([]byte{0, byte(i), 1, 1}, "question", false, ask)
		}
		synctest.Wait()
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		for i := range 2 * maxAlike {
			go func() {
				if _, asked := c.do([]byte{0, 0, 2, byte(i)}, "question", false, ask); !asked {
					cut.Add(1)
				}
			}()
		}
		synctest.Wait()
		close(release)
		synctest.Wait()
		if asked.Load() != maxAlike || cut.Load() != maxAlike+1 {
			t.Errorf("asked %d times, cut off %d", asked.Load(), cut.Load())
		}
		if len(c.running)+len(c.questions) != 0 {
			t.Error("calls are left")
		}
	})
}

func TestRunsAgain(t *testing.T) {
	s, err := New(Config{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	set(t, s)
	for range 2 {
		t.Run("run", func(t *testing.T) {
			if got := summary(ask(t, "udp", run(t, s), "zk-1.p.internal", dns.TypeA)); got != "NOERROR 10.88.0.2" {
				t.Error(got)
			}
		})
	}
}

func TestParseUpstreams(t *testing.T) {
	got := fmt.Sprint(ParseUpstreams("10.0.0.1\n\n# no\n127.0.0.62\nfd00::1\n10.0.0.2:5353\n10.0.0.1\n"))
	if diff := cmp.Diff("[10.0.0.1:53 [fd00::1]:53 10.0.0.2:5353]", got); diff != "" {
		t.Error(diff)
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache()
	query, err := new(dns.Msg).SetQuestion("a.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	answer := zone.Failure(nil, query, zone.NameError)
	for i := range maxRemembered + 10 {
		c.put(fmt.Sprint(i), answer)
	}
	if len(c.entries) != maxRemembered || c.order.Len() != maxRemembered || c.get("0") != nil || c.get(fmt.Sprint(maxRemembered)) == nil {
		t.Errorf("%d entries", len(c.entries))
	}
	c.put("large", slices.Concat(answer, make([]byte, maxEntry)))
	if c.get("large") != nil {
		t.Error("a large answer is remembered")
	}
}

// FuzzAnswers: whatever a server says behind the question that it was asked is given on, and remembered if it can be.
func FuzzAnswers(f *testing.F) {
	query, err := new(dns.Msg).SetQuestion("example.com.", dns.TypeA).Pack()
	if err != nil {
		f.Fatal(err)
	}
	key, question := zone.Key(query)
	end := headerSize + question
	add := func(answer []byte) { f.Add(answer[2], answer[3], answer[6:headerSize], answer[end:]) }
	add(zone.Failure(nil, query, zone.NameError))
	answer := says("192.0.2.1")(unpacked(f, query)).SetEdns0(1232, false)
	answer.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"}}
	add(packed(f, answer))
	f.Fuzz(func(t *testing.T, flags, code byte, counts, records []byte) {
		answer := append(slices.Clone(query[:end]), records...)
		answer[2], answer[3] = flags|0x80, code
		copy(answer[6:headerSize], counts)
		c := newCache()
		c.put(key, answer)
		if out := readdress(answer, query, question); len(out) != len(answer) {
			t.Error("another length")
		}
		conclusive(answer)
	})
}
