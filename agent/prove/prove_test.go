package prove

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/internal/ntp"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	yes   = agentv1.ProofState_PROOF_STATE_PROVEN
	no    = agentv1.ProofState_PROOF_STATE_FAILED
	maybe = agentv1.ProofState_PROOF_STATE_UNPROVABLE
)

func state() *desired.State {
	return &desired.State{
		Machine: &agentv1.MachineComponent{
			MachineId: "m-1", Name: "zk-1", Fqdn: "zk-1.example.internal", Index: 1, Pool: "zk", Domain: "example.internal", Address: "10.0.0.1",
			NtpServers: []string{"10.0.0.254", "10.0.0.253"}, DnsServers: []string{"10.0.0.250:53", "10.0.0.251:53"},
			Os: &agentv1.OperatingSystem{Distribution: "debian", Release: "bookworm"},
		},
		Pool: &agentv1.PoolComponent{
			Name: "zk", MaxClockOffset: durationpb.New(100 * time.Millisecond),
			Firewall: &agentv1.Firewall{Enabled: true, Rules: []*agentv1.FirewallRule{
				{Name: "ssh", Protocol: "tcp", Ports: []*agentv1.PortRange{{First: 22, Last: 22}}, Cidrs: []string{"0.0.0.0/0"}},
				{Name: "peers", Protocol: "tcp", Ports: []*agentv1.PortRange{{First: 2888, Last: 2888}}, Pools: []string{"zk"}},
			}},
		},
		Members: map[string][]*agentv1.Member{"zk": {
			{Name: "zk-1", Fqdn: "zk-1.example.internal", Index: 1, Address: "10.0.0.1", MachineId: "m-1", Ready: true},
			{Name: "zk-2", Fqdn: "zk-2.example.internal", Index: 2, Address: "10.0.0.2", MachineId: "m-2", Ready: true},
		}},
	}
}

// world is all that a prover can reach. Tests spoil it.
type world struct {
	*Prover
	root string
	// records by server, name and kind are made by zone unless dns has an entry "server name".
	dns    map[string]answer
	hosts  map[string][]netip.Addr
	ports  map[string]port
	clocks map[string]ntp.Answer
	run    *converge.Run
	links  []link
	// pings that are not answered.
	lost map[netip.Addr]error
}

type answer struct {
	data []string
	err  error
}

// port says line to who connects, or fails.
type port struct {
	line string
	err  error
}

func newWorld(t testing.TB) *world {
	h, _, _ := hosttest.New(t)
	w := &world{
		root: h.Root, dns: map[string]answer{}, hosts: map[string][]netip.Addr{},
		ports: map[string]port{
			"10.0.0.1:22": {line: "SSH-2.0-OpenSSH_9.2p1\r\n"}, "10.0.0.1:7447": {line: "m-1\n"},
			"10.0.0.2:2888": {err: syscall.ECONNREFUSED}, "10.0.0.2:7447": {err: os.ErrDeadlineExceeded}, "10.0.0.2:7446": {line: "m-2\n"},
		},
		links: []link{
			{name: "lo", up: true, mtu: 65536, addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
			{name: "host0", up: true, mtu: 1500, addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}},
		},
		lost:   map[netip.Addr]error{},
		clocks: map[string]ntp.Answer{"10.0.0.254": {Offset: 3 * time.Millisecond, RTT: time.Millisecond}, "10.0.0.253": {Offset: -2 * time.Millisecond}},
		run: &converge.Run{Outcomes: []converge.Outcome{
			{Resource: "package/all"}, {Resource: "file//etc/motd", Diff: "was repaired", Changed: true}, {Resource: "user/ada"},
			{Resource: "hosts/hostname"}, {Resource: "firewall/nftables"}, {Resource: "service/zk.service"},
		}},
	}
	w.write(t, "etc/os-release", "PRETTY_NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n")
	w.write(t, "proc/sys/kernel/hostname", "zk-1\n")
	w.write(t, "proc/sys/kernel/osrelease", "6.1.0\n")
	w.write(t, "proc/1/status", "CapBnd:\t000001ffffffffff\n")
	w.write(t, "etc/resolv.conf", "nameserver 127.0.0.53\nnameserver 10.9.9.9\n")
	p, err := New(Config{Host: &h, Results: func(context.Context) (*converge.Run, error) { return w.run, nil }})
	if err != nil {
		t.Fatal(err)
	}
	p.exchange, p.lookup, p.reversed, p.dial, p.time = w.ask, w.resolve, w.names, w.connectTo, w.clockOf
	p.links = func() ([]link, error) { return w.links, nil }
	p.ping = func(_ context.Context, a netip.Addr) error { return w.lost[a] }
	w.Prover = p
	return w
}

func (w *world) write(t testing.TB, name, content string) {
	t.Helper()
	on := filepath.Join(w.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(on), 0o755), os.WriteFile(on, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (w *world) ask(_ context.Context, server, name string, _ uint16) ([]string, error) {
	name = strings.TrimSuffix(name, ".")
	if a, ok := w.dns[server+" "+name]; ok {
		return a.data, a.err
	}
	switch {
	case name == "zk-1.example.internal", name == "zk-2.example.internal":
		return []string{"10.0.0." + name[3:4]}, nil
	case strings.HasSuffix(name, ".0.0.10.in-addr.arpa"):
		full := "zk-" + name[:1] + ".example.internal"
		if server == "127.0.0.53:53" && name[:1] == "1" { // as systemd-resolved reads /etc/hosts
			return []string{"zk-1", full}, nil
		}
		return []string{full}, nil
	}
	return nil, errors.New("NXDOMAIN")
}

func (w *world) resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	if a, ok := w.hosts[name]; ok {
		return a, nil
	}
	data, err := w.ask(ctx, "", name, 0)
	if err != nil {
		return nil, &net.DNSError{IsNotFound: true}
	}
	return []netip.Addr{netip.MustParseAddr(data[0])}, nil
}

// names answers as /etc/hosts does for the machine's own address, and as DNS for others.
func (w *world) names(ctx context.Context, address string) ([]string, error) {
	if a, ok := w.dns["programs "+address]; ok {
		return a.data, a.err
	}
	arpa, err := dns.ReverseAddr(address)
	if err != nil {
		return nil, err
	}
	names, err := w.ask(ctx, "", arpa, 0)
	if err == nil && address == "10.0.0.1" {
		names = append(names, "zk-1")
	}
	return names, err
}

func (w *world) connectTo(_ context.Context, _, address string) (net.Conn, error) {
	p, ok := w.ports[address]
	if !ok {
		p.err = syscall.EHOSTUNREACH
	}
	if p.err != nil {
		return nil, &net.OpError{Op: "dial", Err: p.err}
	}
	here, there := net.Pipe()
	go func() {
		_, _ = there.Write([]byte(p.line))
		_ = there.Close()
	}()
	return here, nil
}

func (w *world) clockOf(_ context.Context, server string) (ntp.Answer, error) {
	if a, ok := w.clocks[server]; ok {
		return a, nil
	}
	return ntp.Answer{}, errors.New("silent")
}

func TestOwnAllProven(t *testing.T) {
	w := newWorld(t)
	var names []string
	for _, p := range w.Own(t.Context(), state()) {
		names = append(names, p.Assumption)
		if p.State != yes || p.Machine != "m-1" || p.Expected == "" || p.Found == "" || p.Remedy != "" {
			t.Errorf("%v", p)
		}
	}
	want := []string{"os", "packages", "files", "users", "hostname", "dns.forward", "dns.reverse", "resolver", "clock", "firewall", "services", "ssh"}
	if !slices.Equal(names, want) {
		t.Errorf("proofs %v", names)
	}
}

func TestOwnFaults(t *testing.T) {
	loopback := []netip.Addr{netip.MustParseAddr("127.0.1.1")}
	silence := answer{err: errSilent}
	const ptr = "1.0.0.10.in-addr.arpa"
	for _, c := range []struct {
		name       string
		spoil      func(w *world, s *desired.State)
		assumption string
		state      agentv1.ProofState
		found      string
	}{
		{"other release", func(_ *world, s *desired.State) { s.Machine.Os.Release = "trixie" }, "os", no, "debian 12 (bookworm), Linux 6.1.0"},
		{"release by number", func(_ *world, s *desired.State) { s.Machine.Os.Release = "12" }, "os", yes, "debian 12"},
		{"package missing", func(w *world, _ *desired.State) { w.run.Outcomes[0].Diff = "+zookeeper\n+vim" }, "packages", no, "package/all: +zookeeper"},
		{"file error", func(w *world, _ *desired.State) { w.run.Outcomes[1].Err = errors.New("no space") }, "files", no, "no space"},
		{"nothing checked", func(w *world, _ *desired.State) { w.run = nil }, "services", maybe, "not been checked"},
		{"host name", func(w *world, _ *desired.State) { w.write(t, "proc/sys/kernel/hostname", "debian\n") }, "hostname", no, "debian"},
		{"hosts file", func(w *world, _ *desired.State) { w.run.Outcomes[3].Diff = "x" }, "hostname", no, "hosts/hostname: x"},
		{"127.0.1.1", func(w *world, _ *desired.State) { w.hosts["zk-1.example.internal"] = loopback }, "dns.forward", no, "programs: 127.0.1.1"},
		{"stub silent", func(w *world, _ *desired.State) { w.dns["127.0.0.62:53 zk-1.example.internal"] = silence }, "dns.forward", no, "stub: no answer"},
		{"wrong at one server", func(w *world, _ *desired.State) {
			w.dns["10.0.0.251:53 zk-1.example.internal"] = answer{data: []string{"10.0.0.9"}}
		}, "dns.forward", no, "servers: 10.0.0.9"},
		{"two addresses", func(w *world, _ *desired.State) {
			w.dns["127.0.0.62:53 zk-1.example.internal"] = answer{data: []string{"10.0.0.1", "10.0.0.9"}}
		}, "dns.forward", no, "stub: 10.0.0.1, 10.0.0.9"},
		{"not in the resolver", func(w *world, _ *desired.State) {
			w.dns["127.0.0.53:53 zk-1.example.internal"] = answer{err: errors.New("NXDOMAIN")}
		}, "dns.forward", no, "resolv.conf: NXDOMAIN"},
		{"servers away", func(w *world, _ *desired.State) {
			w.dns["10.0.0.250:53 zk-1.example.internal"], w.dns["10.0.0.251:53 zk-1.example.internal"] = silence, silence
		}, "dns.forward", yes, "zk-1.example.internal is 10.0.0.1"},
		{"no address", func(_ *world, s *desired.State) { s.Machine.Address = "" }, "dns.forward", maybe, "none is known"},
		{"no PTR", func(w *world, _ *desired.State) { w.dns["10.0.0.250:53 "+ptr] = answer{} }, "dns.reverse", no, "servers: no record"},
		{"two PTRs", func(w *world, _ *desired.State) {
			w.dns["127.0.0.62:53 "+ptr] = answer{data: []string{"web-1.example.internal", "zk-1.example.internal"}}
		}, "dns.reverse", no, "stub: web-1.example.internal, zk-1.example.internal"},
		{"short name alone", func(w *world, _ *desired.State) { w.dns["127.0.0.53:53 "+ptr] = answer{data: []string{"zk-1"}} }, "dns.reverse", no, "resolv.conf: zk-1"},
		{"hosts file has another name first", func(w *world, _ *desired.State) {
			w.dns["programs 10.0.0.1"] = answer{data: []string{"zk-1", "zk-1.example.internal"}}
		}, "dns.reverse", no, "programs: zk-1, zk-1.example.internal"},
		{"hosts file has another name too", func(w *world, _ *desired.State) {
			w.dns["programs 10.0.0.1"] = answer{data: []string{"zk-1.example.internal", "old"}}
		}, "dns.reverse", no, "programs: zk-1.example.internal, old"},
		{"programs get another address", func(w *world, _ *desired.State) { w.hosts["zk-2.example.internal"] = loopback }, "resolver", no, "zk-2.example.internal: programs get 127.0.1.1, DNS says 10.0.0.2"},
		{"programs get another name", func(w *world, _ *desired.State) { w.dns["programs 10.0.0.2"] = answer{data: []string{"a"}} }, "resolver", no, "10.0.0.2: programs get a, DNS says zk-2.example.internal"},
		{"clock shifted", func(w *world, _ *desired.State) { w.clocks["10.0.0.254"] = ntp.Answer{Offset: 9987 * time.Millisecond} }, "clock", no, "about 10s behind 10.0.0.254"},
		{"clock ahead, may not be set", func(w *world, _ *desired.State) {
			w.clocks["10.0.0.254"] = ntp.Answer{Offset: -250 * time.Millisecond}
			w.write(t, "proc/1/status", "CapBnd:\t0\n")
		}, "clock", no, "about 200ms ahead of 10.0.0.254; observed only"},
		{"observed and right", func(w *world, _ *desired.State) { w.write(t, "proc/1/status", "CapBnd:\t0\n") }, "clock", yes, "within 100ms of 10.0.0.254; observed only"},
		{"second time server", func(w *world, _ *desired.State) { delete(w.clocks, "10.0.0.254") }, "clock", yes, "within 100ms of 10.0.0.253"},
		{"slow way", func(w *world, _ *desired.State) {
			w.clocks["10.0.0.254"] = ntp.Answer{Offset: 150 * time.Millisecond, RTT: 300 * time.Millisecond}
		}, "clock", maybe, "too slow"},
		{"no time server", func(_ *world, s *desired.State) { s.Machine.NtpServers = nil }, "clock", maybe, "no time server answers"},
		{"table changed", func(w *world, _ *desired.State) { w.run.Outcomes[4].Diff = "changed from outside" }, "firewall", no, "changed from outside"},
		{"no canary", func(w *world, _ *desired.State) { delete(w.ports, "10.0.0.1:7447") }, "firewall", no, "does not answer on port 7447"},
		{"foreign canary", func(w *world, _ *desired.State) { w.ports["10.0.0.1:7447"] = port{line: "m-9\n"} }, "firewall", no, "port 7447"},
		{"no firewall wanted", func(w *world, s *desired.State) { s.Pool.Firewall.Enabled = false }, "firewall", yes, "none"},
		{"no sshd", func(w *world, _ *desired.State) { w.ports["10.0.0.1:22"] = port{err: syscall.ECONNREFUSED} }, "ssh", no, "nothing listens"},
		{"no sshd, but something", func(w *world, _ *desired.State) { w.ports["10.0.0.1:22"] = port{line: "HTTP/1.1\n"} }, "ssh", no, "not sshd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, s := newWorld(t), state()
			c.spoil(w, s)
			proofs := w.Own(t.Context(), s)
			i := slices.IndexFunc(proofs, func(p *agentv1.Proof) bool { return p.Assumption == c.assumption })
			if p := proofs[i]; p.State != c.state || !strings.Contains(p.Found, c.found) || (p.State != yes && p.Remedy == "") {
				t.Errorf("got %v, want %s with %q", p, c.state, c.found)
			}
		})
	}
}

func TestPeers(t *testing.T) {
	for _, c := range []struct {
		name          string
		spoil         func(w *world, s *desired.State)
		dns, firewall agentv1.ProofState
		found         string
	}{
		{"all well", func(*world, *desired.State) {}, yes, yes, ""},
		{"canary open", func(w *world, _ *desired.State) { w.ports["10.0.0.2:7447"] = port{line: "m-2\n"} }, yes, no, "port 7447 is open"},
		{"no firewall there", func(w *world, _ *desired.State) { w.ports["10.0.0.2:7447"] = port{err: syscall.ECONNREFUSED} }, yes, no, "port 7447 is open"},
		{"another machine has the address", func(w *world, _ *desired.State) { w.ports["10.0.0.2:7446"] = port{line: "m-9\n"} }, yes, no, "answers for another machine"},
		{"agent without the port", func(w *world, _ *desired.State) { w.ports["10.0.0.2:7446"] = port{err: os.ErrDeadlineExceeded} }, yes, yes, ""},
		{"only the agent's port", func(_ *world, s *desired.State) { s.Pool.Firewall.Rules = nil }, yes, yes, ""},
		{"silent although ready", func(w *world, _ *desired.State) { w.ports["10.0.0.2:2888"] = port{err: os.ErrDeadlineExceeded} }, yes, no, "port 2888 does not answer"},
		{"silent and not ready", func(w *world, s *desired.State) {
			delete(w.ports, "10.0.0.2:2888")
			s.Members["zk"][1].Ready = false
		}, yes, maybe, "does not answer"},
		{"no rule to try", func(_ *world, s *desired.State) {
			s.Pool.Firewall.Rules = []*agentv1.FirewallRule{{Protocol: "tcp", Drop: true, Ports: []*agentv1.PortRange{{First: 1, Last: 65535}}, Pools: []string{"zk"}}}
		}, yes, maybe, "silence proves nothing"},
		{"egress keeps from trying", func(_ *world, s *desired.State) {
			s.Pool.Firewall.Egress = []*agentv1.FirewallRule{{Protocol: "tcp", Ports: []*agentv1.PortRange{{First: 443, Last: 443}}, Cidrs: []string{"0.0.0.0/0"}}}
		}, yes, maybe, "egress rules"},
		{"peer's name", func(w *world, _ *desired.State) { w.dns["127.0.0.62:53 zk-2.example.internal"] = answer{} }, no, yes, "stub: no record"},
		{"peer's address", func(w *world, _ *desired.State) { w.dns["10.0.0.250:53 2.0.0.10.in-addr.arpa"] = answer{} }, no, yes, "servers: no record"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, s := newWorld(t), state()
			c.spoil(w, s)
			proofs := w.Peers(t.Context(), s)
			if len(proofs) != 2 || proofs[0].Assumption != "peer.dns" || proofs[1].Assumption != "peer.firewall" {
				t.Fatalf("got %v", proofs)
			}
			for i, want := range []agentv1.ProofState{c.dns, c.firewall} {
				p := proofs[i]
				if p.State != want || p.Machine != "m-2" || (want != yes && !strings.Contains(p.Found, c.found)) {
					t.Errorf("got %v, want %s with %q", p, want, c.found)
				}
			}
		})
	}
}

// A denied port is known by its silence, which takes no longer to tell than need be.
func TestSilenceIsSoonTold(t *testing.T) {
	for name, c := range map[string]struct {
		round, least, most time.Duration
	}{
		"near": {time.Millisecond, minSilence, minSilence},
		"far":  {30 * time.Millisecond, 600 * time.Millisecond, 600 * time.Millisecond},
		"slow": {300 * time.Millisecond, probeTimeout, probeTimeout},
	} {
		w := newWorld(t)
		synctest.Test(t, func(t *testing.T) {
			w.dial = func(ctx context.Context, _, address string) (net.Conn, error) {
				if strings.HasSuffix(address, ":7447") {
					<-ctx.Done()
					return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
				}
				time.Sleep(c.round)
				return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
			}
			s := state()
			began := time.Now()
			v := w.peerFirewall(t.Context(), s, s.Peers()[0])
			if took := time.Since(began); v.state != yes || took < c.least || took > c.most {
				t.Errorf("%s: %v after %s", name, v, took)
			}
		})
	}
}

// A machine that is emulated or busy takes its time to start sshd for a connection.
func TestSSHBanner(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration
		line  string
		state agentv1.ProofState
		found string
		took  time.Duration
	}{
		"slow sshd":        {4 * time.Second, "SSH-2.0-OpenSSH_9.2\r\n", yes, "SSH-2.0-OpenSSH_9.2", 4 * time.Second},
		"slower":           {bannerTimeout + time.Second, "SSH-2.0-OpenSSH_9.2\r\n", no, "says nothing within 5s", bannerTimeout},
		"half a banner":    {0, "SSH-2.0-Open", no, "says nothing within 5s", bannerTimeout},
		"another protocol": {3 * time.Second, "220 mail\r\n", no, "not sshd", 3 * time.Second},
	} {
		w := newWorld(t)
		synctest.Test(t, func(t *testing.T) {
			w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if !strings.HasSuffix(address, ":22") {
					return w.connectTo(ctx, network, address)
				}
				here, there := net.Pipe()
				go func() {
					defer there.Close()
					time.Sleep(c.after)
					if _, err := there.Write([]byte(c.line)); err == nil {
						_, _ = there.Read(make([]byte, 1)) // until the prover hangs up
					}
				}()
				return here, nil
			}
			began := time.Now()
			proofs := w.Own(t.Context(), state())
			took := time.Since(began)
			for _, p := range proofs {
				if p.Assumption != "ssh" && p.State != yes {
					t.Errorf("%s: %v", name, p)
				}
				if p.Assumption == "ssh" && (p.State != c.state || !strings.Contains(p.Found, c.found) || took != c.took) {
					t.Errorf("%s: %v after %s", name, p, took)
				}
			}
			time.Sleep(c.after) // the other side ends
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		here, there := net.Pipe()
		defer there.Close()
		w.dial = func(context.Context, string, string) (net.Conn, error) { return here, nil }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if w.ssh(ctx, "10.0.0.1"); time.Since(began) != time.Second {
			t.Errorf("it waited %s although it was to end after a second", time.Since(began))
		}
	})
}

func TestSampleLooksAtEveryMachineEquallyOften(t *testing.T) {
	for _, size := range []int{1, 2, 20, 21, 50} {
		seen := make(map[string]int)
		for own := 1; own <= size; own++ {
			s := &desired.State{Machine: &agentv1.MachineComponent{MachineId: fmt.Sprint(own), Index: uint32(own), Pool: "p"}, Members: map[string][]*agentv1.Member{}}
			for i := 1; i <= size; i++ {
				s.Members["p"] = append(s.Members["p"], &agentv1.Member{Index: uint32(i), MachineId: fmt.Sprint(i), Address: "10.0.0.1"})
			}
			for _, m := range Sample(s) {
				if m.MachineId == fmt.Sprint(own) {
					t.Errorf("size %d: machine %d looks at itself", size, own)
				}
				seen[m.MachineId]++
			}
		}
		want := min(size-1, allPeers-1)
		if size > allPeers {
			want = ringPeers
		}
		for id, n := range seen {
			if n != want {
				t.Errorf("size %d: machine %s is looked at by %d, want %d", size, id, n, want)
			}
		}
	}
}

func TestSetIsBoundedInTime(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		w.exchange = func(ctx context.Context, _, _ string, _ uint16) ([]string, error) { return nil, hang(ctx) }
		w.lookup = func(ctx context.Context, _ string) ([]netip.Addr, error) { return nil, hang(ctx) }
		w.dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, hang(ctx) }
		w.time = func(ctx context.Context, _ string) (ntp.Answer, error) { return ntp.Answer{}, hang(ctx) }
		w.results = func(ctx context.Context) (*converge.Run, error) { return nil, hang(ctx) }
		before := time.Now()
		w.Own(t.Context(), state())
		w.Peers(t.Context(), state())
		if took := time.Since(before); took > 2*Timeout {
			t.Errorf("two sets took %s", took)
		}
	})
}

func TestClass(t *testing.T) {
	for d, want := range map[time.Duration]time.Duration{
		0: time.Millisecond, 140 * time.Millisecond: 100 * time.Millisecond, 9990 * time.Millisecond: 10 * time.Second, 10010 * time.Millisecond: 10 * time.Second,
		24 * time.Hour: 100000 * time.Second,
	} {
		if got := class(d); got != want {
			t.Errorf("class of %s is %s, want %s", d, got, want)
		}
	}
}
