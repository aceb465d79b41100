package prove

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/desired"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// vpnLink is the name of the VPN's interface.
const vpnLink = "pvn0"

// link is a network interface as the kernel has it.
type link struct {
	name      string
	up        bool
	mtu       int
	addresses []netip.Prefix
}

func (l link) has(a netip.Addr) bool {
	return slices.ContainsFunc(l.addresses, func(p netip.Prefix) bool { return p.Addr() == a })
}

// links asks the kernel for the interfaces (rtnetlink(7), by package net).
func links() ([]link, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var list []link
	for _, i := range all {
		l := link{name: i.Name, up: i.Flags&net.FlagUp != 0, mtu: i.MTU}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				l.addresses = append(l.addresses, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()))
			}
		}
		list = append(list, l)
	}
	return list, nil
}

// own is the interface that has the machine's address.
func (p *Prover) own(s *desired.State) (link, bool) {
	address, err := netip.ParseAddr(s.Machine.GetAddress())
	all, err2 := p.links()
	if err != nil || err2 != nil {
		return link{}, false
	}
	at := slices.IndexFunc(all, func(l link) bool { return l.has(address) })
	if at < 0 {
		return link{}, false
	}
	return all[at], true
}

// network looks at the machine's interface and at the kernel's routes.
func (p *Prover) network(s *desired.State) verdict {
	const expected = "network as desired"
	want := s.Pool.GetNetworking()
	l, ok := p.own(s)
	if !ok {
		return failed(expected, "no interface has "+cmp.Or(s.Machine.GetAddress(), "an address"), "see whether something else configures the network of the machine")
	}
	var wrong []string
	if mtu := int(want.GetMtu()); mtu > 0 && l.mtu != mtu {
		wrong = append(wrong, fmt.Sprintf("%s has MTU %d, not %d", l.name, l.mtu, mtu))
	}
	for _, text := range want.GetAddresses() {
		if a, err := netip.ParsePrefix(text); err != nil || !slices.Contains(l.addresses, a) {
			wrong = append(wrong, fmt.Sprintf("%s has no address %s", l.name, text))
		}
	}
	if len(want.GetRoutes()) > 0 {
		present := p.routes()
		for _, r := range want.GetRoutes() {
			to, err := netip.ParsePrefix(r.To)
			via, err2 := netip.ParseAddr(r.Via)
			right := func(is route) bool {
				return is.to == to.Masked() && is.via == via && (r.Metric == 0 || is.metric == r.Metric)
			}
			if err != nil || err2 != nil || !slices.ContainsFunc(present, right) {
				wrong = append(wrong, fmt.Sprintf("no route to %s via %s", r.To, r.Via))
			}
		}
	}
	return mismatch(expected, wrong, repairs)
}

// route is one of the kernel's.
type route struct {
	to     netip.Prefix
	via    netip.Addr
	metric uint32
}

// routes reads /proc/net/route and /proc/net/ipv6_route of the machine's network namespace. What cannot be read has none.
func (p *Prover) routes() []route {
	var list []route
	v4, _ := p.host.ReadFile("/proc/self/net/route")
	for line := range strings.Lines(string(v4)) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		to, ok := hostOrder(f[1])
		via, ok2 := hostOrder(f[2])
		mask, ok3 := hostOrder(f[7])
		if !ok || !ok2 || !ok3 {
			continue // the header
		}
		ones, _ := net.IPMask(mask.AsSlice()).Size()
		metric, _ := strconv.ParseUint(f[6], 10, 32)
		list = append(list, route{netip.PrefixFrom(to, ones), via, uint32(metric)})
	}
	v6, _ := p.host.ReadFile("/proc/self/net/ipv6_route")
	for line := range strings.Lines(string(v6)) {
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		to, err := hex.DecodeString(f[0])
		via, err2 := hex.DecodeString(f[4])
		bits, err3 := strconv.ParseUint(f[1], 16, 8)
		metric, _ := strconv.ParseUint(f[5], 16, 32)
		if err != nil || err2 != nil || err3 != nil || len(to) != 16 || len(via) != 16 {
			continue
		}
		list = append(list, route{netip.PrefixFrom(netip.AddrFrom16([16]byte(to)), int(bits)), netip.AddrFrom16([16]byte(via)), uint32(metric)})
	}
	return list
}

// hostOrder reads an address of /proc/net/route: eight hexadecimal digits of a number in the order of the machine's octets.
func hostOrder(text string) (netip.Addr, bool) {
	n, err := strconv.ParseUint(text, 16, 32)
	if err != nil || len(text) != 8 {
		return netip.Addr{}, false
	}
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], uint32(n))
	return netip.AddrFrom4(b), true
}

// vpn looks at the VPN's interface.
func (p *Prover) vpn(s *desired.State) verdict {
	want := s.Machine.GetVpn()
	address, err := netip.ParseAddr(want.GetAddress())
	if err != nil {
		return unprovable("an address in VPN "+want.GetName(), "none is known yet", "wait until the servers have the machine's public key")
	}
	expected := fmt.Sprintf("%s has %s", vpnLink, address)
	all, err := p.links()
	at := slices.IndexFunc(all, func(l link) bool { return l.name == vpnLink })
	switch {
	case err != nil || at < 0:
		return failed(expected, "no interface "+vpnLink, repairs)
	case !all[at].up:
		return failed(expected, vpnLink+" is down", repairs)
	case !all[at].has(address):
		return failed(expected, vpnLink+" has another address", repairs)
	case want.GetMtu() > 0 && all[at].mtu != int(want.GetMtu()):
		return failed(fmt.Sprintf("MTU %d", want.GetMtu()), fmt.Sprintf("MTU %d", all[at].mtu), repairs)
	}
	return proven(expected, expected)
}

// vpnPeer proves that a peer answers through the VPN, which it only can after a handshake of both.
func (p *Prover) vpnPeer(ctx context.Context, s *desired.State, peer *agentv1.Member) verdict {
	// Beyond the mesh limit members that are behind a relay are no nodes.
	text := peer.VpnAddress
	if at := slices.IndexFunc(s.VPN, func(n *agentv1.VpnNode) bool { return n.MachineId == peer.MachineId }); at >= 0 {
		text = s.VPN[at].Address
	}
	address, err := netip.ParseAddr(text)
	if err != nil || s.Machine.GetVpn().GetAddress() == "" {
		return unprovable("an address in the VPN", "none is known yet", "wait until the servers have the machines' public keys")
	}
	expected := fmt.Sprintf("%s answers a ping through the VPN", address)
	switch err := p.ping(ctx, address); {
	case err == nil:
		return proven(expected, expected)
	case errors.Is(err, os.ErrPermission):
		return unprovable(expected, "the agent may not send a ping", "let the agent have CAP_NET_RAW")
	case !peer.Ready:
		return unprovable(expected, "no answer yet", "wait until the machine is up")
	}
	return failed(expected, "no answer", "see wg show "+vpnLink+" on both: UDP port "+strconv.Itoa(int(s.Machine.GetVpn().GetPort()))+" must be open between them, and their clocks right")
}

const (
	// pingTries are sent pingEvery, which leaves the first time for the handshake that it begins.
	pingTries = 3
	pingEvery = 500 * time.Millisecond
)

// ping sends echo requests (RFC 792, RFC 4443 section 4.1) until one is answered. It needs CAP_NET_RAW.
func ping(ctx context.Context, address netip.Addr) error {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if address.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address.String())
	if err != nil {
		return fmt.Errorf("cannot ping: %w", err)
	}
	defer func() { _ = conn.Close() }()
	raw, ok := conn.(net.PacketConn)
	if !ok {
		return fmt.Errorf("cannot ping: a connection of type %T", conn)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	id := uint16(time.Now().UnixNano()) // tells apart the pings of this process at a time
	last := errors.New("no answer")
	for try := range pingTries {
		if _, err := conn.Write(echo(request, id, uint16(try))); err != nil {
			last = err // as ENOKEY, until the handshake is done
		}
		if err := conn.SetReadDeadline(time.Now().Add(pingEvery)); err != nil {
			return err
		}
		for buffer := make([]byte, 128); ; {
			n, _, err := raw.ReadFrom(buffer) // Read leaves the IPv4 header in
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				if last = err; ctx.Err() != nil {
					return ctx.Err()
				}
				<-sleep(ctx, pingEvery)
				break
			}
			if n >= 8 && buffer[0] == reply && binary.BigEndian.Uint16(buffer[4:]) == id {
				return nil
			}
		}
	}
	return last
}

func sleep(ctx context.Context, d time.Duration) <-chan struct{} {
	over, cancel := context.WithTimeout(ctx, d)
	context.AfterFunc(over, cancel)
	return over.Done()
}

// echo is an echo message with the checksum of RFC 1071; the kernel replaces it for IPv6.
func echo(kind byte, id, sequence uint16) []byte {
	m := make([]byte, 16)
	m[0] = kind
	binary.BigEndian.PutUint16(m[4:], id)
	binary.BigEndian.PutUint16(m[6:], sequence)
	copy(m[8:], "prvsnr")
	var sum uint32
	for i := 0; i < len(m); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(m[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum))
	return m
}
