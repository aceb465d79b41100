package tsig_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/tsig"
)

var now = time.Unix(1_800_000_000, 0)

const secret = "0123456789abcdef0123456789abcdef"

var encoded = base64.StdEncoding.EncodeToString([]byte(secret))

func newKey(t testing.TB, name string, algorithm tsig.Algorithm) tsig.Key {
	t.Helper()
	key, err := tsig.NewKey(name, algorithm, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// query is a query for an SOA that the library signed.
func query(t testing.TB, name, algorithm string, signed time.Time, fudge uint16) (msg []byte, mac string) {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion("Example.", dns.TypeSOA)
	m.Id = 4711
	m.SetEdns0(1232, true)
	m.SetTsig(name, algorithm, fudge, signed.Unix())
	msg, mac, err := dns.TsigGenerate(m, encoded, "", false)
	if err != nil {
		t.Fatal(err)
	}
	return msg, mac
}

var algorithms = map[tsig.Algorithm]string{tsig.SHA256: dns.HmacSHA256, tsig.SHA384: dns.HmacSHA384, tsig.SHA512: dns.HmacSHA512}

func TestVerify(t *testing.T) {
	for algorithm, name := range algorithms {
		t.Run(algorithm.String(), func(t *testing.T) {
			key := newKey(t, "Transfer.Example", algorithm)
			msg, _ := query(t, "transfer.example.", name, now, 300)
			stripped, s, err := tsig.Verify([]tsig.Key{newKey(t, "other", algorithm), key}, msg, now)
			if err != nil || s.Code() != tsig.OK || s.Key() != key {
				t.Fatalf("%v %v", s, err)
			}
			var m dns.Msg
			if err := m.Unpack(stripped); err != nil || m.IsTsig() != nil || len(m.Extra) != 1 || m.Question[0].Name != "Example." {
				t.Errorf("stripped: %v %v", m, err)
			}
		})
	}
}

func TestCodes(t *testing.T) {
	key := newKey(t, "k", tsig.SHA256)
	good, _ := query(t, "k.", dns.HmacSHA256, now, 300)
	change := func(f func(r *dns.TSIG)) []byte {
		var m dns.Msg
		if err := m.Unpack(good); err != nil {
			t.Fatal(err)
		}
		f(m.IsTsig())
		msg, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	cut := func(n int) []byte {
		return change(func(r *dns.TSIG) { r.MAC, r.MACSize = r.MAC[:2*n], uint16(n) })
	}
	name384, _ := query(t, "k.", dns.HmacSHA384, now, 300)
	late, _ := query(t, "k.", dns.HmacSHA256, now.Add(-301*time.Second), 300)
	early, _ := query(t, "k.", dns.HmacSHA256, now.Add(301*time.Second), 300)
	edge, _ := query(t, "k.", dns.HmacSHA256, now.Add(-300*time.Second), 300)
	narrow, _ := query(t, "k.", dns.HmacSHA256, now.Add(-11*time.Second), 10)
	wide, _ := query(t, "k.", dns.HmacSHA256, now.Add(-301*time.Second), 65535)
	forwarded := bytes.Clone(good)
	forwarded[0]++
	tests := map[string]struct {
		msg  []byte
		code tsig.Code
		err  error
	}{
		"good":                     {good, tsig.OK, nil},
		"another id":               {forwarded, tsig.OK, nil},
		"oldest":                   {edge, tsig.OK, nil},
		"unknown key":              {change(func(r *dns.TSIG) { r.Hdr.Name = "unknown." }), tsig.BadKey, nil},
		"another algorithm":        {name384, tsig.BadKey, nil},
		"unknown algorithm":        {change(func(r *dns.TSIG) { r.Algorithm = "hmac-sha3." }), tsig.BadKey, nil},
		"another original id":      {change(func(r *dns.TSIG) { r.OrigId++ }), tsig.BadSignature, nil},
		"another time":             {change(func(r *dns.TSIG) { r.TimeSigned++ }), tsig.BadSignature, nil},
		"another fudge":            {change(func(r *dns.TSIG) { r.Fudge++ }), tsig.BadSignature, nil},
		"another error":            {change(func(r *dns.TSIG) { r.Error++ }), tsig.BadSignature, nil},
		"other data":               {change(func(r *dns.TSIG) { r.OtherData, r.OtherLen = "00", 1 }), tsig.BadSignature, nil},
		"late":                     {late, tsig.BadTime, nil},
		"early":                    {early, tsig.BadTime, nil},
		"later than its own fudge": {narrow, tsig.BadTime, nil},
		"later than any fudge":     {wide, tsig.BadTime, nil},
		"shortened":                {cut(31), tsig.BadTruncation, nil},
		"half":                     {cut(16), tsig.BadTruncation, nil},
		"less than half":           {cut(15), 0, tsig.ErrFormat},
		"no mac":                   {cut(0), 0, tsig.ErrFormat},
		"too long":                 {change(func(r *dns.TSIG) { r.MAC, r.MACSize = r.MAC+"00", 33 }), 0, tsig.ErrFormat},
		"another class":            {change(func(r *dns.TSIG) { r.Hdr.Class = dns.ClassINET }), 0, tsig.ErrFormat},
		"a ttl":                    {change(func(r *dns.TSIG) { r.Hdr.Ttl = 1 }), 0, tsig.ErrFormat},
		"cut off":                  {good[:len(good)-1], 0, tsig.ErrFormat},
		"something behind":         {append(bytes.Clone(good), 0), 0, tsig.ErrFormat},
		"short":                    {good[:11], 0, tsig.ErrFormat},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before := bytes.Clone(test.msg)
			_, s, err := tsig.Verify([]tsig.Key{key}, test.msg, now)
			if !errors.Is(err, test.err) || err == nil && s.Code() != test.code {
				t.Errorf("%v %v, not %v %v", s, err, test.code, test.err)
			}
			if !bytes.Equal(before, test.msg) {
				t.Error("the message was changed")
			}
		})
	}
}

func TestPosition(t *testing.T) {
	key := newKey(t, "k", tsig.SHA256)
	msg, _ := query(t, "k.", dns.HmacSHA256, now, 300)
	var m dns.Msg
	if err := m.Unpack(msg); err != nil {
		t.Fatal(err)
	}
	record := m.IsTsig()
	for name, place := range map[string]func(m *dns.Msg){
		"twice":     func(m *dns.Msg) { m.Extra = append(m.Extra, record) },
		"not last":  func(m *dns.Msg) { slices.Reverse(m.Extra) },
		"authority": func(m *dns.Msg) { m.Ns, m.Extra = m.Extra[1:], nil },
	} {
		changed := m.Copy()
		place(changed)
		packed, err := changed.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := tsig.Verify([]tsig.Key{key}, packed, now); !errors.Is(err, tsig.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m.Extra = m.Extra[:1]
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tsig.Verify([]tsig.Key{key}, packed, now); !errors.Is(err, tsig.ErrUnsigned) {
		t.Error(err)
	}
}

// A replayed query is accepted until it is MaxFudge old, whatever it says itself.
func TestReplayWindow(t *testing.T) {
	key := newKey(t, "k", tsig.SHA256)
	rapid.Check(t, func(t *rapid.T) {
		fudge := rapid.Uint16().Draw(t, "fudge")
		if fudge == 0 {
			fudge = 1 // The library takes none for 300.
		}
		apart := rapid.Int64Range(-70_000, 70_000).Draw(t, "apart")
		m := new(dns.Msg)
		m.SetQuestion("example.", dns.TypeAXFR)
		m.SetTsig("k.", dns.HmacSHA256, fudge, now.Unix())
		msg, _, err := dns.TsigGenerate(m, encoded, "", false)
		if err != nil {
			t.Fatal(err)
		}
		_, s, err := tsig.Verify([]tsig.Key{key}, msg, now.Add(time.Duration(apart)*time.Second))
		want := tsig.OK
		if max(apart, -apart) > min(int64(fudge), 300) {
			want = tsig.BadTime
		}
		if err != nil || s.Code() != want {
			t.Fatalf("%v %v, not %v", s.Code(), err, want)
		}
	})
}

// answer is the n-th message of an answer.
func answer(t testing.TB, n int) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion("example.", dns.TypeAXFR)
	m.Id, m.Response = 4711, true
	m.Answer = append(m.Answer, &dns.TXT{
		Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{fmt.Sprint(n)},
	})
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// The library accepts every message of a long answer of ours.
func TestSign(t *testing.T) {
	for algorithm, name := range algorithms {
		msg, mac := query(t, "k.", name, now, 300)
		_, s, err := tsig.Verify([]tsig.Key{newKey(t, "k", algorithm)}, msg, now)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 5 {
			plain := answer(t, n)
			signed := s.Sign(bytes.Clone(plain), time.Now())
			if len(signed)-len(plain) > s.Overhead() {
				t.Errorf("%d octets more, not %d", len(signed)-len(plain), s.Overhead())
			}
			if err := dns.TsigVerify(bytes.Clone(signed), encoded, mac, n > 0); err != nil {
				t.Errorf("%s, message %d: %v", algorithm, n, err)
			}
			var m dns.Msg
			if err := m.Unpack(signed); err != nil {
				t.Fatal(err)
			}
			mac = m.IsTsig().MAC
		}
	}
}

// RFC 8945 section 5.3.2: what an answer to a bad signature holds.
func TestSignErrors(t *testing.T) {
	key := newKey(t, "k", tsig.SHA256)
	record := func(keys []tsig.Key, msg []byte) *dns.TSIG {
		t.Helper()
		_, s, err := tsig.Verify(keys, msg, now)
		if err != nil {
			t.Fatal(err)
		}
		var m dns.Msg
		if err := m.Unpack(s.Sign(answer(t, 0), now)); err != nil || m.IsTsig() == nil {
			t.Fatal(err)
		}
		return m.IsTsig()
	}
	msg, _ := query(t, "k.", dns.HmacSHA256, now, 300)
	if r := record(nil, msg); r.Error != dns.RcodeBadKey || r.MACSize != 0 || r.Hdr.Name != "k." || r.Algorithm != dns.HmacSHA256 {
		t.Errorf("bad key: %v", r)
	}
	bad := bytes.Clone(msg)
	bad[len(bad)-10]++ // The MAC's last octets are followed by id, error and length.
	if r := record([]tsig.Key{key}, bad); r.Error != dns.RcodeBadSig || r.MACSize != 0 {
		t.Errorf("bad signature: %v", r)
	}
	late, _ := query(t, "k.", dns.HmacSHA256, now.Add(-time.Hour), 300)
	r := record([]tsig.Key{key}, late)
	if r.Error != dns.RcodeBadTime || r.MACSize != 32 || r.TimeSigned != uint64(now.Add(-time.Hour).Unix()) || r.OtherData != fmt.Sprintf("%012x", now.Unix()) {
		t.Errorf("bad time: %v", r)
	}
}

// What one side signs the other accepts, and nothing else.
func TestSession(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key, err := tsig.NewKey("a.key", rapid.SampledFrom([]tsig.Algorithm{tsig.SHA256, tsig.SHA384, tsig.SHA512}).Draw(t, "algorithm"), []byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		plain := make([]byte, 12)
		binary.BigEndian.PutUint16(plain, rapid.Uint16().Draw(t, "id"))
		msg, client := tsig.Begin(key, plain, now)
		stripped, server, err := tsig.Verify([]tsig.Key{key}, msg, now)
		if err != nil || server.Code() != tsig.OK || !bytes.Equal(stripped, plain) {
			t.Fatal(server, err)
		}
		for range rapid.IntRange(1, 4).Draw(t, "messages") {
			signed := server.Sign(bytes.Clone(plain), now)
			if rapid.Bool().Draw(t, "spoil") {
				at := rapid.IntRange(0, len(signed)-1).Draw(t, "at")
				signed[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "with"))
				// The id is not covered, and letters of the two names may change case.
				got, err := client.Accept(signed, now)
				if err == nil && !bytes.Equal(got[2:], plain[2:]) {
					t.Fatalf("accepted what differs at %d", at)
				}
				return
			}
			got, err := client.Accept(signed, now)
			if err != nil || !bytes.Equal(got, plain) {
				t.Fatal(err)
			}
		}
	})
}

func TestAcceptRefusals(t *testing.T) {
	key, other := newKey(t, "k", tsig.SHA256), newKey(t, "other", tsig.SHA256)
	plain := make([]byte, 12)
	msg, client := tsig.Begin(key, plain, now)
	_, server, err := tsig.Verify(nil, msg, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Accept(server.Sign(bytes.Clone(plain), now), now); err == nil || !strings.Contains(err.Error(), "BADKEY") {
		t.Error(err)
	}
	if _, err := client.Accept(plain, now); !errors.Is(err, tsig.ErrUnsigned) {
		t.Error(err)
	}
	foreign, _ := tsig.Begin(other, plain, now)
	if _, err := client.Accept(foreign, now); err == nil {
		t.Error("accepted an answer that another key signed")
	}
	_, server, err = tsig.Verify([]tsig.Key{key}, msg, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Accept(server.Sign(bytes.Clone(plain), now.Add(time.Hour)), now); err == nil || !strings.Contains(err.Error(), "BADTIME") {
		t.Error(err)
	}
}

func TestKey(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "A.b.": true, "": false, "a..b": false, strings.Repeat("a", 64): false,
		strings.Repeat("a.", 126) + "a": true, strings.Repeat("a.", 127) + "a": false,
	} {
		if _, err := tsig.NewKey(name, tsig.SHA256, []byte(secret)); err == nil != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := tsig.NewKey("a", tsig.SHA256, []byte("fifteen octets.")); err == nil {
		t.Error("a short secret is accepted")
	}
	if _, err := tsig.NewKey("a", 0, []byte(secret)); err == nil {
		t.Error("no algorithm is accepted")
	}
	key := newKey(t, "Transfer.Example.", tsig.SHA512)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if text := fmt.Sprintf(verb, key); text != "hmac-sha512:transfer.example" {
			t.Errorf("%s prints %q", verb, text)
		}
	}
	for _, name := range []string{"", "hmac-sha256", "HMAC-SHA384.", "hmac-sha512"} {
		if _, err := tsig.ParseAlgorithm(name); err != nil {
			t.Error(err)
		}
	}
	if _, err := tsig.ParseAlgorithm("hmac-md5"); err == nil {
		t.Error("hmac-md5 is accepted")
	}
}

// FuzzVerify checks that no octets do harm, and that only what has the right MAC is accepted.
func FuzzVerify(f *testing.F) {
	key := newKey(f, "k", tsig.SHA256)
	good, _ := query(f, "k.", dns.HmacSHA256, now, 300)
	f.Add(good)
	f.Add(answer(f, 0))
	loop := bytes.Clone(good[:12])
	loop[5] = 0
	f.Add(append(loop, 0xc0, 12, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, msg []byte) {
		before := bytes.Clone(msg)
		stripped, s, err := tsig.Verify([]tsig.Key{key}, msg, now)
		if !bytes.Equal(before, msg) {
			t.Fatal("the message was changed")
		}
		if err != nil {
			return
		}
		if s.Code() == tsig.OK && !bytes.Equal(stripped[2:], good[2:len(stripped)]) && !bytes.Contains(msg, good[len(good)-38:len(good)-6]) {
			t.Fatalf("accepted %x", msg)
		}
		signed := s.Sign(bytes.Clone(stripped), now)
		if len(signed)-len(stripped) > s.Overhead() {
			t.Fatalf("signed with %d octets, more than %d", len(signed)-len(stripped), s.Overhead())
		}
		if _, again, err := tsig.Verify([]tsig.Key{key}, signed, now); err != nil && s.Code() != tsig.BadKey && s.Code() != tsig.BadSignature {
			t.Fatalf("what was signed is malformed: %v %v", again, err)
		}
	})
}
