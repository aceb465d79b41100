package vpn

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/internal/rtnl"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// stage says which process of TestMesh this is: none, the one with the bridge, or a machine.
const stage = "PROVISIONR_TEST_VPN"

// TestMesh has three machines, each in namespaces of its own: a relay, and two behind NAT that reach each other through it. A
// fourth end gets and loses a place in the mesh. All is done by the resources, with the real program where the kernel has no
// WireGuard.
func TestMesh(t *testing.T) {
	switch os.Getenv(stage) {
	case "":
		program := filepath.Join(t.TempDir(), "provisionr-wireguard")
		if out, err := exec.Command("go", "build", "-o", program, "github.com/provisionr/provisionr/cmd/provisionr-wireguard").CombinedOutput(); err != nil {
			t.Fatalf("cannot build the program: %v\n%s", err, out)
		}
		cmd := reexec("hub")
		cmd.Env = append(cmd.Env, "PROGRAM="+program)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("in its namespaces: %v\n%s", err, out)
		}
	case "hub":
		hub(t)
	case "machine":
		machine(t)
	}
}

func reexec(which string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestMesh$", "-test.v")
	cmd.Env = append(os.Environ(), stage+"="+which, "PATH=/usr/sbin:/sbin:"+os.Getenv("PATH"))
	return cmd
}

// order is what a machine is told to do, one a line.
type order struct {
	// Do is settle (with State), dial or left.
	Do    string
	State *desired.State
	// Address to reach.
	Address string
	// Routes are the ranges that must lead into the VPN now.
	Routes []string
}

// remote is a machine as the hub sees it.
type remote struct {
	t      *testing.T
	name   string
	in     io.Writer
	answer *bufio.Scanner
	key    string
}

func (r *remote) read() string {
	r.t.Helper()
	for r.answer.Scan() {
		if line, ok := strings.CutPrefix(r.answer.Text(), "ANSWER "); ok {
			return line
		}
		r.t.Log(r.name, r.answer.Text())
	}
	r.t.Fatalf("%s ended", r.name)
	return ""
}

func (r *remote) do(o order) {
	r.t.Helper()
	if err := json.NewEncoder(r.in).Encode(o); err != nil {
		r.t.Fatal(err)
	}
	if got := r.read(); got != "done" {
		r.t.Fatalf("%s cannot %s: %s", r.name, o.Do, got)
	}
}

func shell(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// hub makes the network that the machines are in, and tells them what to do.
func hub(t *testing.T) {
	shell(t, "ip link set lo up; ip link add br0 type bridge; ip link set br0 up")
	machines := make([]*remote, 3)
	for i := range machines {
		machines[i] = launch(t, i+1)
	}
	nodes := func() []*agentv1.VpnNode {
		return []*agentv1.VpnNode{
			{Name: "hub-1", MachineId: "m-1", PublicKey: machines[0].key, Endpoint: "10.0.0.1:51820", Address: "10.99.0.1", Relay: true, Gateway: true, Routes: []string{"172.31.0.0/16"}},
			{Name: "nat-2", MachineId: "m-2", PublicKey: machines[1].key, Address: "10.99.0.2", BehindNat: true},
			{Name: "nat-3", MachineId: "m-3", PublicKey: machines[2].key, Address: "10.99.0.3", BehindNat: true, Via: "m-1"},
		}
	}
	state := func(i int) *desired.State {
		n := nodes()
		s := &desired.State{Machine: &agentv1.MachineComponent{MachineId: fmt.Sprintf("m-%d", i), Vpn: &agentv1.VpnMember{
			Cidr: "10.99.0.0/24", Address: fmt.Sprintf("10.99.0.%d", i), Relay: i == 1, Gateway: i == 1, BehindNat: i > 1, Mtu: 1400,
		}}, Pool: &agentv1.PoolComponent{}, VPN: n}
		if i == 3 {
			n[2].Via, n[1].Via = "", "m-1" // each pool's own view: the others are behind the relay
		}
		return s
	}
	for i, m := range machines {
		s := state(i + 1)
		o := order{Do: "settle", State: s}
		if i > 0 {
			o.Routes = []string{"172.31.0.0/16"}
		}
		m.do(o)
	}
	machines[1].do(order{Do: "dial", Address: "10.99.0.1"})
	machines[2].do(order{Do: "dial", Address: "10.99.0.1"})
	machines[1].do(order{Do: "dial", Address: "10.99.0.3"})
	machines[2].do(order{Do: "dial", Address: "10.99.0.2"})

	// Another end comes and a range goes: the handshakes that there are stay.
	s := state(2)
	s.VPN = append(s.VPN, &agentv1.VpnNode{Name: "admin", PublicKey: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", Address: "10.99.0.200"})
	s.VPN[0].Routes = nil
	machines[1].do(order{Do: "settle", State: s})
	machines[1].do(order{Do: "kept", Address: "10.99.0.1/32"})
	machines[1].do(order{Do: "left"})
	machines[0].do(order{Do: "left"})
}

// launch starts a machine with an end of a cable to the bridge.
func launch(t *testing.T, i int) *remote {
	t.Helper()
	cmd := reexec("machine")
	cmd.Env = append(cmd.Env, fmt.Sprintf("NUMBER=%d", i))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("machine %d: %v", i, err)
		}
	})
	shell(t, fmt.Sprintf("ip link add v%d type veth peer name eth0 netns %d; ip link set v%d master br0 up", i, cmd.Process.Pid, i))
	r := &remote{t: t, name: fmt.Sprintf("machine %d", i), in: in, answer: bufio.NewScanner(out)}
	r.answer.Buffer(nil, 1<<20)
	r.do(order{Do: "network"})
	r.key = r.read()
	return r
}

// machine does what it is told.
func machine(t *testing.T) {
	root := t.TempDir()
	// A socket directory of its own: interfaces of all machines have one name.
	shell(t, "mount --make-rprivate /; mount -t tmpfs tmpfs /run; mkdir "+root+"/proc; mount --rbind /proc "+root+"/proc")
	t.Cleanup(func() { shell(t, "umount -l "+root+"/proc") })
	units := &programs{Units: &hosttest.Units{}, path: os.Getenv("PROGRAM")}
	units.Set(unit, host.Unit{Load: "loaded", Active: "inactive"})
	t.Cleanup(func() {
		if err := units.end(); err != nil {
			t.Error(err)
		}
	})
	h := &host.Host{Root: root, Units: units, Commands: host.Processes{}}
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 1<<20)
	for input.Scan() {
		var o order
		if err := json.Unmarshal(input.Bytes(), &o); err != nil {
			t.Fatal(err)
		}
		if err := obey(t, h, units, o); err != nil {
			fmt.Println("\nANSWER", strings.ReplaceAll(err.Error(), "\n", "; "))
			continue
		}
		fmt.Println("\nANSWER done")
		if o.Do == "network" {
			key, err := PublicKey(h)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println("\nANSWER", key)
		}
	}
}

func obey(t *testing.T, h *host.Host, p *programs, o order) error {
	switch o.Do {
	case "network":
		// A new namespace begins with the host's setting.
		shell(t, "echo 0 > /proc/sys/net/ipv4/ip_forward; ip link set lo up; ip address add 10.0.0."+os.Getenv("NUMBER")+"/24 dev eth0; ip link set eth0 up")
		return converged(t, New(&desired.State{Machine: &agentv1.MachineComponent{Vpn: &agentv1.VpnMember{Cidr: "10.99.0.0/24"}}}, h))
	case "settle":
		o.State.Programs = p
		if err := converged(t, New(o.State, h)); err != nil {
			return err
		}
		for _, to := range o.Routes {
			if out, err := exec.Command("ip", "route", "show", to).Output(); err != nil || !strings.Contains(string(out), "dev pvn0") {
				return fmt.Errorf("route to %s: %q, %v", to, out, err)
			}
		}
		if err := sameAsOthersSee(); err != nil {
			return err
		}
		return serve(o.State.Machine.Vpn.Address)
	case "dial":
		c, err := net.DialTimeout("tcp", o.Address+":7", 20*time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	case "kept":
		d, err := readNow()
		if err != nil {
			return err
		}
		for _, peer := range d.peers {
			if ranges(peer.allowed) == "10.99.0.1/32,10.99.0.3/32" && !peer.handshake.IsZero() {
				return nil
			}
		}
		return fmt.Errorf("no handshake with a peer for %s is left: %v", o.Address, d.peers)
	case "left":
		if err := converged(t, New(&desired.State{Machine: &agentv1.MachineComponent{}}, h)); err != nil {
			return err
		}
		if key, err := PublicKey(h); key != "" || err != nil {
			return fmt.Errorf("key %q, %v", key, err)
		}
		if forward, err := isOn(h, forward4); forward || err != nil {
			return fmt.Errorf("forwarding is %v, %v", forward, err)
		}
		if _, err := net.InterfaceByName(Link); err == nil {
			return fmt.Errorf("%s is still there", Link)
		}
		if _, err := os.Stat(socketDir + Link + ".sock"); err == nil {
			return fmt.Errorf("the socket of %s is still there", Link)
		}
	}
	return nil
}

func readNow() (*device, error) {
	c, err := rtnl.Dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	link, _, err := c.Link(Link)
	if err != nil {
		return nil, err
	}
	return readDevice(link)
}

// sameAsOthersSee compares what we read with what WireGuard's own client reads.
func sameAsOthersSee() error {
	ours, err := readNow()
	if err != nil {
		return err
	}
	c, err := wgctrl.New()
	if err != nil {
		return err
	}
	defer c.Close()
	theirs, err := c.Device(Link)
	if err != nil {
		return err
	}
	if theirs.PrivateKey != ours.private || theirs.ListenPort != ours.port || len(theirs.Peers) != len(ours.peers) {
		return fmt.Errorf("port %d and %d peers, others see %d and %d", ours.port, len(ours.peers), theirs.ListenPort, len(theirs.Peers))
	}
	for _, p := range theirs.Peers {
		i := slices.IndexFunc(ours.peers, func(o devicePeer) bool { return o.key == p.PublicKey })
		var allowed []netip.Prefix
		for _, n := range p.AllowedIPs {
			bits, _ := n.Mask.Size()
			a, _ := netip.AddrFromSlice(n.IP)
			allowed = append(allowed, netip.PrefixFrom(a.Unmap(), bits))
		}
		slices.SortFunc(allowed, comparePrefix)
		if i < 0 || !slices.Equal(allowed, ours.peers[i].allowed) || p.PersistentKeepaliveInterval != ours.peers[i].keepalive ||
			p.Endpoint != nil && p.Endpoint.AddrPort().Port() != ours.peers[i].endpoint.Port() {
			return fmt.Errorf("peers %+v, others see %+v", ours.peers, p)
		}
	}
	return nil
}

// converged checks, applies and checks again.
func converged(t *testing.T, all []converge.Resource) error {
	for _, r := range all {
		before, err := r.Check(t.Context())
		if err == nil && !before.Empty() {
			if guarded, ok := r.(converge.Guarded); ok {
				if _, err := guarded.Undo(t.Context()); err != nil {
					return err
				}
			}
			err = r.Apply(t.Context())
		}
		if err != nil {
			return fmt.Errorf("%s: %w", r.Name(), err)
		}
		if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
			return fmt.Errorf("%s after %q: %q, %w", r.Name(), before.Text, d.Text, err)
		}
	}
	return nil
}

// serve accepts connections on an address, once.
func serve(address string) error {
	l, err := net.Listen("tcp", address+":7")
	if err != nil {
		if strings.Contains(err.Error(), "in use") {
			return nil
		}
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return nil
}
