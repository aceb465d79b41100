//go:build machine

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	copyKey   = "copy.example"
	copyValue = "c2VjcmV0IHRoYXQgaXMgbG9uZyBlbm91Z2ggZm9yIGEga2V5"
	lab       = `
apiVersion: provisionr/v1
kind: Zone
metadata: {name: lab}
spec:
  domain: lab.example
  dnssec: presigned
  transfer:
    keys: [{name: copy.example, secret: copy}]
  records:
  - {name: www, addresses: [10.9.0.1, "2001:db8::1"]}
  - {name: web, cname: www}
  - {name: _http._tcp, services: [{port: 80, target: www}]}
`
)

// TestNames is what secondaries, resolvers and parents see of three servers: the same octets from each, signatures included.
func TestNames(t *testing.T) {
	d := startServers(t, "", 3, 18600)
	d.pv("secret", "set", "copy", "--from-file", d.write("copy", copyValue))
	d.pv("apply", "--yes", "-f", d.manifest(lab))
	first := d.sameCopies("the signed zone", func(records []string) error {
		for _, want := range []string{"www.lab.example. 30 IN AAAA 2001:db8::1", "web.lab.example. 30 IN CNAME www.lab.example.", "RRSIG A 13", "NSEC", "DNSKEY 257 3 13", `CAA 0 issue ";"`} {
			if !slices.ContainsFunc(records, func(r string) bool { return strings.Contains(r, want) }) {
				return fmt.Errorf("no record %q", want)
			}
		}
		return nil
	})
	t.Run("resolvers validate", func(t *testing.T) { d.validated(t) })
	t.Run("whoever has no key gets no copy", func(t *testing.T) {
		if out, _ := d.dig(1, "lab.example", "AXFR"); !strings.Contains(out, "Transfer failed") {
			t.Error(out)
		}
	})
	t.Run("each server says who it is", func(t *testing.T) {
		for n := 1; n <= 3; n++ {
			if out, _ := d.dig(n, "+nsid", "lab.example", "SOA"); !strings.Contains(out, fmt.Sprintf(`("s%d")`, n)) || !strings.Contains(out, "(good)") {
				t.Errorf("server %d: %s", n, out)
			}
		}
	})
	t.Run("a change reaches all copies", func(t *testing.T) {
		d.pv("apply", "--yes", "-f", d.manifest(strings.Replace(lab, "10.9.0.1", "10.9.0.7", 1)))
		d.sameCopies("the changed zone", func(records []string) error {
			if slices.ContainsFunc(records, func(r string) bool { return strings.Contains(r, "10.9.0.1") }) {
				return fmt.Errorf("the old address is there")
			}
			return nil
		})
	})
	t.Run("a server that comes back signs as the others", func(t *testing.T) {
		d.killServer(2)
		d.sameCopies("after the restart", nil)
	})
	t.Run("another key", func(t *testing.T) {
		before := d.pv("dns", "ds", "lab.example")
		d.pv("dns", "roll", "lab.example")
		d.sameCopies("two keys", func(records []string) error {
			if n := len(slices.DeleteFunc(slices.Clone(records), func(r string) bool { return !strings.Contains(r, " DNSKEY 257 ") })); n != 2 {
				return fmt.Errorf("%d keys", n)
			}
			return nil
		})
		if after := d.pv("dns", "ds", "lab.example"); !strings.Contains(after, strings.TrimSpace(before)) || after == before {
			t.Errorf("DS records before: %s\nand after: %s", before, after)
		}
		d.validated(t)
	})
	if serial(first) == 0 {
		t.Error("no serial")
	}
}

// sameCopies waits until all servers transfer the same records, which are as they should be, and returns them.
func (d *dev) sameCopies(what string, right func(records []string) error) (records []string) {
	d.t.Helper()
	last := uint32(0)
	d.eventually(what, 30*time.Second, func() error {
		copies := make([][]string, 3)
		for n := range copies {
			out, err := d.dig(n+1, "-y", "hmac-sha256:"+copyKey+":"+copyValue, "+noall", "+answer", "+onesoa", "lab.example", "AXFR")
			if err != nil {
				return err
			}
			for line := range strings.Lines(out) {
				if fields := strings.Fields(line); len(fields) > 4 {
					copies[n] = append(copies[n], strings.Join(fields, " "))
				}
			}
			slices.Sort(copies[n])
		}
		if records = copies[0]; len(records) == 0 {
			return fmt.Errorf("server 1 has no records")
		}
		for n, other := range copies {
			if !slices.Equal(records, other) {
				return fmt.Errorf("server %d has other records than server 1:\n%s\n%s", n+1, strings.Join(other, "\n"), strings.Join(records, "\n"))
			}
		}
		if now := serial(records); int32(now-last) < 0 {
			d.t.Errorf("%s: serial %d after %d", what, now, last)
		} else {
			last = now
		}
		if right == nil {
			return nil
		}
		return right(records)
	})
	return records
}

// serial is that of the SOA among the records, or 0.
func serial(records []string) uint32 {
	for _, r := range records {
		if fields := strings.Fields(r); len(fields) > 6 && fields[3] == "SOA" {
			n, err := strconv.ParseUint(fields[6], 10, 32)
			if err == nil {
				return uint32(n)
			}
		}
	}
	return 0
}

// validated has delv validate what is there and what is not, from the keys that the CLI prints alone.
func (d *dev) validated(t *testing.T) {
	t.Helper()
	var anchors strings.Builder
	for line := range strings.Lines(d.pv("dns", "ds", "lab.example")) {
		fields := strings.Fields(line)
		if at := slices.Index(fields, "DS"); at > 0 {
			fmt.Fprintf(&anchors, "%q static-ds %s %s %s %q;\n", "lab.example", fields[at+1], fields[at+2], fields[at+3], strings.Join(fields[at+4:], ""))
		}
	}
	path := d.write("anchors", "trust-anchors {\n"+anchors.String()+"};\n")
	for _, question := range [][2]string{{"www.lab.example", "A"}, {"web.lab.example", "AAAA"}, {"www.lab.example", "TXT"}, {"none.lab.example", "A"}, {"_tcp.lab.example", "A"}} {
		out, err := exec.CommandContext(t.Context(), "delv", "-a", path, "+root=lab.example", "@127.0.0.1", "-p", strconv.Itoa(d.dnsPort(3)), question[0], question[1]).CombinedOutput()
		if text := string(out); !strings.Contains(text, "fully validated") || strings.Contains(text, "unsigned") {
			t.Errorf("%s: %v: %s", question, err, text)
		}
	}
}

// dig asks the nth server.
func (d *dev) dig(n int, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), 10*time.Second)
	defer cancel()
	all := append([]string{"+tries=1", "+time=3", "-p", strconv.Itoa(d.dnsPort(n)), "@127.0.0.1"}, args...)
	out, err := exec.CommandContext(ctx, "dig", all...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("dig: %w: %s", err, out)
	}
	return string(out), err
}
