//go:build machine

package interop

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver/transfer"
	"github.com/provisionr/provisionr/dnsserver/tsig"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

const (
	// changes is how many versions of each zone the secondaries follow, rounds in how many they catch up in between.
	changes = 1000
	rounds  = 10
	// catchUp bounds how long a secondary may be behind.
	catchUp = 30 * time.Second
	// secret is that of all keys; their names differ, so that our log tells who has what.
	secret = "0123456789abcdef0123456789abcdef"
)

// secondary is a server that follows ours.
type secondary struct {
	name string
	addr netip.AddrPort
	key  tsig.Key
}

// follow names the secondaries and their keys; the daemons are started when ours knows them.
func follow(t *testing.T, names ...string) []secondary {
	t.Helper()
	var all []secondary
	for _, name := range names {
		key, err := tsig.NewKey(name+"-key", tsig.SHA256, []byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, secondary{name: name, addr: netip.AddrPortFrom(loopback, freePort(t)), key: key})
	}
	return all
}

// TestSecondaries has BIND, NSD and Knot follow an unsigned and a signed zone.
func TestSecondaries(t *testing.T) {
	signer := newSigner(t, newKey(t, signedOrigin))
	plain := build(t, plainOrigin, zone.Unsigned, forwardRecords(t, plainOrigin, manyHosts))
	signed := presign(t, signer, build(t, signedOrigin, zone.Presigned, forwardRecords(t, signedOrigin, manyHosts)))
	us := serve(t, []*zone.Zone{plain, signed}, nil)
	seconds := follow(t, "bind", "nsd", "knot")
	var policy transfer.Policy
	for _, s := range seconds {
		policy.Keys = append(policy.Keys, s.key)
		policy.Secondaries = append(policy.Secondaries, transfer.Secondary{Address: s.addr, Key: s.key})
	}
	us.policy.Store(&map[string]transfer.Policy{plainOrigin: policy, signedOrigin: policy})
	startSecondaries(t, us.addr, seconds)

	caughtUp := func() {
		for _, s := range seconds {
			for _, z := range []*zone.Zone{plain, signed} {
				until(t, catchUp, func() error {
					serial, err := serialOf(t.Context(), s.addr, z.Origin())
					if err == nil && serial != z.Serial() {
						err = fmt.Errorf("%s has serial %d of %s, we have %d", s.name, serial, z.Origin(), z.Serial())
					}
					return err
				})
			}
		}
	}
	for i := range changes {
		if i%(changes/rounds) == 0 {
			caughtUp()
		}
		next := apply(t, plain, change(i, plainOrigin))
		made, err := signer.Sign(t.Context(), signed, signed.Serial()+1, []zone.Change{change(i, signedOrigin)})
		if err != nil {
			t.Fatal(err)
		}
		nextSigned := apply(t, signed, made...)
		us.copies.Delta(plain, next, []string{change(i, plainOrigin).Name})
		us.copies.Delta(signed, nextSigned, owners(made))
		plain, signed = next, nextSigned
		us.publish(t, plain, signed)
		us.copies.Notify(plainOrigin, signedOrigin)
	}
	caughtUp()

	for _, s := range seconds {
		for _, z := range []*zone.Zone{plain, signed} {
			if diff := cmp.Diff(content(t, z), fetch(t, s.addr, z.Origin())); diff != "" {
				t.Errorf("%s has another %s (-ours +theirs):\n%s", s.name, z.Origin(), diff)
			}
			whole, parts := us.log.count(sent{s.key.Name(), z.Origin(), "AXFR"}), us.log.count(sent{s.key.Name(), z.Origin(), "IXFR"})
			t.Logf("%s: %s: %d AXFR, %d IXFR", s.name, z.Origin(), whole, parts)
			if whole != 1 || parts < rounds {
				t.Errorf("%s took %s whole %d times and as differences %d times", s.name, z.Origin(), whole, parts)
			}
		}
	}
}

// change is the n-th change: machines come, move and go.
func change(n int, origin string) zone.Change {
	name := fmt.Sprintf("web-%d.%s", 1+n*7%(manyHosts+manyHosts/2), origin)
	if n%3 == 2 {
		return zone.Change{Name: name}
	}
	return zone.Change{Name: name, Records: hostRecords(name, n)}
}

func apply(t *testing.T, z *zone.Zone, changes ...zone.Change) *zone.Zone {
	t.Helper()
	next, err := z.With(z.Serial()+1, changes)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func owners(changes []zone.Change) []string {
	var names []string
	for _, c := range changes {
		names = append(names, c.Name)
	}
	return names
}

// content returns all records of a zone in presentation form, sorted.
func content(t *testing.T, z *zone.Zone) []string {
	t.Helper()
	var texts []string
	for r := range z.All() {
		texts = append(texts, parse(t, r).String())
	}
	slices.Sort(texts)
	return texts
}

// fetch returns the records of a server's zone in presentation form, sorted.
func fetch(t *testing.T, from netip.AddrPort, origin string) []string {
	t.Helper()
	m := new(dns.Msg)
	m.SetAxfr(origin)
	envelopes, err := new(dns.Transfer).In(m, from.String())
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for e := range envelopes {
		err = errors.Join(err, e.Error)
		for _, rr := range e.RR {
			texts = append(texts, rr.String())
		}
	}
	if err != nil || len(texts) < 2 {
		t.Fatalf("%s: %d records: %v", origin, len(texts), err)
	}
	texts = texts[:len(texts)-1] // The SOA stands at both ends.
	slices.Sort(texts)
	return texts
}

// startSecondaries starts the daemons, which fetch the zones.
func startSecondaries(t *testing.T, primary netip.AddrPort, seconds []secondary) {
	t.Helper()
	encoded := base64.StdEncoding.EncodeToString([]byte(secret))
	zones := []string{plainOrigin, signedOrigin}
	for _, s := range seconds {
		dir, conf := t.TempDir(), new(strings.Builder)
		switch s.name {
		case "bind":
			fmt.Fprintf(conf, "key %q { algorithm hmac-sha256; secret %q; };\n", s.key.Name(), encoded)
			for _, origin := range zones {
				fmt.Fprintf(conf, bindSecondary, origin, primary.Addr(), primary.Port(), s.key.Name())
			}
			bind(t, s.addr, zones, conf.String())
		case "nsd":
			fmt.Fprintf(conf, nsdServer, dir, s.addr.Addr(), s.addr.Port(), identity, cookieSecret)
			fmt.Fprintf(conf, "key:\n  name: %q\n  algorithm: hmac-sha256\n  secret: %q\n", s.key.Name(), encoded)
			for i, origin := range zones {
				fmt.Fprintf(conf, nsdSecondary, origin, fmt.Sprintf("%s/zone%d", dir, i), primary.Addr(), primary.Port(), s.key.Name())
			}
			start(t, s.name, s.addr, zones, program(t, "nsd"), "-d", "-c", write(t, dir, "nsd.conf", conf.String()))
		case "knot":
			fmt.Fprintf(conf, knotServer, dir, s.addr.Addr(), s.addr.Port(), identity, cookieSecret)
			fmt.Fprintf(conf, knotSecondary, s.key.Name(), encoded, primary.Addr(), primary.Port())
			for _, origin := range zones {
				fmt.Fprintf(conf, "  - domain: %q\n    master: ours\n    acl: [ours, copy]\n    zonefile-sync: -1\n", origin)
			}
			start(t, s.name, s.addr, zones, program(t, "knotd"), "-c", write(t, dir, "knot.conf", conf.String()))
		}
	}
}

const bindSecondary = `zone %[1]q {
  type secondary;
  file "%[1]sdb";
  primaries { %[2]s port %[3]d key %[4]q; };
  allow-notify { key %[4]q; };
};
`

const nsdSecondary = `zone:
  name: %[1]q
  zonefile: %[2]q
  request-xfr: %[3]s@%[4]d %[5]s
  allow-notify: %[3]s %[5]s
  provide-xfr: %[3]s NOKEY
`

const knotSecondary = `key:
  - id: %[1]s
    algorithm: hmac-sha256
    secret: %[2]s
remote:
  - id: ours
    address: %[3]s@%[4]d
    key: %[1]s
acl:
  - id: ours
    key: %[1]s
    action: notify
  - id: copy
    address: %[3]s
    action: transfer
zone:
`
