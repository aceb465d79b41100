//go:build machine

package interop

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver/dnssec"
	"github.com/provisionr/provisionr/dnsserver/transfer"
	"github.com/provisionr/provisionr/dnsserver/tsig"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

// world is our server with one zone of each kind, and the keys of the signed ones.
type world struct {
	*primary
	zones map[string]*zone.Zone
	keys  map[string]*dnssec.Key
}

func newWorld(t *testing.T) world {
	t.Helper()
	w := world{zones: map[string]*zone.Zone{}, keys: map[string]*dnssec.Key{}}
	for _, origin := range []string{signedOrigin, onlineOrigin} {
		w.keys[origin] = newKey(t, origin)
	}
	states := []dnssec.KeyState{{Key: w.keys[onlineOrigin], State: dnssec.Active}}
	online := append(forwardRecords(t, onlineOrigin, hosts), dnssec.KeyRecords(onlineOrigin, states)...)
	all := []*zone.Zone{
		build(t, plainOrigin, zone.Unsigned, forwardRecords(t, plainOrigin, hosts)), build(t, onlineOrigin, zone.Online, online),
		presign(t, newSigner(t, w.keys[signedOrigin]), build(t, signedOrigin, zone.Presigned, forwardRecords(t, signedOrigin, hosts))),
		build(t, reverseOrigin, zone.Unsigned, reverseRecords(t, reverseOrigin)), build(t, nibbleOrigin, zone.Unsigned, reverseRecords(t, nibbleOrigin)),
	}
	for _, z := range all {
		w.zones[z.Origin()] = z
	}
	w.primary = serve(t, all, nil)
	if err := w.online.SetKeys(states); err != nil {
		t.Fatal(err)
	}
	return w
}

// TestZoneFiles has the checkers of BIND and ldns look at whole zones.
func TestZoneFiles(t *testing.T) {
	w := newWorld(t)
	for origin, z := range w.zones {
		if out, err := output(t, "named-checkzone", "-i", "local", "-k", "fail", "-m", "fail", "-n", "fail", "-r", "fail", origin, zonePath(t, z)); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	path := zonePath(t, w.zones[signedOrigin])
	if out, err := output(t, "ldns-verify-zone", "-V", "3", path); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// A zone whose chain has a gap is not accepted: the checker does check.
	broken := write(t, t.TempDir(), "broken", withoutName(t, w.zones[signedOrigin], "web-7."+signedOrigin))
	if out, err := output(t, "ldns-verify-zone", broken); err == nil {
		t.Errorf("ldns-verify-zone takes a zone with a gap\n%s", out)
	}
}

// withoutName returns a zone's file without one of its names.
func withoutName(t *testing.T, z *zone.Zone, name string) string {
	t.Helper()
	var text strings.Builder
	for line := range strings.Lines(zoneFile(t, z)) {
		if !strings.HasPrefix(line, name) {
			text.WriteString(line)
		}
	}
	return text.String()
}

// TestKdig has Knot's client ask in every way that it knows.
func TestKdig(t *testing.T) {
	w := newWorld(t)
	key, err := tsig.NewKey("kdig", tsig.SHA256, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	w.policy.Store(&map[string]transfer.Policy{signedOrigin: {Keys: []tsig.Key{key}}})
	at := []string{"@" + loopback.String(), "-p", strconv.Itoa(int(w.addr.Port())), "+timeout=5"}
	sign := []string{"-y", "hmac-sha256:kdig:" + base64.StdEncoding.EncodeToString([]byte(secret))}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"web-1." + plainOrigin, "A"}, []string{"status: NOERROR", "192.0.2.1"}},
		{[]string{"web-1." + plainOrigin, "AAAA", "+tcp", "+keepopen"}, []string{"status: NOERROR", "2001:db8::100"}},
		{[]string{"-x", "192.0.2.9"}, []string{"status: NOERROR", "web-9." + plainOrigin}},
		{[]string{"-x", "2001:db8::108"}, []string{"status: NOERROR", "web-9." + plainOrigin}},
		{[]string{"web-1." + plainOrigin, "SSHFP", "+nsid"}, []string{"status: NOERROR", "SSHFP", "\"" + identity + "\""}},
		{[]string{"_http._tcp.web." + plainOrigin, "SRV"}, []string{"status: NOERROR", "0 1 80 web-8." + plainOrigin}},
		{[]string{"nobody." + plainOrigin, "A"}, []string{"status: NXDOMAIN", "SOA"}},
		{[]string{"longer." + plainOrigin, "TXT", "+bufsize=512"}, []string{"status: NOERROR", "yyyy", "TCP"}},
		{[]string{"web-1." + signedOrigin, "A", "+dnssec"}, []string{"status: NOERROR", "RRSIG", "do"}},
		{[]string{"nobody." + signedOrigin, "A", "+dnssec"}, []string{"status: NXDOMAIN", "NSEC"}},
		{[]string{"nobody." + onlineOrigin, "A", "+dnssec"}, []string{"status: NOERROR", "TYPE128"}},
		{append([]string{signedOrigin, "AXFR"}, sign...), []string{"web-100." + signedOrigin, "NSEC", "hmac-sha256"}},
		{append([]string{signedOrigin, "SOA"}, sign...), []string{"status: NOERROR", "TSIG"}},
		{[]string{signedOrigin, "AXFR"}, []string{"REFUSED"}},
	} {
		out, err := output(t, "kdig", append(at, c.args...)...)
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("kdig %v has no %q: %v\n%s", c.args, want, err, out)
				break
			}
		}
		warnings := strings.ReplaceAll(strings.ToLower(out), "warning: truncated reply", "")
		if strings.Contains(warnings, "warning") {
			t.Errorf("kdig %v:\n%s", c.args, out)
		}
	}
}

// questions are those that a validator asks about a zone, with the code of the answer. Compact denial of a name has the code
// of a name without data (RFC 9824).
func questions(origin string) map[string]int {
	missing := dns.RcodeNameError
	if origin == onlineOrigin {
		missing = dns.RcodeSuccess
	}
	return map[string]int{
		"web-1." + origin + " A": dns.RcodeSuccess, "web-2." + origin + " AAAA": dns.RcodeSuccess, "web." + origin + " A": dns.RcodeSuccess,
		"_http._tcp.web." + origin + " SRV": dns.RcodeSuccess, "alias2." + origin + " A": dns.RcodeSuccess, "longer." + origin + " TXT": dns.RcodeSuccess,
		origin + " SOA": dns.RcodeSuccess, origin + " NS": dns.RcodeSuccess, origin + " DNSKEY": dns.RcodeSuccess, origin + " CAA": dns.RcodeSuccess,
		origin + " CDS": dns.RcodeSuccess, origin + " CDNSKEY": dns.RcodeSuccess,
		"web-1." + origin + " MX": dns.RcodeSuccess, "_tcp.web." + origin + " A": dns.RcodeSuccess, "deep." + origin + " TXT": dns.RcodeSuccess,
		origin + " MX": dns.RcodeSuccess, "alias." + origin + " MX": dns.RcodeSuccess,
		"nobody." + origin + " A": missing, "a.b." + origin + " A": missing, "x.web-1." + origin + " A": missing, "zzz." + origin + " SRV": missing,
		"0." + origin + " A": missing, "dangling." + origin + " A": missing,
	}
}

// TestDelv has BIND's validating client check answers.
func TestDelv(t *testing.T) {
	w := newWorld(t)
	for origin, key := range w.keys {
		anchor := write(t, t.TempDir(), "anchor", anchorOf(origin, key))
		wrong := write(t, t.TempDir(), "anchor", anchorOf(origin, newKey(t, origin)))
		for question, code := range questions(origin) {
			name, typ, _ := strings.Cut(question, " ")
			ask := func(anchor string) string {
				out, _ := output(t, "delv", "@"+loopback.String(), "-p", strconv.Itoa(int(w.addr.Port())), "-a", anchor, "+root="+origin, name, typ)
				return out
			}
			out := ask(anchor)
			good := strings.Contains(out, "; fully validated") || strings.Contains(out, "; negative response, fully validated")
			if !good || (code == dns.RcodeNameError) != strings.Contains(out, "NXDOMAIN") {
				t.Errorf("delv %s:\n%s", question, out)
			}
			if name == "web-1."+origin {
				if out := ask(wrong); strings.Contains(out, "fully validated") {
					t.Errorf("delv takes %s with a wrong anchor:\n%s", question, out)
				}
			}
		}
	}
}

func anchorOf(origin string, key *dnssec.Key) string {
	return fmt.Sprintf("trust-anchors { %q static-key %d 3 %d %q; };\n", origin, dnssec.Flags, dnssec.Algorithm, base64.StdEncoding.EncodeToString(key.Public()))
}

// TestUnbound has a validating resolver resolve.
func TestUnbound(t *testing.T) {
	w := newWorld(t)
	resolve := func(addr netip.AddrPort, name, typ string) *dns.Msg {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.StringToType[typ])
		m.SetEdns0(4096, true)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		answer, _, err := (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, m, addr.String())
		if err != nil {
			t.Fatalf("%s %s: %v", name, typ, err)
		}
		return answer
	}
	right := unbound(t, w, w.keys)
	wrong := unbound(t, w, map[string]*dnssec.Key{signedOrigin: newKey(t, signedOrigin), onlineOrigin: newKey(t, onlineOrigin)})
	for origin := range w.keys {
		for question, code := range questions(origin) {
			name, typ, _ := strings.Cut(question, " ")
			if answer := resolve(right, name, typ); answer.Rcode != code || !answer.AuthenticatedData {
				t.Errorf("%s is not validated:\n%s", question, answer)
			}
			if answer := resolve(wrong, name, typ); answer.Rcode != dns.RcodeServerFailure {
				t.Errorf("%s is answered with a wrong anchor:\n%s", question, answer)
			}
		}
	}
	// Without an anchor there is an answer and no word about it.
	if answer := resolve(right, "web-1."+plainOrigin, "A"); answer.Rcode != dns.RcodeSuccess || answer.AuthenticatedData {
		t.Errorf("unsigned:\n%s", answer)
	}
}

// unbound runs a resolver that knows our server and the anchors of the zones.
func unbound(t *testing.T, w world, keys map[string]*dnssec.Key) netip.AddrPort {
	t.Helper()
	dir, addr := t.TempDir(), netip.AddrPortFrom(loopback, freePort(t))
	var conf strings.Builder
	fmt.Fprintf(&conf, unboundServer, dir, addr.Addr(), addr.Port())
	for _, key := range keys {
		fmt.Fprintf(&conf, "  trust-anchor: %q\n", key.DSText())
	}
	for origin := range w.zones {
		fmt.Fprintf(&conf, "stub-zone:\n  name: %q\n  stub-addr: %s@%d\n", origin, w.addr.Addr(), w.addr.Port())
	}
	d := launch(t, "unbound", addr, program(t, "unbound"), "-d", "-c", write(t, dir, "unbound.conf", conf.String()))
	d.wait(t, func() error {
		m := new(dns.Msg)
		m.SetQuestion("localhost.", dns.TypeA)
		_, err := dns.ExchangeContext(t.Context(), m, addr.String())
		return err
	})
	return addr
}

const unboundServer = `server:
  username: ""
  chroot: ""
  directory: "%[1]s"
  pidfile: "%[1]s/unbound.pid"
  use-syslog: no
  interface: %[2]s
  port: %[3]d
  do-ip6: no
  do-not-query-localhost: no
  root-hints: ""
  module-config: "validator iterator"
  num-threads: 1
  val-log-level: 2
`
