package prove

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/internal/ntp"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// A real time server that is ten seconds wrong makes the proof fail, on a machine that may set its clock and on one that may not.
func TestClockBesideARealServer(t *testing.T) {
	for _, c := range []struct {
		offset time.Duration
		bound  string
		state  agentv1.ProofState
		found  string
	}{
		{0, "000001ffffffffff", yes, "within 100ms of"},
		{10 * time.Second, "000001ffffffffff", no, "about 10s behind"},
		{-10 * time.Second, "0", no, "observed only"},
	} {
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error)
		go func() { served <- (&ntp.Responder{Offset: c.offset}).Serve(ctx, conn) }()
		w, s := newWorld(t), state()
		w.time = ntp.Query
		w.write(t, "proc/1/status", "CapBnd:\t"+c.bound+"\n")
		s.Machine.NtpServers = []string{conn.LocalAddr().String()}
		if v := w.clock(t.Context(), s); v.state != c.state || !strings.Contains(v.found, c.found) {
			t.Errorf("server off by %s: %v", c.offset, v)
		}
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

func TestExchange(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var dropped atomic.Bool
	server := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg)
		r.SetReply(q)
		switch q.Question[0].Name {
		case "lost.example.":
			if !dropped.Swap(true) {
				return
			}
			fallthrough
		case "zk-1.example.":
			for _, text := range []string{"zk-1.example. 1 IN A 10.0.0.2", "zk-1.example. 1 IN A 10.0.0.1"} {
				rr, err := dns.NewRR(text)
				if err != nil {
					t.Error(err)
				}
				r.Answer = append(r.Answer, rr)
			}
		case "1.0.0.10.in-addr.arpa.":
			rr, err := dns.NewRR("1.0.0.10.in-addr.arpa. 1 IN PTR ZK-1.Example.")
			if err != nil {
				t.Error(err)
			}
			r.Answer = []dns.RR{rr}
		case "silent.example.":
			return
		default:
			r.Rcode = dns.RcodeNameError
		}
		if err := w.WriteMsg(r); err != nil {
			t.Error(err)
		}
	})}
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go server.ActivateAndServe()
	<-started
	defer server.Shutdown()
	at := pc.LocalAddr().String()
	for _, c := range []struct {
		name string
		kind uint16
		want string
		err  string
	}{
		{"zk-1.example", dns.TypeA, "10.0.0.1 10.0.0.2", ""},
		{"lost.example", dns.TypeA, "10.0.0.1 10.0.0.2", ""},
		{"1.0.0.10.in-addr.arpa.", dns.TypePTR, "zk-1.example", ""},
		{"none.example", dns.TypeA, "", "NXDOMAIN"},
	} {
		got, err := exchange(t.Context(), at, c.name, c.kind)
		if strings.Join(got, " ") != c.want || (c.err == "") != (err == nil) || err != nil && err.Error() != c.err {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := exchange(ctx, at, "silent.example", dns.TypeA); !errors.Is(err, errSilent) || slices.Contains(got, "") {
		t.Errorf("silence: %v, %v", got, err)
	}
}
