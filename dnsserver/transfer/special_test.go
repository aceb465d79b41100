package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver/transfer"
	"github.com/provisionr/provisionr/dnsserver/tsig"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

func question(name string, typ uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, typ)
	m.SetEdns0(1232, false)
	return m
}

func edited(m *dns.Msg, f func(m *dns.Msg)) *dns.Msg {
	f(m)
	return m
}

// extended returns the extended error of an answer, or -1.
func extended(m *dns.Msg) int {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				return int(e.InfoCode)
			}
		}
	}
	return -1
}

func newTestWorld(t *testing.T) *world {
	const online = "online.test."
	w := newWorld(t, transfer.Config{}, newZone(t, zone.Config{Serial: 1 << 31}), newZone(t, zone.Config{Origin: online, Mode: zone.Online}),
		newZone(t, zone.Config{Origin: "nobody.test."}), newZone(t, zone.Config{Origin: "other.test."}))
	w.policy[online] = w.policy[origin]
	// A key of the same name with another secret belongs to another zone.
	key, err := tsig.NewKey(keyName, tsig.SHA256, []byte(strings.Repeat("another ", 4)))
	if err != nil {
		t.Fatal(err)
	}
	w.policy["other.test."] = transfer.Policy{Keys: []tsig.Key{key}}
	return w
}

func TestAnswers(t *testing.T) {
	w, key := newTestWorld(t), newKey(t, keyName)
	const none = -1
	edns := func(m *dns.Msg) *dns.Msg { return m.SetEdns0(1232, false) }
	tests := map[string]struct {
		query    *dns.Msg
		udp      bool
		rcode    int
		extended int
		answers  int
	}{
		"axfr":                     {edns(axfr()), false, dns.RcodeSuccess, none, 4},
		"axfr in mixed case":       {edited(axfr(), func(m *dns.Msg) { m.Question[0].Name = "eXample.tEst." }), false, dns.RcodeSuccess, none, 4},
		"axfr over udp":            {axfr(), true, dns.RcodeFormatError, none, 0},
		"axfr of a name":           {question("a."+origin, dns.TypeAXFR), false, dns.RcodeNotAuth, none, 0},
		"axfr of a key of another": {question("other.test.", dns.TypeAXFR), false, dns.RcodeNotAuth, none, 0},
		"axfr without a policy":    {question("nobody.test.", dns.TypeAXFR), false, dns.RcodeNotAuth, none, 0},
		"axfr of a foreign zone":   {question("foreign.test.", dns.TypeAXFR), false, dns.RcodeNotAuth, none, 0},
		"axfr of another class":    {edited(axfr(), func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), false, dns.RcodeNotAuth, none, 0},
		"axfr signed online":       {question("online.test.", dns.TypeAXFR), false, dns.RcodeRefused, 18, 0},
		"ixfr of now":              {ixfr(1 << 31), false, dns.RcodeSuccess, none, 1},
		"ixfr of later":            {ixfr(1<<31 + 1), false, dns.RcodeSuccess, none, 1},
		"ixfr of before":           {ixfr(1<<31 - 1), false, dns.RcodeSuccess, none, 4},
		"ixfr of half of all away": {ixfr(0), false, dns.RcodeSuccess, none, 4},
		"ixfr over udp":            {ixfr(5), true, dns.RcodeSuccess, none, 1},
		"ixfr without soa":         {edited(ixfr(5), func(m *dns.Msg) { m.Ns = nil }), false, dns.RcodeFormatError, none, 0},
		"ixfr with two":            {edited(ixfr(5), func(m *dns.Msg) { m.Ns = append(m.Ns, m.Ns[0]) }), false, dns.RcodeFormatError, none, 0},
		"ixfr with another type": {edited(ixfr(5), func(m *dns.Msg) {
			m.Ns = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: origin, Rrtype: dns.TypeA, Class: 1}}}
		}), false, dns.RcodeFormatError, none, 0},
		"soa":           {question(origin, dns.TypeSOA), true, dns.RcodeSuccess, none, 1},
		"soa over tcp":  {question(origin, dns.TypeSOA), false, dns.RcodeSuccess, none, 1},
		"no such name":  {question("none."+origin, dns.TypeA), true, dns.RcodeNameError, none, 0},
		"two questions": {edited(question(origin, dns.TypeSOA), func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), true, dns.RcodeFormatError, none, 0},
		"edns version":  {edited(question(origin, dns.TypeSOA), func(m *dns.Msg) { m.IsEdns0().SetVersion(1) }), true, dns.RcodeBadVers, none, 0},
		"notify":        {edns(new(dns.Msg).SetNotify(origin)), true, dns.RcodeRefused, 18, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			query, session := signed(t, key, test.query)
			answers := w.ask(t, query, !test.udp)
			if len(answers) != 1 {
				t.Fatalf("%d messages", len(answers))
			}
			answer := unpack(t, answers[0])
			if answer.Rcode != test.rcode || extended(answer) != test.extended || len(answer.Answer) != test.answers || answer.Id != test.query.Id || !answer.Response {
				t.Errorf("%v", answer)
			}
			if test.udp && len(answers[0]) > 1232 {
				t.Errorf("%d octets", len(answers[0]))
			}
			_, err := session.Accept(answers[0], now())
			// Malformed queries are not verified; what has no key for its zone hears just that.
			malformed := test.rcode == dns.RcodeFormatError && len(test.query.Question) > 1
			if (answer.IsEdns0() != nil) != (test.query.IsEdns0() != nil && !malformed) {
				t.Error("OPT answers OPT and nothing else")
			}
			unknown := test.rcode == dns.RcodeNotAuth && !strings.HasSuffix(test.query.Question[0].Name, "a."+origin)
			if (err != nil) != (malformed || unknown) {
				t.Error(err)
			}
		})
	}
}

func TestUnsigned(t *testing.T) {
	w := newTestWorld(t)
	for name, query := range map[string]*dns.Msg{
		"axfr": axfr().SetEdns0(1232, false), "ixfr": ixfr(5).SetEdns0(1232, false), "notify": new(dns.Msg).SetNotify(origin).SetEdns0(1232, false),
		"online": question("online.test.", dns.TypeAXFR), "foreign": question("foreign.test.", dns.TypeAXFR),
	} {
		msg, err := query.Pack()
		if err != nil {
			t.Fatal(err)
		}
		for _, tcp := range []bool{true, false} {
			answers := w.ask(t, msg, tcp)
			if len(answers) != 1 {
				t.Fatalf("%s: %d messages", name, len(answers))
			}
			if m := unpack(t, answers[0]); m.Rcode != dns.RcodeRefused || extended(m) != 18 || len(m.Answer)+len(m.Ns) > 0 {
				t.Errorf("%s: %v", name, m)
			}
		}
	}
	if answers := w.ask(t, []byte("no query at all"), false); len(answers) > 0 && answers[0][3]&0xf == 0 {
		t.Errorf("%x", answers)
	}
}

// A query that is replayed too late gets BADTIME and nothing else.
func TestBadTime(t *testing.T) {
	w := newTestWorld(t)
	packed, err := axfr().Pack()
	if err != nil {
		t.Fatal(err)
	}
	msg, _ := tsig.Begin(newKey(t, keyName), packed, now().Add(-10*time.Minute))
	answers := w.ask(t, msg, true)
	if len(answers) != 1 {
		t.Fatalf("%d messages", len(answers))
	}
	m := unpack(t, answers[0])
	if m.Rcode != dns.RcodeNotAuth || len(m.Answer) > 0 || m.IsTsig() == nil || m.IsTsig().Error != dns.RcodeBadTime {
		t.Error(m)
	}
}

// Signed questions fit UDP with their signature, or say that they do not.
func TestSignedSize(t *testing.T) {
	var records []zone.Record
	for i := range 60 {
		records = append(records, zone.Address(fmt.Sprintf("n%d.%s", i%2, origin), netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})))
	}
	for i := range 40 {
		records = append(records, zone.Address("n2."+origin, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})))
	}
	w := newWorld(t, transfer.Config{}, newZone(t, zone.Config{Records: records}))
	for _, test := range []struct {
		name      string
		size      uint16
		truncated bool
	}{{"n0.", 1232, false}, {"n0.", 600, true}, {"n2.", 4096, false}, {"n2.", 700, true}, {"n0.", 0, true}} {
		q := new(dns.Msg).SetQuestion(test.name+origin, dns.TypeA)
		limit := 512
		if test.size > 0 {
			q.SetEdns0(test.size, false)
			limit = min(int(test.size), 1232)
		}
		query, session := signed(t, newKey(t, keyName), q)
		answer := w.ask(t, query, false)[0]
		if m := unpack(t, answer); m.Truncated != test.truncated || len(answer) > limit {
			t.Errorf("%v: %d octets, truncated %v", test, len(answer), m.Truncated)
		}
		if _, err := session.Accept(answer, now()); err != nil {
			t.Error(err)
		}
	}
}

func TestOnline(t *testing.T) {
	z := newZone(t, zone.Config{Mode: zone.Online})
	var size int
	w := newWorld(t, transfer.Config{Online: func(_ context.Context, _ *zone.Set, query []byte, _ bool) []byte {
		m := unpack(t, query)
		if m.IsTsig() != nil {
			t.Error("the query still has its signature")
		}
		m.Response = true
		answer, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return append(answer, make([]byte, size)...)
	}}, z)
	q := question(origin, dns.TypeSOA)
	q.IsEdns0().SetDo()
	query, session := signed(t, newKey(t, keyName), q)
	answer := w.ask(t, query, false)[0]
	if stripped, err := session.Accept(answer, now()); err != nil || unpack(t, stripped).Truncated {
		t.Error(err)
	}
	size = 1200
	query, session = signed(t, newKey(t, keyName), q)
	answer = w.ask(t, query, false)[0]
	if stripped, err := session.Accept(answer, now()); err != nil || !unpack(t, stripped).Truncated {
		t.Error(err)
	}
}

// What the server does not send over UDP, since the source might be forged, is asked for again over TCP.
func TestTooLarge(t *testing.T) {
	w := newTestWorld(t)
	for q, more := range map[*dns.Msg]int{question(origin, dns.TypeNS): 15, ixfr(5): -20} {
		query, session := signed(t, newKey(t, keyName), q)
		var answer []byte
		err := w.Special(t.Context(), netip.AddrPort{}, query, false, nil, func(msg []byte) error {
			if len(msg) > len(query)+more {
				return errors.New("too large")
			}
			answer = msg
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if stripped, err := session.Accept(answer, now()); err != nil || !unpack(t, stripped).Truncated {
			t.Errorf("%x: %v", answer, err)
		}
	}
}

// The server's options are in the first message, before its signature.
func TestOptions(t *testing.T) {
	signing := func(_ context.Context, _ *zone.Set, query []byte, _ bool) []byte {
		msg, err := new(dns.Msg).SetReply(unpack(t, query)).SetEdns0(1232, true).Pack()
		if err != nil {
			t.Error(err)
		}
		return msg
	}
	w := newWorld(t, transfer.Config{}, newZone(t, zone.Config{}))
	online := newWorld(t, transfer.Config{Online: signing}, newZone(t, zone.Config{Mode: zone.Online}))
	const nsid = "\x00\x03\x00\x02me"
	do := question(origin, dns.TypeSOA)
	do.IsEdns0().SetDo()
	for _, test := range []struct {
		world *world
		query *dns.Msg
	}{
		{w, axfr().SetEdns0(1232, false)}, {w, ixfr(5).SetEdns0(1232, false)}, {w, question(origin, dns.TypeSOA)},
		{w, question("a."+origin, dns.TypeAXFR)}, {online, do},
	} {
		query, session := signed(t, newKey(t, keyName), test.query)
		var answers [][]byte
		err := test.world.Special(t.Context(), netip.AddrPort{}, query, true, []byte(nsid), func(msg []byte) error {
			answers = append(answers, slices.Clone(msg))
			return nil
		})
		if err != nil || len(answers) != 1 {
			t.Fatalf("%d messages, %v", len(answers), err)
		}
		stripped, err := session.Accept(answers[0], now())
		if err != nil {
			t.Fatal(err)
		}
		if opt := unpack(t, stripped).IsEdns0(); opt == nil || len(opt.Option) != 1 || opt.Option[0].Option() != dns.EDNS0NSID {
			t.Errorf("%v: %v", test.query.Question, unpack(t, stripped))
		}
	}
}

// A broken connection and the server's end stop a transfer.
func TestBreakOff(t *testing.T) {
	w := newTestWorld(t)
	query, _ := signed(t, newKey(t, keyName), axfr())
	broken := errors.New("broken")
	if err := w.Special(t.Context(), netip.AddrPort{}, query, true, nil, func([]byte) error { return broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Special(ctx, netip.AddrPort{}, query, true, nil, func([]byte) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Two transfers at a time are sent, and the third when one of them has ended.
func TestMaxTransfers(t *testing.T) {
	w := newWorld(t, transfer.Config{MaxTransfers: 2}, newZone(t, zone.Config{}))
	begun, release := make(chan bool, 3), make(chan bool)
	done := make(chan error, 3)
	for range 3 {
		query, _ := signed(t, newKey(t, keyName), axfr())
		go func() {
			done <- w.Special(t.Context(), netip.AddrPort{}, query, true, nil, func([]byte) error {
				begun <- true
				<-release
				return nil
			})
		}()
	}
	<-begun
	<-begun
	release <- true
	if err := <-done; err != nil {
		t.Error(err)
	}
	<-begun
	close(release)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestNew(t *testing.T) {
	if _, err := transfer.New(transfer.Config{}); err == nil {
		t.Error("a server of nothing")
	}
}
