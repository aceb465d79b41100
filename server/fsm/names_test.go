package fsm

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

func withRecords(o *provisionrv1.Object, records ...*provisionrv1.StaticRecord) *provisionrv1.Object {
	if o.GetZone() != nil {
		o.GetZone().Spec.Records = records
	} else {
		o.GetPool().Spec.Records = records
	}
	return o
}

func addressRecord(name string, addresses ...string) *provisionrv1.StaticRecord {
	return &provisionrv1.StaticRecord{Name: name, Addresses: addresses}
}

func cnameRecord(name, target string) *provisionrv1.StaticRecord {
	return &provisionrv1.StaticRecord{Name: name, Cname: target}
}

func serviceRecord(name string, port uint32, target string) *provisionrv1.StaticRecord {
	return &provisionrv1.StaticRecord{Name: name, Services: []*provisionrv1.ServiceRecord{{Port: port, Target: target}}}
}

func textRecord(name string, texts ...string) *provisionrv1.StaticRecord {
	return &provisionrv1.StaticRecord{Name: name, Text: texts}
}

func caaRecord(name string, caas ...string) *provisionrv1.StaticRecord {
	return &provisionrv1.StaticRecord{Name: name, Caa: caas}
}

func TestRecordsAreChecked(t *testing.T) {
	good := []*provisionrv1.StaticRecord{
		addressRecord("a", "192.0.2.1", "2001:db8::1"), cnameRecord("b", "a"), cnameRecord("c.d", "example.org."), serviceRecord("_ldap._tcp.corp", 389, "a"),
		textRecord("_dmarc", "v=DMARC1; p=none"), caaRecord("e", `0 issue "ca.example.net; account=1"`, "128 iodef mailto:x@example.org"),
		textRecord("f.g_h", strings.Repeat("x", 1024)),
	}
	apex := []*provisionrv1.StaticRecord{{Name: "@", Text: []string{"x"}, Caa: []string{`0 issue ";"`}}}
	w := initialised(t)
	w.must(put(withRecords(zone("default", "provisionr.internal"), slices.Concat(good, apex)...)))
	w.must(put(withRecords(zone("default", "provisionr.internal"), good[0])))
	w.must(put(withRecords(pool("b-pool", 1), good[3:4]...)))
	w.must(put(withRecords(pool("p", 1), good[1:3]...)))

	long := strings.Repeat("a.", 120) + "a"
	for name, r := range map[string]*provisionrv1.StaticRecord{
		"nothing": {Name: "x"}, "no name": addressRecord("", "192.0.2.1"), "capitals": addressRecord("X", "192.0.2.1"), "wildcard": addressRecord("*", "192.0.2.1"),
		"dash": addressRecord("-x", "192.0.2.1"), "dots": addressRecord("x..y", "192.0.2.1"), "final dot": addressRecord("x.", "192.0.2.1"),
		"zero byte": addressRecord("x\x00y", "192.0.2.1"), "long label": addressRecord(strings.Repeat("a", 64), "192.0.2.1"), "long": addressRecord(long, "192.0.2.1"),
		"role": addressRecord("web.role", "192.0.2.1"), "no address": addressRecord("x", "192.0.2"), "address with zone": addressRecord("x", "fe80::1%eth0"),
		"addresses":      addressRecord("x", slices.Repeat([]string{"192.0.2.1"}, 65)...),
		"alias and more": {Name: "x", Cname: "y", Text: []string{"z"}}, "alias of itself": cnameRecord("x", "x"),
		"alias of itself, absolutely": cnameRecord("x", "x.provisionr.internal."), "alias of nothing": cnameRecord("x", "."), "alias of no name": cnameRecord("x", "a b"),
		"long alias": cnameRecord("x", long+"."+long+"."),
		"port 0":     serviceRecord("x", 0, "y"), "port": serviceRecord("x", 65536, "y"), "no target": serviceRecord("x", 1, ""), "bad target": serviceRecord("x", 1, "y..z"),
		"empty text": textRecord("x", ""), "long text": textRecord("x", strings.Repeat("x", 1025)), "texts": textRecord("x", slices.Repeat([]string{"x"}, 33)...),
		"caa": caaRecord("x", "issue x"), "caa flags": caaRecord("x", "256 issue x"), "caa tag": caaRecord("x", "0 is-sue x"), "caa quote": caaRecord("x", `0 issue "x`),
		"caa value": caaRecord("x", "0 issue x y"), "caa control": caaRecord("x", "0 issue \"x\ny\""),
	} {
		for _, o := range []*provisionrv1.Object{zone("default", "provisionr.internal"), pool("p", 1)} {
			if r := w.apply(put(withRecords(o, r)))[0]; r.Err == nil || r.Err.Kind != errs.Invalid {
				t.Errorf("%s: %v", name, r.Err)
			}
		}
	}
	w.refuse(errs.Invalid, put(withRecords(zone("default", "provisionr.internal"), addressRecord("@", "192.0.2.1"))))
	w.refuse(errs.Invalid, put(withRecords(zone("default", "provisionr.internal"), cnameRecord("@", "a"))))
	w.refuse(errs.Invalid, put(withRecords(zone("default", "provisionr.internal"), textRecord("a", "x"), textRecord("a", "y"))))
	w.refuse(errs.Invalid, put(withRecords(pool("p", 1), textRecord("@", "x"))))
	w.refuse(errs.Invalid, put(withRecords(pool("p", 1, "web"), textRecord("web", "x"))))
	w.refuse(errs.Invalid, put(withRecords(pool("p", 1), textRecord("p", "x"))))
	w.refuse(errs.Invalid, put(zone("reverse", "88.10.in-addr.arpa")))
}

// TestNamesOfPoolsAreRegistered: what a pool has in its zone no other has, and it is free again afterwards.
func TestNamesOfPoolsAreRegistered(t *testing.T) {
	endpoints := func(o *provisionrv1.Object, endpoints ...*provisionrv1.PoolEndpoint) *provisionrv1.Object {
		o.GetPool().Spec.Endpoints = endpoints
		return o
	}
	w := initialised(t)
	w.must(put(endpoints(withRecords(pool("a", 2), textRecord("x", "1"), textRecord("y.z", "2")), &provisionrv1.PoolEndpoint{Service: "http", Port: 80})))
	for _, taken := range []*provisionrv1.Object{
		withRecords(pool("b", 1), textRecord("x", "1")), withRecords(pool("b", 1), textRecord("a-2", "1")), pool("x", 1), pool("b", 1, "x"),
		withRecords(zone("default", "provisionr.internal"), textRecord("_http._tcp.a", "1")),
		withRecords(zone("default", "provisionr.internal"), textRecord("y.z", "1")),
	} {
		w.refuse(errs.Conflict, put(taken))
	}
	for _, bad := range []*provisionrv1.PoolEndpoint{
		{Service: "", Port: 1}, {Service: "http", Port: 0}, {Service: "http", Port: 65536}, {Service: "http", Protocol: "sctp", Port: 1},
		{Service: "sixteen-letters-", Port: 1}, {Service: "a_b", Port: 1},
	} {
		w.refuse(errs.Invalid, put(endpoints(pool("b", 1), bad)))
	}
	w.refuse(errs.Invalid, put(endpoints(pool("b", 1), &provisionrv1.PoolEndpoint{Service: "http", Port: 1}, &provisionrv1.PoolEndpoint{Service: "http", Protocol: "tcp", Port: 2})))

	again := newWorld(t)
	if err := again.fsm.Restore(bytes.NewReader(w.snapshot())); err != nil {
		t.Fatal(err)
	}
	again.index = w.index
	again.refuse(errs.Conflict, put(pool("x", 1)))

	w.must(put(withRecords(pool("a", 2), textRecord("y.z", "2"))))
	w.must(put(pool("x", 1)))
	w.must(remove("pools", "a"))
	w.must(put(withRecords(zone("default", "provisionr.internal"), textRecord("y.z", "1"), textRecord("_http._tcp.a", "1"))))
}

// TestFactsChangeNames: the serial goes on when what the machine's name says of it changes, and not otherwise.
func TestFactsChangeNames(t *testing.T) {
	w := initialised(t)
	w.must(put(pool("a", 1)))
	w.serving("m-1", "a", 1)
	w.must(createHeir("m-2", "a", 1, 1))
	const ed, rsa = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA", "ssh-rsa AAAAB3NzaC1yc2EAAA=="
	for i, tt := range []struct {
		id, agent string
		facts     *provisionrv1.Facts
		changed   bool
	}{
		{"m-1", "1", nil, true},
		{"m-1", "1", &provisionrv1.Facts{Cpus: 4, MemoryMib: 1024, RebootRequired: "why"}, false},
		{"m-1", "1", &provisionrv1.Facts{Kernel: "6.1"}, true},
		{"m-1", "1", &provisionrv1.Facts{Kernel: "6.1", SshHostKeys: []string{"unknown AAAA", "ssh-rsa !"}}, false},
		{"m-1", "1", &provisionrv1.Facts{Kernel: "6.1", SshHostKeys: []string{ed, rsa}}, true},
		{"m-1", "1", &provisionrv1.Facts{Kernel: "6.1", SshHostKeys: []string{rsa + " root@a", ed}}, false},
		{"m-1", "2", nil, true},
		{"m-1", "2", &provisionrv1.Facts{Kernel: "6.1", OsRelease: "Debian", SshHostKeys: []string{ed}}, true},
		{"m-2", "7", &provisionrv1.Facts{Kernel: "9.9"}, false},
	} {
		before := w.store.Read()
		w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_ReportMachine{ReportMachine: &raftlogv1.ReportMachine{
			Id: tt.id, Agent: &provisionrv1.AgentStatus{Version: tt.agent}, Facts: tt.facts}}})
		after := w.store.Read()
		if changed := dnszone.Serial(after.Cluster()) != dnszone.Serial(before.Cluster()); changed != tt.changed {
			t.Errorf("report %d: changed %v, want %v", i, changed, tt.changed)
		}
	}
	before := dnszone.Serial(w.store.Read().Cluster())
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_Quarantine{Quarantine: &raftlogv1.Quarantine{Id: "m-2"}}})
	if dnszone.Serial(w.store.Read().Cluster()) != before {
		t.Error("the quarantine of a machine that is not ready changes names")
	}
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_Quarantine{Quarantine: &raftlogv1.Quarantine{Id: "m-1"}}})
	if dnszone.Serial(w.store.Read().Cluster()) == before {
		t.Error("the quarantine of a ready machine changes no names")
	}
}

func TestReverseIsChecked(t *testing.T) {
	w := initialised(t)
	in := func(cidr, reverse string) *raftlogv1.Command {
		o := network("n", cidr)
		o.GetNetwork().Spec.Reverse = reverse
		return put(o)
	}
	w.refuse(errs.Invalid, in("10.90.0.0/25", "both"))
	w.refuse(errs.Invalid, in("10.90.0.0/24", "classless"))
	w.refuse(errs.Invalid, in("fd00::/120", "classless"))
	w.must(in("10.90.0.0/25", "octet"))
	w.must(in("10.90.0.0/25", "classless"))
}

// TestReverseOfAProvidersRange: a provider that says a large range of a network is not refused for what the user asked for.
func TestReverseOfAProvidersRange(t *testing.T) {
	w := initialised(t)
	o := network("n", "")
	o.GetNetwork().Spec = &provisionrv1.NetworkSpec{Provider: "local", Reverse: "classless"}
	w.must(put(o))
	completed := proto.CloneOf(o)
	completed.GetNetwork().Written = proto.CloneOf(o.GetNetwork().GetSpec())
	completed.GetNetwork().Spec.Cidr = "10.90.0.0/16"
	w.must(put(completed))
	w.must(put(o))
	if got := w.store.Read().Network("n").GetSpec(); got.GetCidr() != "10.90.0.0/16" || got.GetReverse() != "classless" {
		t.Errorf("network %v", got)
	}
	o.GetNetwork().Spec.Cidr = "10.90.0.0/16"
	w.refuse(errs.Invalid, put(o))
}

// TestSignedZonesAreNotNested: neither around nor within another zone, however it comes about; what was so before stays.
func TestSignedZonesAreNotNested(t *testing.T) {
	in := func(name, domain, dnssec string) *raftlogv1.Command {
		o := zone(name, domain)
		o.GetZone().Spec.Dnssec = dnssec
		return put(o)
	}
	w := initialised(t)
	w.must(in("beside", "xprovisionr.internal", "online"))
	w.must(in("inner", "a.provisionr.internal", ""))
	w.refuse(errs.Conflict, in("inner", "a.provisionr.internal", "presigned"))
	w.refuse(errs.Conflict, in("default", "provisionr.internal", "online"))
	w.must(in("inner", "elsewhere.example", "presigned"))
	w.refuse(errs.Conflict, in("deep", "a.b.elsewhere.example", "off"))
	w.must(in("default", "provisionr.internal", "presigned"))
	w.refuse(errs.Conflict, in("inner", "a.provisionr.internal", ""))

	before := newWorld(t)
	c := initCommand()
	c.GetInitCluster().Cluster.FeatureLevel = state.LevelNames - 1
	before.must(c)
	before.must(in("inner", "a.provisionr.internal", "online"))
	before.must(&raftlogv1.Command{Kind: &raftlogv1.Command_SetFeatureLevel{SetFeatureLevel: &raftlogv1.SetFeatureLevel{Level: state.LevelNames}}})
	before.must(put(withRecords(zone("default", "provisionr.internal"), textRecord("x", "y"))))
	before.must(in("inner", "a.provisionr.internal", "presigned"))
	before.must(in("inner", "a.provisionr.internal", "off"))
	before.refuse(errs.Conflict, in("inner", "a.provisionr.internal", "online"))
}

// TestNamesBeforeTheirLevel: below the level what is said of further names is taken and not looked at; with the level it is
// registered, and dropped where it is not valid or somebody else's.
func TestNamesBeforeTheirLevel(t *testing.T) {
	w := newWorld(t)
	c := initCommand()
	c.GetInitCluster().Cluster.FeatureLevel = state.LevelNames - 1
	w.must(c)
	bad := zone("other", "other.internal", "good", "bad")
	bad.GetZone().Spec.Records[1].Cname = "good"
	w.must(put(bad))
	w.must(put(withRecords(pool("a", 1), textRecord("x", "1"), addressRecord("y", "192.0.2.1"))))
	w.must(put(withRecords(pool("b", 1), textRecord("x", "2"))))
	w.must(put(withRecords(pool("c", 1), textRecord("x\x00", "2"))))
	w.must(put(pool("y2", 1)))
	w.refuse(errs.Invalid, put(withRecords(zone("default", "provisionr.internal"), textRecord("a.b", "1"))))
	if owner := w.store.Read().NameOwner("default", "x"); owner != nil {
		t.Errorf("the name is %v's", owner)
	}
	before := dnszone.Serial(w.store.Read().Cluster())
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_SetFeatureLevel{SetFeatureLevel: &raftlogv1.SetFeatureLevel{Level: state.LevelNames}}})
	s := w.store.Read()
	if owner := s.NameOwner("default", "x"); owner == nil || owner.Owner != "a" {
		t.Errorf("the name is %v's", owner)
	}
	if len(s.Pool("a").GetSpec().GetRecords()) != 2 || s.Pool("b").GetSpec().GetRecords() != nil || s.Pool("c").GetSpec().GetRecords() != nil {
		t.Error("not the right pools have their records")
	}
	if records := s.WholeZone("other").GetSpec().GetRecords(); len(records) != 1 || s.NameOwner("other", "bad") != nil || s.NameOwner("other", "good") == nil {
		t.Errorf("the zone's records are %v", records)
	}
	if dnszone.Serial(s.Cluster()) == before {
		t.Error("names have the same serial")
	}
	again := newWorld(t)
	if err := again.fsm.Restore(bytes.NewReader(w.snapshot())); err != nil {
		t.Fatal(err)
	}
}

func TestNamesNeedTheirLevel(t *testing.T) {
	signed, reverse := zone("z", "z.internal"), network("n", "10.0.0.0/25")
	signed.GetZone().Spec.Dnssec = "presigned"
	reverse.GetNetwork().Spec.Reverse = "classless"
	transferred := zone("z", "z.internal")
	transferred.GetZone().Spec.Transfer = &provisionrv1.ZoneTransfer{}
	endpoint := pool("a", 1)
	endpoint.GetPool().Spec.Endpoints = []*provisionrv1.PoolEndpoint{{Service: "http", Port: 80}}
	for _, o := range []*provisionrv1.Object{
		signed, reverse, transferred, endpoint, withRecords(pool("a", 1), addressRecord("x", "192.0.2.1")),
		withRecords(zone("z", "z.internal"), textRecord("x", "y")), withRecords(zone("z", "z.internal"), addressRecord("x.y", "192.0.2.1")),
	} {
		if need := Needs(put(user("u", provisionrv1.Role_ROLE_ADMIN), o)); need != state.LevelNames {
			t.Errorf("%v needs level %d", o, need)
		}
	}
	if need := Needs(put(zone("z", "z.internal", "x"))); need != 1 {
		t.Errorf("a plain zone needs level %d", need)
	}
}
