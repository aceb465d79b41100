package agent_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/agent"
	"github.com/provisionr/provisionr/agent/agenttest"
	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/file"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const patience = 30 * time.Second

// prover proves that the last run had no error, and something about a peer.
type prover struct {
	last func(context.Context) (*converge.Run, error)
}

func (p *prover) Own(ctx context.Context, s *desired.State) []*agentv1.Proof {
	one := &agentv1.Proof{Assumption: "files", Machine: s.Machine.MachineId, State: agentv1.ProofState_PROOF_STATE_FAILED, Expected: "right", Found: "wrong"}
	if run, err := p.last(ctx); err == nil && run != nil && run.Err() == nil {
		one.State, one.Found = agentv1.ProofState_PROOF_STATE_PROVEN, "right"
	}
	return []*agentv1.Proof{one}
}

func (p *prover) Peers(context.Context, *desired.State) []*agentv1.Proof {
	return []*agentv1.Proof{{Assumption: "peer.dns", Machine: "m-peer", State: agentv1.ProofState_PROOF_STATE_PROVEN}}
}

// stub remembers what it was set to.
type stub struct {
	mu  sync.Mutex
	set []string
}

func (s *stub) Set(d *desired.State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set = append(s.set, d.Pool.Variables["v"])
	return nil
}

func (s *stub) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// rig is an agent whose resources are files below a temporary directory.
type rig struct {
	host host.Host
	log  agenttest.Log
	stub stub
}

func start(t *testing.T, h host.Host) (r *rig, stop func()) {
	t.Helper()
	return startWith(t, h, func(*agent.Parts) {})
}

// startWith starts an agent with further parts.
func startWith(t *testing.T, h host.Host, with func(*agent.Parts)) (r *rig, stop func()) {
	t.Helper()
	r = &rig{host: h}
	parts := agent.Parts{
		Resources: file.New,
		Prover: func(last func(context.Context) (*converge.Run, error)) (agent.Prover, error) {
			return &prover{last}, nil
		},
		Stub: &r.stub,
		Canary: func(ctx context.Context, _, _ string) error {
			<-ctx.Done()
			return nil
		},
	}
	with(&parts)
	a, err := agent.New(agent.Config{Host: &h, Version: "test", Logger: r.log.Logger(), Parts: parts})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return r, stop
}

func newMachine(t *testing.T, s *agenttest.Server) host.Host {
	t.Helper()
	h, _, _ := hosttest.New(t)
	s.Bootstrap(t, h, agenttest.Token)
	write(t, h, "/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
	write(t, h, "/etc/group", "root:x:0:\n")
	return h
}

func write(t *testing.T, h host.Host, path, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.Root, path), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func pool(content string) *agentv1.PoolComponent {
	return &agentv1.PoolComponent{Variables: map[string]string{"v": content}, Files: []*agentv1.File{{
		Path: "/etc/motd", Source: &agentv1.File_Template{Template: "{{.Machine.Name}} {{.Vars.v}}\n"}, Mode: 0o644, Owner: "root", Group: "root",
	}}}
}

func session(t *testing.T, s *agenttest.Server) *agenttest.Session {
	t.Helper()
	select {
	case in := <-s.Sessions:
		return in
	case <-time.After(patience):
		t.Fatal("no session")
		return nil
	}
}

// give plays a server that has the agent converge, and acknowledges reports until one satisfies.
func give(t *testing.T, in *agenttest.Session, p *agentv1.PoolComponent) {
	t.Helper()
	d, components := agenttest.Desired(t, p)
	in.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Desired{Desired: d}})
	for _, c := range components {
		in.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Component{Component: c}})
	}
}

func until(t *testing.T, in *agenttest.Session, what string, satisfies func(all *agentv1.Report) bool) {
	t.Helper()
	all := &agentv1.Report{}
	for !satisfies(all) {
		m, err := in.Recv()
		if err != nil {
			t.Fatalf("%s: %v; so far %v", what, err, all)
		}
		r := m.GetReport()
		if r == nil {
			continue
		}
		next := proto.CloneOf(r)
		if next.Facts == nil {
			next.Facts = all.Facts
		}
		next.Proofs, next.Changes = append(all.Proofs, r.Proofs...), append(all.Changes, r.Changes...)
		all = next
		in.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_ReportAck{ReportAck: &agentv1.ReportAck{Sequence: r.Sequence}}})
	}
}

func motd(t *testing.T, h host.Host) string {
	t.Helper()
	data, err := h.ReadFile("/etc/motd")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFromJoinToProven(t *testing.T) {
	s := agenttest.New(t, nil)
	h := newMachine(t, s)
	_, stop := start(t, h)
	in := session(t, s)
	give(t, in, pool("one"))
	until(t, in, "converged and proven", func(all *agentv1.Report) bool {
		return all.Converged && all.PoolGeneration == 1 && len(all.DesiredHash) == 32 && len(all.Changes) == 1 && len(all.Proofs) >= 2
	})
	if got := motd(t, h); got != "p-1 one\n" {
		t.Errorf("motd %q", got)
	}

	// Verify repairs and proves anew.
	write(t, h, "/etc/motd", "edited by hand\n")
	in.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Verify{Verify: &agentv1.Verify{Id: "v"}}})
	until(t, in, "drift", func(all *agentv1.Report) bool {
		return len(all.Changes) == 1 && all.Changes[0].Drift && len(all.Proofs) >= 2
	})
	if got := motd(t, h); got != "p-1 one\n" {
		t.Errorf("motd %q", got)
	}

	var out bytes.Buffer
	status, err := agent.ReadStatus(h)
	if err != nil {
		t.Fatal(err)
	}
	if err := status.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{agenttest.MachineID, "s1 since", "generation 1", "file//etc/motd", "peer.dns", "proven"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("status lacks %q:\n%s", want, &out)
		}
	}

	// With no server at all, a restarted agent repairs the machine from its cache.
	stop()
	s.Stop()
	write(t, h, "/etc/motd", "edited by hand\n")
	r, _ := start(t, h)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r.log.Wait(ctx, t, "resource changed", "file//etc/motd")
	if got := motd(t, h); got != "p-1 one\n" {
		t.Errorf("motd %q", got)
	}
	s.Listen(t, s.Addr)
	in = session(t, s)
	until(t, in, "what happened meanwhile", func(all *agentv1.Report) bool { return all.Converged && len(all.Changes) == 1 })
	give(t, in, pool("two"))
	until(t, in, "the new state", func(all *agentv1.Report) bool { return all.Converged && len(all.Changes) == 1 })
	if got := motd(t, h); got != "p-1 two\n" {
		t.Errorf("motd %q", got)
	}
	r.stub.mu.Lock()
	defer r.stub.mu.Unlock()
	if got := strings.Join(r.stub.set, " "); got != "one two" {
		t.Errorf("the stub was set to %q", got)
	}
}

// TestReadinessChangesNamesOnly: a desired state with the same hash, in which another member is ready, is answered and not
// converged to.
func TestReadinessChangesNamesOnly(t *testing.T) {
	s := agenttest.New(t, nil)
	r, _ := start(t, newMachine(t, s))
	in := session(t, s)
	give(t, in, pool("one"))
	until(t, in, "converged", func(all *agentv1.Report) bool { return all.Converged && len(all.Proofs) >= 2 })
	d, _ := agenttest.Desired(t, pool("one"))
	body, err := proto.Marshal(&agentv1.MemberChunk{Pool: "p", Members: []*agentv1.Member{{Index: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(body)
	d.Components = append(d.Components, &agentv1.ComponentRef{Name: "ready/p/0", Hash: hash[:]})
	in.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Desired{Desired: d}})
	in.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Component{Component: &agentv1.Component{Hash: hash[:], Body: body}}})
	// What comes after shows that nothing came of it.
	give(t, in, pool("two"))
	until(t, in, "the next state", func(all *agentv1.Report) bool { return all.Converged && len(all.Changes) == 1 })
	r.stub.mu.Lock()
	defer r.stub.mu.Unlock()
	if got := strings.Join(r.stub.set, " "); got != "one one two" {
		t.Errorf("the stub was set to %q", got)
	}
	if n := strings.Count(r.log.String(), "new desired state"); n != 2 {
		t.Errorf("%d desired states were converged to, not 2", n)
	}
}

func TestFailureIsReportedOnce(t *testing.T) {
	s := agenttest.New(t, nil)
	start(t, newMachine(t, s))
	in := session(t, s)
	p := pool("one")
	p.Files[0].Source = &agentv1.File_Template{Template: "{{.Vars.absent}}"}
	give(t, in, p)
	until(t, in, "the failure", func(all *agentv1.Report) bool {
		return !all.Converged && strings.Contains(all.Message, "/etc/motd") && len(all.Changes) == 1 && all.Changes[0].Error != ""
	})
	give(t, in, pool("two"))
	until(t, in, "the cure", func(all *agentv1.Report) bool { return all.Converged && all.Message == "" })
}

func TestStateOfAnotherMachineIsRefused(t *testing.T) {
	s := agenttest.New(t, nil)
	h := newMachine(t, s)
	_, stop := start(t, h)
	in := session(t, s)
	give(t, in, pool("one"))
	until(t, in, "converged", func(all *agentv1.Report) bool { return all.Converged })
	stop()
	// The disk is given to another machine: the cache is not its.
	data, err := h.ReadFile("/etc/provisionr/bootstrap.json")
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte(agenttest.MachineID), []byte("m-other"), 1)
	data = bytes.Replace(data, []byte(`"token": ""`), []byte(`"token": "x"`), 1)
	if err := h.WriteFile("/etc/provisionr/bootstrap.json", data, host.Attributes{}); err != nil {
		t.Fatal(err)
	}
	r, _ := start(t, h)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r.log.Wait(ctx, t, "its token is wrong")
	if strings.Contains(r.log.String(), "converging from the cache") {
		t.Error("converged to the state of another machine")
	}
}

func TestResourcesHaveAnOrder(t *testing.T) {
	h, _, _ := hosttest.New(t)
	s := &desired.State{
		Machine: &agentv1.MachineComponent{MachineId: "m-a", Name: "p-1", Fqdn: "p-1.d", Domain: "d", Pool: "p", Address: "10.0.0.2",
			NtpServers: []string{"10.0.0.1"}, Zones: []string{"d"}, HttpProxy: "http://10.0.0.1:3142", SshAuthorities: []string{"ssh-ed25519 AAAA"},
			Vpn: &agentv1.VpnMember{Name: "v", Cidr: "10.99.0.0/24", Port: 51820, Address: "10.99.0.1"}},
		Pool: &agentv1.PoolComponent{Name: "p",
			Repositories: []*agentv1.Repository{{Name: "r", Uris: []string{"http://r"}, Suites: []string{"s"}}},
			Packages:     []*agentv1.Package{{Name: "nginx"}},
			Users:        []*agentv1.User{{Name: "ada", Admin: true}},
			Files:        []*agentv1.File{{Path: "/etc/motd", Source: &agentv1.File_Content{}}},
			Firewall:     &agentv1.Firewall{Enabled: true},
			Services:     []*agentv1.Service{{Name: "nginx.service", Running: true}},
			Downloads:    []*agentv1.Download{{Path: "/opt/d", Urls: []string{"http://d"}, Sha256: make([]byte, 32)}},
			Groups:       []*agentv1.Group{{Name: "g"}}, Ssh: &agentv1.Ssh{Certificates: true}, Sysctl: map[string]string{"vm.swappiness": "1"},
			Modules: []*agentv1.KernelModule{{Name: "br_netfilter"}}, Timezone: "UTC", Locale: "C.UTF-8", Swap: &agentv1.Swap{SizeMib: 64},
			Filesystems: []*agentv1.Filesystem{{Path: "/data", Disk: 1, Type: "ext4"}}, Networking: &agentv1.Networking{Mtu: 1400},
			OsPolicy: &agentv1.OsPolicy{UnattendedUpgrades: "off", Selinux: "permissive", Apparmor: "enabled"},
		},
	}
	ordered, err := converge.Order(agent.Resources(s, &h))
	if err != nil {
		t.Fatal(err)
	}
	place := make(map[string]int)
	for i, r := range ordered {
		kind, _, _ := strings.Cut(r.Name(), "/")
		place[kind] = i
	}
	for _, pair := range [][2]string{{"repository", "package"}, {"resolver", "package"}, {"package", "user"}, {"user", "file"},
		{"package", "firewall"}, {"firewall", "service"}, {"file", "service"},
		{"package", "download"}, {"group", "user"}, {"package", "sshd"}, {"module", "sysctl"}, {"filesystem", "file"}, {"filesystem", "swap"},
		{"proxy", "package"}, {"package", "locale"}, {"hosts", "timezone"}, {"network", "vpn"}, {"package", "ospolicy"}, {"hosts", "ntp"}} {
		before, ok := place[pair[0]]
		after, ok2 := place[pair[1]]
		if !ok || !ok2 || before > after {
			t.Errorf("%s (%v) is not before %s (%v): %v", pair[0], ok, pair[1], ok2, place)
		}
	}
}
