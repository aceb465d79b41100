//go:build machine

package interop

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

// TestCookies has each server take the cookies of the others, as they have the same secret (RFC 9018).
func TestCookies(t *testing.T) {
	zones := []*zone.Zone{build(t, plainOrigin, zone.Unsigned, forwardRecords(t, plainOrigin, hosts))}
	us := serve(t, zones, func(c *dnsserver.Config) {
		c.Cookies, c.Known = cookies(t), func(netip.Addr) bool { return false }
	})
	servers := []server{{name: "ours", addr: us.addr}, {name: "nsd", addr: nsd(t, zones).addr}, {name: "knot", addr: knot(t, zones).addr}}
	const client = "0123456789abcdef"
	for _, giver := range servers {
		_, given := askWith(t, giver.addr, client)
		if len(given) != len(client)+32 || given[:len(client)] != client {
			t.Fatalf("%s gives the cookie %q", giver.name, given)
		}
		for _, taker := range servers {
			// What shows that a cookie is good: ours gives a stranger a large answer, Knot any at all, NSD the same cookie.
			answer, again := askWith(t, taker.addr, given)
			if answer.Rcode != dns.RcodeSuccess || answer.Truncated || len(answer.Answer) == 0 || again != given {
				t.Errorf("%s does not take the cookie of %s:\n%s", taker.name, giver.name, answer)
			}
		}
	}
	// None of them takes what nobody gave.
	for _, taker := range servers {
		forged := client + "0100000000000000ffffffffffffffff"
		if answer, again := askWith(t, taker.addr, forged); again == forged || taker.name == "ours" && !answer.Truncated {
			t.Errorf("%s takes a forged cookie:\n%s", taker.name, answer)
		}
	}
}

// askWith asks for a large answer with a cookie, and returns the answer and the cookie that it has.
func askWith(t *testing.T, addr netip.AddrPort, cookie string) (*dns.Msg, string) {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion("long."+plainOrigin, dns.TypeTXT)
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: cookie})
	answer, err := dns.ExchangeContext(t.Context(), m, addr.String())
	if err != nil {
		t.Fatal(err)
	}
	if opt := answer.IsEdns0(); opt != nil {
		for _, option := range opt.Option {
			if c, ok := option.(*dns.EDNS0_COOKIE); ok {
				return answer, c.Cookie
			}
		}
	}
	return answer, ""
}
