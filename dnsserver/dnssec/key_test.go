package dnssec

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// The key of RFC 6605 section 6.1.
const (
	rfcPrivate = "GU6SnQ/Ou+xC5RumuIUIuJZteXT2z0O/ok1s38Et6mQ="
	rfcPublic  = "GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA=="
	rfcDigest  = "B4C8C1FE2E7477127B27115656AD6256F424625BF5C1E2770CE6D6E37DF61D17"
	rfcTag     = 55648
)

func rfcKey(t *testing.T) []byte {
	t.Helper()
	scalar, err := base64.StdEncoding.DecodeString(rfcPrivate)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{keyFormat, Algorithm}, scalar...)
}

func TestKeyOfRFC6605(t *testing.T) {
	k, err := Parse("Example.NET", rfcKey(t))
	if err != nil {
		t.Fatal(err)
	}
	if k.Tag() != rfcTag || k.Origin() != "example.net." {
		t.Errorf("key %s, want example.net./%d", k, rfcTag)
	}
	if want := fmt.Sprintf("example.net. IN DS %d 13 2 %s", rfcTag, rfcDigest); k.DSText() != want {
		t.Errorf("DS is %q, want %q", k.DSText(), want)
	}
	if want := "example.net. IN DNSKEY 257 3 13 " + rfcPublic; k.DNSKEYText() != want {
		t.Errorf("DNSKEY is %q, want %q", k.DNSKEYText(), want)
	}
	public, err := Public("example.net.", k.Public())
	if err != nil {
		t.Fatal(err)
	}
	if public.DSText() != k.DSText() {
		t.Errorf("the public key's DS is %q, want %q", public.DSText(), k.DSText())
	}
	if _, err := public.Marshal(); err == nil {
		t.Error("a public key is marshalled as a private one")
	}
	if again, err := k.Marshal(); err != nil || !bytes.Equal(again, rfcKey(t)) {
		t.Errorf("marshalled to %x, %v", again, err)
	}
}

func TestGenerateAgreesWithReference(t *testing.T) {
	var taken []uint16
	for range 20 {
		k, err := Generate("zone.example", taken...)
		if err != nil {
			t.Fatal(err)
		}
		rr, err := dns.NewRR(k.DNSKEYText())
		if err != nil {
			t.Fatal(err)
		}
		reference := rr.(*dns.DNSKEY)
		if reference.KeyTag() != k.Tag() {
			t.Errorf("tag %d, want %d", k.Tag(), reference.KeyTag())
		}
		if want := strings.ToUpper(reference.ToDS(dns.SHA256).Digest); !strings.HasSuffix(k.DSText(), want) {
			t.Errorf("DS %q, want digest %s", k.DSText(), want)
		}
		taken = append(taken, k.Tag())
	}
}

func TestKeySecrecy(t *testing.T) {
	k, err := Parse("example.net", rfcKey(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s", k, k, k, k)} {
		if strings.Contains(text, "private") || strings.Contains(text, "0x") {
			t.Errorf("printed as %s", text)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := rfcKey(t)
	zero, large := bytes.Clone(good), bytes.Clone(good)
	clear(zero[2:])
	for i := range large[2:] {
		large[2+i] = 0xff
	}
	format, algorithm := bytes.Clone(good), bytes.Clone(good)
	format[0], algorithm[1] = 2, 8
	for name, in := range map[string][]byte{
		"nothing": nil, "short": good[:33], "long": append(bytes.Clone(good), 0), "format": format, "algorithm": algorithm,
		"zero": zero, "beyond the order": large,
	} {
		if k, err := Parse("example.net", in); err == nil {
			t.Errorf("%s: parsed as %s", name, k)
		}
	}
	if _, err := Parse("a..b", good); err == nil {
		t.Error("a malformed origin is taken")
	}
	if _, err := Public("example.net", make([]byte, PublicSize)); err == nil {
		t.Error("a point off the curve is taken")
	}
	if _, err := Public("example.net", make([]byte, PublicSize-1)); err == nil {
		t.Error("a short public key is taken")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("example.net", append([]byte{keyFormat, Algorithm}, bytes.Repeat([]byte{7}, scalarSize)...))
	f.Add("", []byte{})
	f.Add("a..b", bytes.Repeat([]byte{0xff}, keySize))
	f.Add(".", append([]byte{keyFormat, Algorithm}, make([]byte, scalarSize)...))
	f.Fuzz(func(t *testing.T, origin string, in []byte) {
		if k, err := Public(origin, in); err == nil && !bytes.Equal(k.Public(), in) {
			t.Errorf("public key %x became %x", in, k.Public())
		}
		k, err := Parse(origin, in)
		if err != nil {
			if len(in) == keySize && strings.Contains(err.Error(), fmt.Sprintf("%x", in[2:])) {
				t.Error("the error tells the key")
			}
			return
		}
		if out, err := k.Marshal(); err != nil || !bytes.Equal(out, in) {
			t.Fatalf("marshalled to %x, %v, want %x", out, err, in)
		}
		set := rrset{typ: zone.TypeDNSKEY, ttl: 60, data: [][]byte{k.data()}}
		if _, err := k.sign(k.owner, set, validity{1, 2}); err != nil {
			t.Fatal(err)
		}
	})
}
