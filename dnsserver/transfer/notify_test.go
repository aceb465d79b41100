package transfer_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver/transfer"
	"github.com/provisionr/provisionr/dnsserver/tsig"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

var follower = netip.MustParseAddrPort("192.0.2.1:53")

// notified is a NOTIFY that arrived.
type notified struct {
	after  time.Duration
	to     netip.AddrPort
	origin string
	serial uint32
}

// followers are secondaries in a bubble of synctest.
type followers struct {
	t     *testing.T
	start time.Time

	mu  sync.Mutex
	got []notified
	// answer makes the answers to a message; nil stays silent.
	answer func(msg []byte, m *dns.Msg) [][]byte
}

func (f *followers) dial(_ context.Context, to netip.AddrPort) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := theirs.Read(buf)
			if errors.Is(err, io.EOF) {
				return
			}
			m := unpack(f.t, buf[:n])
			f.mu.Lock()
			f.got = append(f.got, notified{time.Since(f.start), to, m.Question[0].Name, m.Answer[0].(*dns.SOA).Serial})
			answer := f.answer
			f.mu.Unlock()
			if answer == nil {
				continue
			}
			for _, msg := range answer(slices.Clone(buf[:n]), m) {
				if _, err := theirs.Write(msg); err != nil {
					return
				}
			}
		}
	}()
	return ours, nil
}

func (f *followers) set(answer func(msg []byte, m *dns.Msg) [][]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// times are when something arrived, in seconds since the start.
func (f *followers) times() (seconds []float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.got {
		seconds = append(seconds, n.after.Seconds())
	}
	return seconds
}

func reply(code int) func([]byte, *dns.Msg) [][]byte {
	return func(_ []byte, m *dns.Msg) [][]byte {
		msg, err := new(dns.Msg).SetRcode(m, code).Pack()
		if err != nil {
			panic(err)
		}
		return [][]byte{msg}
	}
}

// inBubble runs a test with a server that tells the followers of changes.
func inBubble(t *testing.T, test func(t *testing.T, w *world, f *followers)) {
	synctest.Test(t, func(t *testing.T) {
		f := &followers{t: t, start: time.Now(), answer: reply(dns.RcodeSuccess)}
		w := newWorld(t, transfer.Config{Dial: f.dial}, newZone(t, zone.Config{Serial: 1}))
		w.policy[origin] = transfer.Policy{Secondaries: []transfer.Secondary{{Address: follower}}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		test(t, w, f)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func equalTimes(t *testing.T, got, want []float64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("told after %v s, not %v", got, want)
	}
}

// A burst of changes is told at once and, one second later, once more; the last message names the last version.
func TestNotifyCoalesces(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, f *followers) {
		for serial := range uint32(50) {
			w.set(newZone(t, zone.Config{Serial: serial + 2}))
			w.Notify(origin)
			synctest.Wait()
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		equalTimes(t, f.times(), []float64{0, 1})
		if last := f.got[1]; last != (notified{time.Second, follower, origin, 51}) {
			t.Errorf("%+v", last)
		}
	})
}

func TestNotifyRate(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, f *followers) {
		for range 1000 {
			w.Notify(origin)
			time.Sleep(10 * time.Millisecond)
		}
		if n := len(f.times()); n < 10 || n > 11 {
			t.Errorf("told %d times in 10 s", n)
		}
	})
}

// A secondary that is silent is told again, less and less often, until it answers; changes meanwhile make it no more often.
func TestNotifyRetries(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, f *followers) {
		f.set(nil)
		w.Notify(origin)
		for range 200 {
			time.Sleep(time.Second)
			w.Notify(origin)
		}
		equalTimes(t, f.times(), []float64{0, 2, 6, 14, 30, 62, 122, 182})
		f.set(reply(dns.RcodeSuccess))
		time.Sleep(time.Hour)
		equalTimes(t, f.times()[8:], []float64{242})
		w.Notify(origin)
		synctest.Wait()
		if n := len(f.times()); n != 10 {
			t.Errorf("told %d times, the last not at once", n)
		}
	})
}

// Any code is an answer: a secondary that refuses is not asked again before the next change.
func TestNotifyRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, f *followers) {
		f.set(reply(dns.RcodeRefused))
		w.Notify(origin)
		time.Sleep(time.Hour)
		equalTimes(t, f.times(), []float64{0})
	})
}

// Answers to something else are none.
func TestNotifyForged(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, f *followers) {
		f.set(func(_ []byte, m *dns.Msg) (answers [][]byte) {
			for _, change := range []func(m *dns.Msg){
				func(m *dns.Msg) { m.Id++ }, func(m *dns.Msg) { m.Response = false }, func(m *dns.Msg) { m.Opcode = dns.OpcodeQuery },
			} {
				answer := new(dns.Msg).SetReply(m)
				change(answer)
				msg, err := answer.Pack()
				if err != nil {
					t.Error(err)
				}
				answers = append(answers, msg)
			}
			return append(answers, []byte("short"), nil)
		})
		w.Notify(origin)
		time.Sleep(7 * time.Second)
		equalTimes(t, f.times(), []float64{0, 2, 6})
	})
}

// With a key, only a signed answer counts, also behind forged ones.
func TestNotifySigned(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, f *followers) {
		key := newKey(t, keyName)
		w.policy[origin] = transfer.Policy{Secondaries: []transfer.Secondary{{Address: follower, Key: key}}}
		w.Notify(origin)
		time.Sleep(3 * time.Second)
		equalTimes(t, f.times(), []float64{0, 2})
		f.set(func(msg []byte, m *dns.Msg) [][]byte {
			stripped, session, err := tsig.Verify([]tsig.Key{key}, msg, time.Now())
			if err != nil || session.Code() != tsig.OK {
				t.Errorf("%v %v", session, err)
			}
			good := reply(dns.RcodeSuccess)(nil, unpack(t, stripped))[0]
			forged := session.Sign(slices.Clone(good), time.Now().Add(time.Hour))
			_, session, _ = tsig.Verify([]tsig.Key{key}, msg, time.Now())
			return [][]byte{good, forged, session.Sign(good, time.Now())}
		})
		time.Sleep(time.Hour)
		equalTimes(t, f.times(), []float64{0, 2, 6})
	})
}

// One silent secondary does not keep the others waiting, and one that is none any more is told nothing.
func TestNotifyOthers(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, f *followers) {
		other := netip.MustParseAddrPort("[2001:db8::1]:53")
		w.policy[origin] = transfer.Policy{Secondaries: []transfer.Secondary{{Address: follower}, {Address: other}}}
		f.set(func(msg []byte, m *dns.Msg) [][]byte {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.got[len(f.got)-1].to == follower {
				return nil
			}
			return reply(dns.RcodeSuccess)(msg, m)
		})
		for range 3 {
			w.Notify(origin, "unknown.test.")
			time.Sleep(2 * time.Second)
		}
		synctest.Wait()
		told := map[netip.AddrPort]int{}
		for _, n := range f.got {
			told[n.to]++
		}
		if told[other] != 3 || told[follower] != 3 {
			t.Errorf("told %v", told)
		}
		w.mu.Lock()
		w.policy[origin] = transfer.Policy{}
		w.mu.Unlock()
		time.Sleep(time.Hour)
		if n := len(f.times()); n != 6 {
			t.Errorf("told %d times", n)
		}
	})
}

// What cannot be reached is tried again.
func TestNotifyDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		w := newWorld(t, transfer.Config{Dial: func(context.Context, netip.AddrPort) (net.Conn, error) {
			tries++
			return nil, errors.New("unreachable")
		}}, newZone(t, zone.Config{}))
		w.policy[origin] = transfer.Policy{Secondaries: []transfer.Secondary{{Address: follower}}}
		w.Notify(origin) // Before Run: told once it runs.
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
		if tries != 4 {
			t.Errorf("%d tries in 15 s", tries)
		}
	})
}
