package ntp

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// serve runs a responder, or any answer function, on the loopback and returns its address.
func serve(t *testing.T, answer func(question []byte) []byte) string {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1024)
		for {
			n, client, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			if a := answer(buffer[:n]); a != nil {
				_, _ = conn.WriteTo(a, client)
			}
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return conn.LocalAddr().String()
}

func TestQueryMeasuresTheOffset(t *testing.T) {
	for _, offset := range []time.Duration{0, 10 * time.Second, -10 * time.Second, 1500 * time.Millisecond, 25 * 365 * 24 * time.Hour} {
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error)
		go func() { served <- (&Responder{Offset: offset, Stratum: 3}).Serve(ctx, conn) }()
		answer, err := Query(t.Context(), conn.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		if wrong := (answer.Offset - offset).Abs(); wrong > answer.RTT/2+time.Millisecond || answer.RTT > time.Second || answer.Stratum != 3 {
			t.Errorf("offset %v: %+v", offset, answer)
		}
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}

func TestQueryRefusesBadAnswers(t *testing.T) {
	good := func(question []byte) packet {
		p, err := parse(question)
		if err != nil {
			t.Error(err)
		}
		now := fromTime(time.Now())
		return packet{version: version, mode: modeServer, stratum: 2, origin: p.transmit, receive: now, transmit: now}
	}
	for want, spoil := range map[string]func(*packet){
		`kiss code "RATE"`:    func(p *packet) { p.stratum, p.referenceID = 0, 0x52415445 },
		"not synchronised":    func(p *packet) { p.leap = notSynchronised },
		"is not synchronised": func(p *packet) { p.stratum = 16 },
		"sent no time":        func(p *packet) { p.transmit = 0 },
		"went backwards":      func(p *packet) { p.transmit -= 1 << 32 },
	} {
		server := serve(t, func(q []byte) []byte { p := good(q); spoil(&p); return p.bytes() })
		if _, err := Query(t.Context(), server); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s: %v", want, err)
		}
	}
	for name, answer := range map[string]func(q []byte) []byte{
		"silence":       func([]byte) []byte { return nil },
		"noise":         func([]byte) []byte { return []byte("noise") },
		"echo":          func(q []byte) []byte { return q },
		"wrong origin":  func(q []byte) []byte { p := good(q); p.origin++; return p.bytes() },
		"zero origin":   func(q []byte) []byte { p := good(q); p.origin = 0; return p.bytes() },
		"broadcast":     func(q []byte) []byte { p := good(q); p.mode = 5; return p.bytes() },
		"empty packets": func([]byte) []byte { return []byte{} },
	} {
		server := serve(t, answer)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := Query(ctx, server); err == nil || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
	if _, err := Query(t.Context(), "127.0.0.1:x"); err == nil {
		t.Error("a bad port is no error")
	}
}

func TestQueryEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := serve(t, func([]byte) []byte { cancel(); return nil })
	start := time.Now()
	if _, err := Query(ctx, server); err == nil || time.Since(start) > timeout/2 {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

func TestResponderIgnoresOthers(t *testing.T) {
	r := &Responder{}
	for _, p := range []packet{
		{version: version, mode: modeServer}, {version: 0, mode: modeClient}, {version: 5, mode: modeClient}, {version: version, mode: 6}, {version: version, mode: 7},
	} {
		if _, ok := r.answer(p.bytes(), time.Now()); ok {
			t.Errorf("%+v got an answer", p)
		}
	}
	if _, ok := r.answer(make([]byte, packetSize-1), time.Now()); ok {
		t.Error("a short packet got an answer")
	}
	data, ok := r.answer(append(packet{version: 3, mode: modeClient, transmit: 7}.bytes(), "extension"...), time.Now())
	p, err := parse(data)
	if !ok || err != nil || p.version != 3 || p.origin != 7 || p.stratum != DefaultStratum || len(data) != packetSize {
		t.Errorf("answer %+v, %v, %v", p, ok, err)
	}
}

func TestTimestamps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Distances stay right when one side is in the next era, from 2036 on.
		a := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "a"), rapid.Int64Range(0, 999999999).Draw(t, "nanoseconds"))
		distance := time.Duration(rapid.Int64Range(int64(-60*365*24*time.Hour), int64(60*365*24*time.Hour)).Draw(t, "distance"))
		got := fromTime(a.Add(distance)).sub(fromTime(a))
		if (got - distance).Abs() > 2*time.Nanosecond {
			t.Fatalf("from %v: %v instead of %v", a, got, distance)
		}
	})
	// RFC 5905 figure 4.
	if got := fromTime(time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)); got != 2208988800<<32 {
		t.Errorf("1970 is %x", got)
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(packet{version: version, mode: modeClient, transmit: 1}.bytes())
	f.Add(packet{leap: 3, version: 7, mode: 7, stratum: 255, poll: -1, precision: -20, transmit: 1 << 63}.bytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parse(data)
		if err != nil {
			if len(data) >= packetSize {
				t.Fatal(err)
			}
			return
		}
		if string(p.bytes()) != string(data[:packetSize]) {
			t.Fatalf("%x became %x", data[:packetSize], p.bytes())
		}
		if answer, ok := (&Responder{}).answer(data, time.Now()); ok && len(answer) > len(data) {
			t.Fatal("an answer is longer than its question")
		}
		if a, err := evaluate(p, time.Now(), time.Millisecond); err == nil && (a.RTT < 0 || a.Stratum < 1 || a.Stratum > 15) {
			t.Fatalf("answer %+v", a)
		}
	})
}
