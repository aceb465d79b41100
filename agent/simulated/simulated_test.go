package simulated_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/agent/agenttest"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/prove"
	"github.com/provisionr/provisionr/agent/simulated"
	"github.com/provisionr/provisionr/cloudinit"
	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const patience = 30 * time.Second

func userData(t *testing.T, s *agenttest.Server) []byte {
	t.Helper()
	data, err := cloudinit.Render(cloudinit.Seed{
		ClusterID: agenttest.Cluster, MachineID: agenttest.MachineID, Attempt: 1, JoinToken: agenttest.Token, BeaconToken: "the-beacon-token",
		FQDN: "p-1.provisionr.internal", CAPins: []string{pki.SPKIPin(s.Authority.Cert)}, APIEndpoints: []string{s.Addr},
		AgentEndpoints: []string{s.Addr}, AgentSHA256: map[string]string{"amd64": strings.Repeat("0a", 32)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func pool(owner string) *agentv1.PoolComponent {
	return &agentv1.PoolComponent{
		Packages: []*agentv1.Package{{Name: "zookeeper"}}, Users: []*agentv1.User{{Name: "ada", Admin: true}},
		Files: []*agentv1.File{{
			Path: "/etc/zookeeper/conf/zoo.cfg", Source: &agentv1.File_Template{Template: "# {{.Machine.Name}}\n"}, Mode: 0o644, Owner: owner, Group: "root",
		}},
		Firewall: &agentv1.Firewall{Enabled: true}, Services: []*agentv1.Service{{Name: "zookeeper.service", Running: true}},
	}
}

// play has a machine converge and returns all that it reported until it was proven.
func play(t *testing.T, in *agenttest.Session, p *agentv1.PoolComponent, enough func(*agentv1.Report) bool) *agentv1.Report {
	t.Helper()
	d, components := agenttest.Desired(t, p)
	in.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Desired{Desired: d}})
	for _, c := range components {
		in.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Component{Component: c}})
	}
	all := &agentv1.Report{}
	for !enough(all) {
		m, err := in.Recv()
		if err != nil {
			t.Fatalf("%v; so far %v", err, all)
		}
		r := m.GetReport()
		if r == nil {
			continue
		}
		next := proto.CloneOf(r)
		next.Proofs, next.Changes = append(all.Proofs, r.Proofs...), append(all.Changes, r.Changes...)
		all = next
		in.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_ReportAck{ReportAck: &agentv1.ReportAck{Sequence: r.Sequence}}})
	}
	return all
}

// newest is the last outcome of each proof.
func newest(r *agentv1.Report) map[string]agentv1.ProofState {
	out := map[string]agentv1.ProofState{}
	for _, p := range r.Proofs {
		out[p.Assumption] = p.State
	}
	return out
}

func proven(r *agentv1.Report) bool {
	states := newest(r)
	for _, s := range states {
		if s != agentv1.ProofState_PROOF_STATE_PROVEN {
			return false
		}
	}
	return r.Converged && len(states) > 0
}

// TestMachinesLive runs a handful of machines, each of which its server takes for a real one.
func TestMachinesLive(t *testing.T) {
	var machines sync.WaitGroup
	defer machines.Wait()
	for range 4 {
		server, dir := agenttest.New(t, nil), t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		machines.Go(func() {
			ended <- simulated.Run(ctx, simulated.Machine{UserData: userData(t, server), Dir: dir, Version: "test"})
		})
		var in *agenttest.Session
		select {
		case in = <-server.Sessions:
		case err := <-ended:
			t.Fatalf("the machine ended: %v", err)
		case <-time.After(patience):
			t.Fatal("no session")
		}
		first := play(t, in, pool("zookeeper"), proven)
		changed := map[string]bool{}
		for _, c := range first.Changes {
			changed[c.Resource] = true
		}
		for _, want := range []string{"file//etc/zookeeper/conf/zoo.cfg", "hosts/hostname", "user/ada"} {
			if !changed[want] {
				t.Errorf("%s did not change: %v", want, changed)
			}
		}
		roots, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(roots) != 1 {
			t.Fatalf("directories %v, %v", roots, err)
		}
		content, err := os.ReadFile(filepath.Join(roots[0], "etc/zookeeper/conf/zoo.cfg"))
		if err != nil || string(content) != "# p-1\n" {
			t.Errorf("the file is %q, %v", content, err)
		}

		// What only the second state has is all that changes then.
		next := pool("zookeeper")
		next.Packages = append(next.Packages, &agentv1.Package{Name: "nginx"})
		second := play(t, in, next, func(r *agentv1.Report) bool { return r.Converged && len(r.Changes) > 0 })
		for _, c := range second.Changes {
			if !strings.HasPrefix(c.Resource, "package") {
				t.Errorf("%s changed too", c.Resource)
			}
		}

		// No command runs: it would on the host of the simulation.
		in.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Exec{Exec: &agentv1.Exec{Id: "e", Command: []string{"id"}}}})
		for {
			m := in.Next(t)
			if out := m.GetExecOutput(); out != nil {
				if !strings.Contains(out.GetError(), "none for operators") {
					t.Errorf("exec answered %v", out)
				}
				break
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
			t.Errorf("the machine left %v, %v", left, err)
		}
	}
}

// TestFailureIsNotProven: a file that cannot be made is an assumption that does not hold.
func TestFailureIsNotProven(t *testing.T) {
	server := agenttest.New(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- simulated.Run(ctx, simulated.Machine{UserData: userData(t, server), Dir: t.TempDir(), Version: "test"})
	}()
	in := <-server.Sessions
	p := pool("zookeeper")
	p.Files[0].Source = &agentv1.File_Template{Template: "{{.Vars.absent}}"}
	play(t, in, p, func(r *agentv1.Report) bool { return newest(r)["files"] == agentv1.ProofState_PROOF_STATE_FAILED })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestNoCloudConfig(t *testing.T) {
	for _, data := range []string{"", "#!/bin/sh\n", "#cloud-config\n{", "#cloud-config\nwrite_files: []\n"} {
		if err := simulated.Run(t.Context(), simulated.Machine{UserData: []byte(data), Dir: t.TempDir()}); err == nil {
			t.Errorf("%q boots", data)
		}
	}
}

// TestProofsAreThoseOfRealMachines compares the names of all proofs, so that none is forgotten here.
func TestProofsAreThoseOfRealMachines(t *testing.T) {
	s := &desired.State{
		Machine: &agentv1.MachineComponent{MachineId: "m-a", Name: "p-1", Fqdn: "p-1.d", Domain: "d", Pool: "p", Index: 1, Vpn: &agentv1.VpnMember{Name: "v"}},
		Pool: &agentv1.PoolComponent{Name: "p", Firewall: &agentv1.Firewall{Enabled: true, Egress: []*agentv1.FirewallRule{{Name: "e"}}},
			Repositories: []*agentv1.Repository{{Name: "r"}}, Downloads: []*agentv1.Download{{Path: "/d"}}, Sysctl: map[string]string{"a": "1"},
			Modules: []*agentv1.KernelModule{{Name: "m"}}, Timezone: "UTC", Locale: "C.UTF-8", Swap: &agentv1.Swap{}, Profiles: []string{"hadoop"},
			Filesystems: []*agentv1.Filesystem{{Path: "/f"}}, Networking: &agentv1.Networking{Mtu: 1400}, OsPolicy: &agentv1.OsPolicy{Selinux: "enforcing"}},
		Members: map[string][]*agentv1.Member{"p": {{MachineId: "m-b", Name: "p-2", Index: 2, Address: "127.0.0.1"}}},
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nothing is to be found out, just asked
	realOne, err := prove.New(prove.Config{Host: &host.Host{Root: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	names := func(proofs []*agentv1.Proof) (all []string) {
		for _, p := range proofs {
			all = append(all, p.Machine+" "+p.Assumption)
		}
		return all
	}
	prover := simulated.NewProver(nil)
	if a, b := names(realOne.Own(ctx, s)), names(prover.Own(ctx, s)); strings.Join(a, ",") != strings.Join(b, ",") {
		t.Errorf("own proofs: real %q, simulated %q", a, b)
	}
	if a, b := names(realOne.Peers(ctx, s)), names(prover.Peers(ctx, s)); strings.Join(a, ",") != strings.Join(b, ",") {
		t.Errorf("proofs about peers: real %q, simulated %q", a, b)
	}
}

// TestManyMachines bounds what a machine costs, with its server's side of the connection, so that thousands fit a process.
func TestManyMachines(t *testing.T) {
	const machines, most = 40, 512 << 10
	server, dir := agenttest.New(t, nil), t.TempDir()
	data := userData(t, server)
	used := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := used()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for range machines {
		running.Go(func() {
			if err := simulated.Run(ctx, simulated.Machine{UserData: data, Dir: dir, Version: "test"}); err != nil {
				t.Error(err)
			}
		})
	}
	for range machines {
		select {
		case in := <-server.Sessions:
			play(t, in, pool("zookeeper"), proven)
		case <-time.After(patience):
			t.Fatal("not all machines have a session")
		}
	}
	each := (used() - before) / machines
	t.Logf("a machine takes %d KiB", each>>10)
	if each > most {
		t.Errorf("a machine takes %d bytes, more than %d", each, most)
	}
	cancel()
	running.Wait()
}
