package dnsserver

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
)

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestCookieVectors: RFC 9018 appendix A.
func TestCookieVectors(t *testing.T) {
	for name, c := range map[string]struct {
		now, before  string
		client       string
		asked, given string
		at           uint32
	}{
		"A.1 learning":       {now: "e5e973e5a6b2a43f48e7dc849e37bfcf", client: "198.51.100.100", asked: "2464c4abcf10c957", given: "010000005cf79f111f8130c3eee29480", at: 1559731985},
		"A.2 renewed":        {now: "e5e973e5a6b2a43f48e7dc849e37bfcf", client: "198.51.100.100", asked: "2464c4abcf10c957", given: "010000005cf7a871d4a564a1442aca77", at: 1559734385},
		"A.3 another client": {now: "e5e973e5a6b2a43f48e7dc849e37bfcf", client: "203.0.113.203", asked: "fc93fc62807ddb86", given: "010000005cf7a9acf73a7810aca2381e", at: 1559734700},
		"A.4 rolled over":    {now: "445536bcd2513298075a5d379663c962", before: "dd3bdf9344b678b185a6f5cb60fca715", client: "2001:db8:220:1:59de:d0f4:8769:82b8", asked: "22681ab97d52c298", given: "010000005cf7c609a6bb79d16625507a", at: 1559741961},
	} {
		var s secrets
		copy(s[0][:], unhex(t, c.now))
		copy(s[1][:], unhex(t, c.before))
		client := netip.MustParseAddr(c.client)
		got := s.give(nil, unhex(t, c.asked), client, c.at)
		if want := unhex(t, c.asked+c.given); !bytes.Equal(got, want) {
			t.Errorf("%s: %x, want %x", name, got, want)
		}
		if valid, fresh := s.check(got, client, c.at); !valid || !fresh {
			t.Errorf("%s: not accepted", name)
		}
	}
}

// TestCookieCheck: cookies that the appendix has clients send, and what may not pass.
func TestCookieCheck(t *testing.T) {
	const first, old, fresh = "e5e973e5a6b2a43f48e7dc849e37bfcf", "dd3bdf9344b678b185a6f5cb60fca715", "445536bcd2513298075a5d379663c962"
	const known = "2464c4abcf10c957010000005cf79f111f8130c3eee29480"
	for name, c := range map[string]struct {
		now, before   string
		client, asked string
		at            uint32
		valid, fresh  bool
	}{
		"of this second":          {now: first, client: "198.51.100.100", asked: known, at: 1559731985, valid: true, fresh: true},
		"A.2: 40 minutes":         {now: first, client: "198.51.100.100", asked: known, at: 1559734385, valid: true},
		"an hour and a second":    {now: first, client: "198.51.100.100", asked: known, at: 1559731985 + 3601},
		"four minutes ahead":      {now: first, client: "198.51.100.100", asked: known, at: 1559731985 - 240, valid: true, fresh: true},
		"six minutes ahead":       {now: first, client: "198.51.100.100", asked: known, at: 1559731985 - 360},
		"A.3: reserved octets":    {now: first, client: "203.0.113.203", asked: "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", at: 1559727985 + 60, valid: true, fresh: true},
		"A.4: secret before":      {now: fresh, before: old, client: "2001:db8:220:1:59de:d0f4:8769:82b8", asked: "22681ab97d52c298010000005cf7c57926556bd0934c72f8", at: 1559741961, valid: true},
		"secret forgotten":        {now: fresh, client: "2001:db8:220:1:59de:d0f4:8769:82b8", asked: "22681ab97d52c298010000005cf7c57926556bd0934c72f8", at: 1559741961},
		"another address":         {now: first, client: "198.51.100.101", asked: known, at: 1559731985},
		"another version":         {now: first, client: "198.51.100.100", asked: "2464c4abcf10c957020000005cf79f111f8130c3eee29480", at: 1559731985},
		"client's part only":      {now: first, client: "198.51.100.100", asked: known[:16], at: 1559731985},
		"cut":                     {now: first, client: "198.51.100.100", asked: known[:44], at: 1559731985},
		"longer":                  {now: first, client: "198.51.100.100", asked: known + "00", at: 1559731985},
		"other client's cookie":   {now: first, client: "198.51.100.100", asked: "3464c4abcf10c957010000005cf79f111f8130c3eee29480", at: 1559731985},
		"no secret accepts none":  {client: "198.51.100.100", asked: zeroKeyCookie(t), at: 1559731985},
		"no secret before either": {now: first, client: "198.51.100.100", asked: zeroKeyCookie(t), at: 1559731985},
	} {
		var s secrets
		copy(s[0][:], unhex(t, c.now))
		copy(s[1][:], unhex(t, c.before))
		valid, fresh := s.check(unhex(t, c.asked), netip.MustParseAddr(c.client), c.at)
		if valid != c.valid || fresh != c.fresh {
			t.Errorf("%s: valid %v fresh %v, want %v %v", name, valid, fresh, c.valid, c.fresh)
		}
	}
}

// zeroKeyCookie is what anybody can make for a server that has no secret.
func zeroKeyCookie(t *testing.T) string {
	var none secrets
	return hex.EncodeToString(none.give(nil, unhex(t, "2464c4abcf10c957"), netip.MustParseAddr("198.51.100.100"), 1559731985))
}
