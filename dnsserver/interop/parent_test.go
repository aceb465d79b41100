//go:build machine

package interop

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver/dnssec"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

// parentTypes are what a parent that scans asks a zone for (RFC 7344).
var parentTypes = []uint16{dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY}

// TestParent has what BIND gives to parent zones follow the exchange of a key, in a zone of each kind. That takes nothing whose
// signature is older than the DS records that it has: here two hours.
func TestParent(t *testing.T) {
	for origin, child := range map[string]func(*testing.T, []dnssec.KeyState) string{signedOrigin: presignedChild, onlineOrigin: onlineChild} {
		first, second := newKey(t, origin), newKey(t, origin)
		has := []*dnssec.Key{first}
		for _, step := range []struct {
			keys  []dnssec.KeyState
			wants []*dnssec.Key
		}{
			{[]dnssec.KeyState{{Key: first, State: dnssec.Active}}, []*dnssec.Key{first}},
			{[]dnssec.KeyState{{Key: first, State: dnssec.Active}, {Key: second, State: dnssec.Published}}, []*dnssec.Key{first, second}},
			{[]dnssec.KeyState{{Key: first, State: dnssec.Retired}, {Key: second, State: dnssec.Active}}, []*dnssec.Key{second}},
			{[]dnssec.KeyState{{Key: second, State: dnssec.Active}}, []*dnssec.Key{second}},
		} {
			dir := t.TempDir()
			present := write(t, dir, "present", strings.Join(dsTexts(has), "\n")+"\n")
			before := time.Now().Add(-2 * time.Hour)
			if err := os.Chtimes(present, before, before); err != nil {
				t.Fatal(err)
			}
			file := write(t, dir, "child", child(t, step.keys))
			out, err := output(t, "dnssec-cds", "-a", "SHA-256", "-f", file, "-d", present, strings.TrimSuffix(origin, "."))
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if got, want := parsed(t, strings.Split(out, "\n")), parsed(t, dsTexts(step.wants)); !slices.Equal(got, want) {
				t.Errorf("the parent takes\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			has = step.wants
		}
		// What the zone says is not taken from a key that the parent does not know.
		file := write(t, t.TempDir(), "child", child(t, []dnssec.KeyState{{Key: second, State: dnssec.Active}}))
		strange := write(t, t.TempDir(), "present", newKey(t, origin).DSText()+"\n")
		if out, err := output(t, "dnssec-cds", "-f", file, "-d", strange, "-s", "-7200", strings.TrimSuffix(origin, ".")); err == nil {
			t.Errorf("taken from a strange key\n%s", out)
		}
	}
}

func dsTexts(keys []*dnssec.Key) (texts []string) {
	for _, k := range keys {
		texts = append(texts, k.DSText())
	}
	return texts
}

// parsed returns the data of DS records in order.
func parsed(t *testing.T, lines []string) (out []string) {
	t.Helper()
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		if rr != nil {
			out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
	}
	slices.Sort(out)
	return out
}

// presignedChild returns what a zone that is signed beforehand has of its keys.
func presignedChild(t *testing.T, keys []dnssec.KeyState) string {
	t.Helper()
	s, err := dnssec.New(dnssec.Config{Keys: keys, Signed: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	z := presign(t, s, build(t, signedOrigin, zone.Presigned, nil))
	var text strings.Builder
	for r := range z.Records(signedOrigin) {
		rr := parse(t, r)
		typ := rr.Header().Rrtype
		if sig, ok := rr.(*dns.RRSIG); ok {
			typ = sig.TypeCovered
		}
		if slices.Contains(parentTypes, typ) {
			text.WriteString(rr.String() + "\n")
		}
	}
	return text.String()
}

// onlineChild returns what a server answers about the keys of a zone whose answers it signs.
func onlineChild(t *testing.T, keys []dnssec.KeyState) string {
	t.Helper()
	p := serve(t, []*zone.Zone{build(t, onlineOrigin, zone.Online, dnssec.KeyRecords(onlineOrigin, keys))}, nil)
	if err := p.online.SetKeys(keys); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, typ := range parentTypes {
		m := new(dns.Msg).SetQuestion(onlineOrigin, typ).SetEdns0(1232, true)
		answer, _, err := new(dns.Client).ExchangeContext(t.Context(), m, p.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		for _, rr := range answer.Answer {
			text.WriteString(rr.String() + "\n")
		}
	}
	return text.String()
}
