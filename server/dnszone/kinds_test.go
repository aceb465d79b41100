package dnszone_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/dnszone"
)

// texts returns the records of some names in presentation form.
func texts(records []*provisionrv1.Record, names ...string) (out []string) {
	for _, r := range records {
		if slices.Contains(names, r.GetName()) {
			out = append(out, fmt.Sprintf("%s %d %s %s", strings.TrimSuffix(r.GetName(), ".p.internal."), r.GetTtl(), r.GetType(), r.GetData()))
		}
	}
	return out
}

// serve has a machine of a pool ready.
func (w *world) serve(id, pool string, index uint32) {
	w.must(create(id, pool, index, w.store.Read().Pool(pool).GetMetadata().GetGeneration(), false))
	w.must(launch(id, 1))
	w.must(phase(id, provisionrv1.Phase_PHASE_READY, provisionrv1.Phase_PHASE_LAUNCHING))
}

func TestKindsOfRecords(t *testing.T) {
	w := newWorld(t)
	w.must(apply(zoneObject("default", &provisionrv1.ZoneSpec{Domain: "p.internal", Ttl: 60, Records: []*provisionrv1.StaticRecord{
		{Name: "@", Text: []string{`say "hi" \ é`}, Caa: []string{"128 Issue ca.example.net"}},
		{Name: "www", Cname: "web"}, {Name: "far.away", Cname: "example.org."},
		{Name: "_ldap._tcp", Services: []*provisionrv1.ServiceRecord{{Priority: 1, Weight: 2, Port: 389, Target: "web"}}},
		{Name: "six", Addresses: []string{"2001:db8::1", "192.0.2.1"}, Text: []string{strings.Repeat("x", 300)}},
	}})))
	w.must(apply(poolObject("web", &provisionrv1.PoolSpec{Size: 2, Roles: []string{"front", "edge"},
		Endpoints: []*provisionrv1.PoolEndpoint{{Service: "http", Port: 80}, {Service: "quic", Protocol: "udp", Port: 443}},
		Records:   []*provisionrv1.StaticRecord{{Name: "motto.web", Text: []string{"fast"}}}})))
	w.serve("m-1", "web", 1)
	w.serve("m-2", "web", 2)
	w.must(phase("m-2", provisionrv1.Phase_PHASE_DEGRADED, provisionrv1.Phase_PHASE_READY))
	key := []byte("a host key")
	w.must(report("m-1", "1.2", &provisionrv1.Facts{OsRelease: "Debian GNU/Linux 12", Kernel: "6.1.0", SshHostKeys: []string{
		"ssh-ed25519 " + base64.StdEncoding.EncodeToString(key)}}))
	records := dnszone.Records(w.store.Read())
	want := []string{
		"_http._tcp.web 60 SRV 0 1 80 web-1.p.internal.",
		"_ldap._tcp 60 SRV 1 2 389 web.p.internal.",
		"_quic._udp.web 60 SRV 0 1 443 web-1.p.internal.",
		"edge.role 60 A 10.88.0.2",
		"far.away 60 CNAME example.org.",
		"front.role 60 A 10.88.0.2",
		"motto.web 60 TXT \"fast\"",
		`p.internal. 60 CAA 128 issue "ca.example.net"`,
		`p.internal. 60 TXT "say \"hi\" \\ \195\169"`,
		"six 60 A 192.0.2.1",
		"six 60 AAAA 2001:db8::1",
		`six 60 TXT "` + strings.Repeat("x", 255) + `" "` + strings.Repeat("x", 45) + `"`,
		"web-1 60 A 10.88.0.2",
		fmt.Sprintf("web-1 60 SSHFP 4 2 %x", sha256.Sum256(key)),
		`web-1 60 TXT "pool=web" "roles=front,edge" "os=Debian GNU/Linux 12" "kernel=6.1.0" "agent=1.2"`,
		"web-2 60 A 10.88.0.3",
		`web-2 60 TXT "pool=web" "roles=front,edge"`,
		"www 60 CNAME web.p.internal.",
	}
	got := texts(records, "p.internal.", "_http._tcp.web.p.internal.", "_ldap._tcp.p.internal.", "_quic._udp.web.p.internal.", "edge.role.p.internal.",
		"far.away.p.internal.", "front.role.p.internal.", "motto.web.p.internal.", "six.p.internal.", "web-1.p.internal.", "web-2.p.internal.", "www.p.internal.")
	got = slices.DeleteFunc(got, func(r string) bool { return strings.Contains(r, " SOA ") || strings.Contains(r, " NS ") })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := dnszone.Data(zone.Record{Type: 99, Data: []byte{1, 0xab}}); got != `\# 2 01ab` {
		t.Errorf("an unknown type is %s", got)
	}
	// What is below them exists as a name only.
	zones, err := dnszone.Build(w.store.Read(), dnszone.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, z := range zones {
		if z.Origin() == "p.internal." && z.Len() != 19 {
			t.Errorf("%d names", z.Len())
		}
	}
}

// TestSharedNamesAreBounded: a name of many machines has those of some, and fits the smallest answer.
func TestSharedNamesAreBounded(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("a", 63)
	w.must(apply(poolObject("web", &provisionrv1.PoolSpec{Size: 40, Aliases: []string{long}, Roles: []string{"front"},
		Endpoints: []*provisionrv1.PoolEndpoint{{Service: "http", Port: 80}}})))
	for i := range uint32(40) {
		w.serve(fmt.Sprintf("m-%d", i+1), "web", i+1)
	}
	count := func() map[string]int {
		n := map[string]int{}
		for _, r := range dnszone.Records(w.store.Read()) {
			n[r.GetName()]++
		}
		return n
	}
	n := count()
	for name, want := range map[string]int{"web": 24, "front.role": 24, "_http._tcp.web": 11, long: 23} {
		if got := n[name+".p.internal."]; got != want {
			t.Errorf("%s has %d records, want %d", name, got, want)
		}
	}
	before := texts(dnszone.Records(w.store.Read()), "web.p.internal.")
	shared := strings.Fields(before[0])
	// The one that goes is replaced; the others stay.
	for m := range w.store.Read().Machines() {
		if m.GetStatus().GetAddress() == shared[3] {
			w.must(phase(m.GetMetadata().GetName(), provisionrv1.Phase_PHASE_DEGRADED, provisionrv1.Phase_PHASE_READY))
		}
	}
	after := texts(dnszone.Records(w.store.Read()), "web.p.internal.")
	left := slices.DeleteFunc(slices.Clone(after), func(r string) bool { return slices.Contains(before, r) })
	if len(after) != 24 || len(left) != 1 {
		t.Errorf("after one has gone: %d records, of which new: %v", len(after), left)
	}
}

// TestClassless: a range longer than 24 bits has a zone of its own, unless the octet's zone is ours all the same.
func TestClassless(t *testing.T) {
	w := newWorld(t)
	reverse := func(name, cidr, reverse string) {
		w.must(apply(networkObject(name, &provisionrv1.NetworkSpec{Cidr: cidr, Provider: "local", Reverse: reverse})))
	}
	pointers := func() (out []string) {
		for _, r := range dnszone.Records(w.store.Read()) {
			if r.GetType() == "PTR" && strings.HasSuffix(r.GetName(), ".70.10.in-addr.arpa.") {
				out = append(out, r.GetName()+" "+r.GetZone()+" "+r.GetData())
			}
		}
		return out
	}
	check := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, pointers()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	w.must(apply(zoneObject("default", &provisionrv1.ZoneSpec{Domain: "p.internal", Records: []*provisionrv1.StaticRecord{
		{Name: "in", Addresses: []string{"10.70.0.65"}}, {Name: "out", Addresses: []string{"10.70.0.129"}}}})))
	reverse("far", "10.70.0.64/26", "classless")
	check("65.64/26.0.70.10.in-addr.arpa. 64/26.0.70.10.in-addr.arpa in.p.internal.")
	if origins := dnszone.Origins(w.store.Read()); slices.Contains(origins, "64/26.0.70.10.in-addr.arpa") || slices.Contains(origins, "0.70.10.in-addr.arpa") {
		t.Errorf("machines are to ask for %v", origins)
	}
	reverse("next", "10.70.0.128/26", "classless")
	check("129.128/26.0.70.10.in-addr.arpa. 128/26.0.70.10.in-addr.arpa out.p.internal.", "65.64/26.0.70.10.in-addr.arpa. 64/26.0.70.10.in-addr.arpa in.p.internal.")
	reverse("next", "10.70.0.128/26", "")
	check("129.0.70.10.in-addr.arpa. 0.70.10.in-addr.arpa out.p.internal.", "65.0.70.10.in-addr.arpa. 0.70.10.in-addr.arpa in.p.internal.")
}

func FuzzParseCAA(f *testing.F) {
	for _, seed := range []string{`0 issue ";"`, "0 issue ca.example.net", `128 iodef "mailto:x@example.org"`, "", "0", "0 issue", `0 issue "`, "256 issue x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		flags, tag, value, ok := dnszone.ParseCAA(text)
		if !ok {
			return
		}
		again := dnszone.Data(zone.CAA("x", flags, tag, value))
		f2, t2, v2, ok := dnszone.ParseCAA(again)
		if !ok || f2 != flags || t2 != tag || v2 != value {
			t.Fatalf("%q is %q again: %v", text, again, ok)
		}
	})
}
