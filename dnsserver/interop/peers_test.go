//go:build machine

package interop

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// identity is what the servers say of themselves, and cookieSecret what makes their cookies, in hexadecimal: all have the
// same.
const (
	identity     = "interop"
	cookieSecret = "000102030405060708090a0b0c0d0e0f"
)

// nsd runs an NSD that serves copies of the zones.
func nsd(t *testing.T, zones []*zone.Zone) *daemon {
	t.Helper()
	dir, addr := t.TempDir(), netip.AddrPortFrom(loopback, freePort(t))
	var conf strings.Builder
	fmt.Fprintf(&conf, nsdServer, dir, addr.Addr(), addr.Port(), identity, cookieSecret)
	for i, z := range zones {
		file := write(t, dir, fmt.Sprintf("zone%d", i), zoneFile(t, z))
		fmt.Fprintf(&conf, "zone:\n  name: %q\n  zonefile: %q\n", z.Origin(), file)
	}
	return start(t, "nsd", addr, origins(zones), program(t, "nsd"), "-d", "-c", write(t, dir, "nsd.conf", conf.String()))
}

const nsdServer = `server:
  username: ""
  chroot: ""
  zonesdir: "%[1]s"
  database: ""
  pidfile: "%[1]s/nsd.pid"
  xfrdfile: "%[1]s/xfrd.state"
  xfrdir: "%[1]s"
  zonelistfile: "%[1]s/zone.list"
  ip-address: %[2]s
  port: %[3]d
  minimal-responses: yes
  nsid: "ascii_%[4]s"
  answer-cookie: yes
  cookie-secret: "%[5]s"
  cookie-secret-file: "%[1]s/none"
  server-count: 1
  tcp-count: 200
  rrl-ratelimit: 0
  xfrd-reload-timeout: 0
remote-control:
  control-enable: no
`

// knot runs a Knot that serves copies of the zones.
func knot(t *testing.T, zones []*zone.Zone) *daemon {
	t.Helper()
	dir, addr := t.TempDir(), netip.AddrPortFrom(loopback, freePort(t))
	var conf strings.Builder
	fmt.Fprintf(&conf, knotServer, dir, addr.Addr(), addr.Port(), identity, cookieSecret)
	conf.WriteString("zone:\n")
	for i, z := range zones {
		file := write(t, dir, fmt.Sprintf("zone%d", i), zoneFile(t, z))
		fmt.Fprintf(&conf, "  - domain: %q\n    file: %q\n    zonefile-sync: -1\n    journal-content: none\n", z.Origin(), file)
	}
	return start(t, "knot", addr, origins(zones), program(t, "knotd"), "-c", write(t, dir, "knot.conf", conf.String()))
}

const knotServer = `server:
  rundir: "%[1]s"
  pidfile: "%[1]s/knot.pid"
  listen: "%[2]s@%[3]d"
  nsid: "%[4]s"
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
  tcp-idle-timeout: 20s
log:
  - target: stderr
    any: info
database:
  storage: "%[1]s"
  journal-db-max-size: 64M
  kasp-db-max-size: 16M
  timer-db-max-size: 16M
  catalog-db-max-size: 16M
mod-cookies:
  - id: default
    secret: "0x%[5]s"
    badcookie-slip: 1
template:
  - id: default
    global-module: mod-cookies/default
`

// bind runs a BIND with the zones that its configuration has.
func bind(t *testing.T, addr netip.AddrPort, zones []string, conf string) *daemon {
	t.Helper()
	dir := t.TempDir()
	conf = fmt.Sprintf(bindOptions, dir, addr.Addr(), addr.Port()) + conf
	return start(t, "bind", addr, zones, program(t, "named"), "-g", "-n", "1", "-c", write(t, dir, "named.conf", conf))
}

const bindOptions = `options {
  directory "%[1]s";
  pid-file "%[1]s/named.pid";
  session-keyfile "%[1]s/session.key";
  listen-on port %[3]d { %[2]s; };
  listen-on-v6 { none; };
  recursion no;
  notify no;
  dnssec-validation no;
  allow-transfer { any; };
  minimal-responses yes;
};
controls {};
`

// origins returns the names of the zones.
func origins(zones []*zone.Zone) []string {
	var names []string
	for _, z := range zones {
		names = append(names, z.Origin())
	}
	return names
}

// zoneFile returns a zone in presentation form, as BIND, NSD and Knot read it.
func zoneFile(t *testing.T, z *zone.Zone) string {
	t.Helper()
	var text strings.Builder
	for r := range z.All() {
		text.WriteString(parse(t, r).String())
		text.WriteByte('\n')
	}
	return text.String()
}

// zonePath writes a zone's file.
func zonePath(t *testing.T, z *zone.Zone) string {
	t.Helper()
	dir := t.TempDir()
	return filepath.Clean(write(t, dir, "zone", zoneFile(t, z)))
}
