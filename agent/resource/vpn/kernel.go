package vpn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/agent/resource/internal/netlink"
)

const (
	// generic is the header of messages of generic netlink: command, version, two bytes reserved.
	sizeofGenericHeader = 4
	wireguardVersion    = 1
	// maxRanges bounds what goes into one message: the length of an attribute has 16 bits, and a range takes 44 bytes at most.
	maxRanges = 512
	// maxPeers bounds them together with their own attributes, of less than 120 bytes.
	maxPeers = 128
)

// wireguard is a connection to the kernel's WireGuard (linux/wireguard.h).
type wireguard struct {
	conn   *netlink.Conn
	family uint16
}

func dialKernel() (*wireguard, error) {
	c, err := netlink.Dial(unix.NETLINK_GENERIC)
	if err != nil {
		return nil, err
	}
	answer, err := c.Ask(unix.GENL_ID_CTRL, message(unix.CTRL_CMD_GETFAMILY, netlink.String(unix.CTRL_ATTR_FAMILY_NAME, unix.WG_GENL_NAME)))
	for _, m := range answer {
		a, err := netlink.Parse(m.Body[min(sizeofGenericHeader, len(m.Body)):])
		if id := a[unix.CTRL_ATTR_FAMILY_ID]; err == nil && len(id) == 2 {
			return &wireguard{c, binary.NativeEndian.Uint16(id)}, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("the kernel's WireGuard does not answer: %w", err), c.Close())
}

func message(command byte, attributes ...[]byte) []byte {
	return slices.Concat(append([][]byte{{command, wireguardVersion, 0, 0}}, attributes...)...)
}

// readKernel asks the kernel for an interface. Peers with many ranges come in several messages.
func readKernel(link string) (*device, error) {
	w, err := dialKernel()
	if err != nil {
		return nil, err
	}
	defer w.conn.Close()
	parts, err := w.conn.List(w.family, message(unix.WG_CMD_GET_DEVICE, netlink.String(unix.WGDEVICE_A_IFNAME, link)))
	if err != nil {
		return nil, err
	}
	d := &device{}
	for _, part := range parts {
		if part.Type != w.family || len(part.Body) < sizeofGenericHeader {
			continue
		}
		if err := d.add(part.Body[sizeofGenericHeader:]); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// add takes in one message of a device.
func (d *device) add(body []byte) error {
	a, err := netlink.Parse(body)
	if err != nil {
		return err
	}
	if k := a[unix.WGDEVICE_A_PRIVATE_KEY]; len(k) == keySize {
		d.private = [keySize]byte(k)
	}
	if p := a[unix.WGDEVICE_A_LISTEN_PORT]; len(p) == 2 {
		d.port = int(binary.NativeEndian.Uint16(p))
	}
	var failed error
	err = netlink.Each(a[unix.WGDEVICE_A_PEERS], func(_ uint16, peer []byte) { failed = errors.Join(failed, d.addPeer(peer)) })
	return errors.Join(err, failed)
}

func (d *device) addPeer(body []byte) error {
	a, err := netlink.Parse(body)
	if err != nil {
		return err
	}
	if len(a[unix.WGPEER_A_PUBLIC_KEY]) != keySize {
		return errors.New("a peer without a key")
	}
	key := [keySize]byte(a[unix.WGPEER_A_PUBLIC_KEY])
	if n := len(d.peers); n == 0 || d.peers[n-1].key != key {
		p := devicePeer{key: key, endpoint: decodeEndpoint(a[unix.WGPEER_A_ENDPOINT])}
		if k := a[unix.WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL]; len(k) == 2 {
			p.keepalive = time.Duration(binary.NativeEndian.Uint16(k)) * time.Second
		}
		// struct __kernel_timespec: two numbers of 64 bits.
		if t := a[unix.WGPEER_A_LAST_HANDSHAKE_TIME]; len(t) == 16 {
			if seconds := binary.NativeEndian.Uint64(t); seconds > 0 {
				p.handshake = time.Unix(int64(seconds), 0)
			}
		}
		d.peers = append(d.peers, p)
	}
	p := &d.peers[len(d.peers)-1]
	return netlink.Each(a[unix.WGPEER_A_ALLOWEDIPS], func(_ uint16, body []byte) {
		r, err := netlink.Parse(body)
		addr, ok := netip.AddrFromSlice(r[unix.WGALLOWEDIP_A_IPADDR])
		if bits := r[unix.WGALLOWEDIP_A_CIDR_MASK]; err == nil && ok && len(bits) == 1 {
			p.allowed = append(p.allowed, netip.PrefixFrom(addr, int(bits[0])))
		}
	})
}

// decodeEndpoint reads struct sockaddr_in or sockaddr_in6.
func decodeEndpoint(b []byte) netip.AddrPort {
	switch {
	case len(b) >= unix.SizeofSockaddrInet6 && binary.NativeEndian.Uint16(b) == unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])).Unmap(), binary.BigEndian.Uint16(b[2:]))
	case len(b) >= unix.SizeofSockaddrInet4 && binary.NativeEndian.Uint16(b) == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:]))
	}
	return netip.AddrPort{}
}

func encodeEndpoint(e netip.AddrPort) []byte {
	if e.Addr().Is4() {
		b := make([]byte, unix.SizeofSockaddrInet4)
		binary.NativeEndian.PutUint16(b, unix.AF_INET)
		binary.BigEndian.PutUint16(b[2:], e.Port())
		copy(b[4:], e.Addr().AsSlice())
		return b
	}
	b := make([]byte, unix.SizeofSockaddrInet6)
	binary.NativeEndian.PutUint16(b, unix.AF_INET6)
	binary.BigEndian.PutUint16(b[2:], e.Port())
	copy(b[8:], e.Addr().AsSlice())
	return b
}

// configureKernel changes what the kernel has, in as many messages as the change needs.
func configureKernel(link string, change deviceChange) error {
	w, err := dialKernel()
	if err != nil {
		return err
	}
	defer w.conn.Close()
	set := func(attributes ...[]byte) error {
		return w.conn.Do(w.family, 0, message(unix.WG_CMD_SET_DEVICE, append([][]byte{netlink.String(unix.WGDEVICE_A_IFNAME, link)}, attributes...)...))
	}
	var own [][]byte
	if change.private != nil {
		own = append(own, netlink.Attribute(unix.WGDEVICE_A_PRIVATE_KEY, change.private[:]))
	}
	if change.port != nil {
		own = append(own, netlink.Attribute(unix.WGDEVICE_A_LISTEN_PORT, binary.NativeEndian.AppendUint16(nil, uint16(*change.port))))
	}
	if len(own) > 0 {
		if err := set(own...); err != nil {
			return err
		}
	}
	for _, batch := range batches(change.peers) {
		var peers []byte
		for _, p := range batch {
			peers = append(peers, netlink.Attribute(unix.NLA_F_NESTED, p.encode())...)
		}
		if err := set(netlink.Attribute(unix.WGDEVICE_A_PEERS|unix.NLA_F_NESTED, peers)); err != nil {
			return err
		}
	}
	return nil
}

// batches splits changes so that each batch fits into a message. A peer with very many ranges gets them one part after another.
func batches(changes []peerChange) [][]peerChange {
	var all [][]peerChange
	var batch []peerChange
	room := maxRanges
	for _, p := range changes {
		rest := p.allowed
		for first := true; first || len(rest) > 0; first = false {
			part := p
			if !first {
				part = peerChange{key: p.key, update: true}
			}
			part.allowed = rest[:min(len(rest), maxRanges)]
			rest = rest[len(part.allowed):]
			if len(batch) == maxPeers || len(part.allowed) > room {
				all, batch, room = append(all, batch), nil, maxRanges
			}
			batch, room = append(batch, part), room-len(part.allowed)
		}
	}
	if len(batch) > 0 {
		all = append(all, batch)
	}
	return all
}

func (p *peerChange) encode() []byte {
	var flags uint32
	for flag, on := range map[uint32]bool{unix.WGPEER_F_REMOVE_ME: p.remove, unix.WGPEER_F_UPDATE_ONLY: p.update, unix.WGPEER_F_REPLACE_ALLOWEDIPS: p.replace} {
		if on {
			flags |= flag
		}
	}
	b := netlink.Attribute(unix.WGPEER_A_PUBLIC_KEY, p.key[:])
	b = append(b, netlink.Uint32(unix.WGPEER_A_FLAGS, flags)...)
	if p.endpoint.IsValid() {
		b = append(b, netlink.Attribute(unix.WGPEER_A_ENDPOINT, encodeEndpoint(p.endpoint))...)
	}
	if p.keepalive != nil {
		b = append(b, netlink.Attribute(unix.WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, binary.NativeEndian.AppendUint16(nil, uint16(*p.keepalive/time.Second)))...)
	}
	var ranges []byte
	for _, a := range p.allowed {
		family := uint16(unix.AF_INET)
		if !a.Addr().Is4() {
			family = unix.AF_INET6
		}
		r := netlink.Attribute(unix.WGALLOWEDIP_A_FAMILY, binary.NativeEndian.AppendUint16(nil, family))
		r = append(r, netlink.Attribute(unix.WGALLOWEDIP_A_IPADDR, a.Addr().AsSlice())...)
		r = append(r, netlink.Attribute(unix.WGALLOWEDIP_A_CIDR_MASK, []byte{byte(a.Bits())})...)
		ranges = append(ranges, netlink.Attribute(unix.NLA_F_NESTED, r)...)
	}
	if len(ranges) > 0 {
		b = append(b, netlink.Attribute(unix.WGPEER_A_ALLOWEDIPS|unix.NLA_F_NESTED, ranges)...)
	}
	return b
}
