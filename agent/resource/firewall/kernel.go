package firewall

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Messages and attributes of linux/netfilter/nf_tables.h. Only attributes that say what the table does are looked at: not
// handles, positions, counters, and what later kernels may add.
const (
	getTable   = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETTABLE
	getChain   = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETCHAIN
	getRule    = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE
	getSet     = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSET
	getSetElem = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM

	// sizeofNfgenmsg is struct nfgenmsg: family, version, resource.
	sizeofNfgenmsg = 4

	// attrTable is the table's name in all of them.
	attrTable   = 1
	attrSetName = 2
	attrElems   = 3
)

var meaningful = map[int][]uint16{
	getTable: {1, 2},              // name, flags (dormant)
	getChain: {1, 3, 4, 5, 7, 10}, // table, name, hook, policy, type, flags
	getRule:  {1, 2, 4, 7},        // table, chain, expressions, userdata (the comment)
	getSet:   {1, 2, 3, 4, 5},     // table, name, flags, type and length of keys
}

// maxTries bounds how often a listing that a change interrupted is taken again.
const maxTries = 5

var errInterrupted = errors.New("the ruleset changed meanwhile")

// fingerprint returns a hash of our table in the kernel, or "" if there is none.
func fingerprint() (string, error) {
	for try := 1; ; try++ {
		sum, err := snapshot()
		if err == nil || !errors.Is(err, errInterrupted) || try == maxTries {
			return sum, err
		}
	}
}

func snapshot() (string, error) {
	c, err := dial()
	if err != nil {
		return "", err
	}
	defer unix.Close(c.fd)
	hash := sha256.New()
	for _, kind := range []int{getTable, getChain, getSet, getRule} {
		objects, err := c.list(kind, attribute(attrTable, cstring(table)))
		if err != nil {
			return "", err
		}
		if kind == getTable && len(objects) == 0 {
			return "", nil
		}
		for _, o := range objects {
			fmt.Fprintf(hash, "%d:", kind)
			for _, a := range meaningful[kind] {
				fmt.Fprintf(hash, "%d=%x;", a, o[a])
			}
			if kind != getSet {
				continue
			}
			elements, err := c.elements(o[attrSetName])
			if err != nil {
				return "", err
			}
			for _, e := range elements {
				fmt.Fprintf(hash, "e=%x;", e)
			}
		}
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// object is a table, chain, set or rule: its attributes by type.
type object map[uint16][]byte

// conn is a netlink socket of nftables.
type conn struct {
	fd       int
	sequence uint32
}

func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the kernel for the firewall: %w", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot ask the kernel for the firewall: %w", err), unix.Close(fd))
	}
	return &conn{fd: fd}, nil
}

// list returns the objects of a kind that are in our table, in the kernel's order.
func (c *conn) list(kind int, filter []byte) ([]object, error) {
	bodies, err := c.dump(kind, filter)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the kernel for the firewall: %w", err)
	}
	var list []object
	for _, b := range bodies {
		o, err := attributes(b)
		if err != nil {
			return nil, fmt.Errorf("cannot read the kernel's answer: %w", err)
		}
		if string(o[attrTable]) == table+"\x00" {
			list = append(list, o)
		}
	}
	return list, nil
}

// elements returns the encoded elements of a set, sorted: a hash table lists them in any order.
func (c *conn) elements(set []byte) ([]string, error) {
	parts, err := c.list(getSetElem, slices.Concat(attribute(attrTable, cstring(table)), attribute(attrSetName, set)))
	if err != nil {
		return nil, err
	}
	var list []string
	for _, p := range parts {
		err := eachAttribute(p[attrElems], func(_ uint16, element []byte) { list = append(list, string(element)) })
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(list)
	return list, nil
}

// dump asks for a listing and returns the bodies of its messages after the nfgenmsg header.
func (c *conn) dump(kind int, filter []byte) ([][]byte, error) {
	c.sequence++
	const header = unix.SizeofNlMsghdr + sizeofNfgenmsg
	m := make([]byte, header, header+len(filter))
	binary.NativeEndian.PutUint32(m[0:], uint32(header+len(filter)))
	binary.NativeEndian.PutUint16(m[4:], uint16(kind))
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(m[8:], c.sequence)
	m[unix.SizeofNlMsghdr] = unix.NFPROTO_INET
	if err := unix.Sendto(c.fd, append(m, filter...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var bodies [][]byte
	buffer := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(c.fd, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return nil, err
		}
		for _, r := range messages {
			done, err := c.accept(r)
			if done || err != nil {
				return bodies, err
			}
			if r.Header.Seq == c.sequence && len(r.Data) >= sizeofNfgenmsg {
				bodies = append(bodies, slices.Clone(r.Data[sizeofNfgenmsg:]))
			}
		}
	}
}

// accept reports whether a message is the end of the listing, or an error.
func (c *conn) accept(r syscall.NetlinkMessage) (done bool, err error) {
	if r.Header.Seq != c.sequence {
		return false, nil
	}
	if r.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
		return true, errInterrupted
	}
	if r.Header.Type != unix.NLMSG_ERROR && r.Header.Type != unix.NLMSG_DONE {
		return false, nil
	}
	if len(r.Data) < 4 {
		return true, nil
	}
	switch code := int32(binary.NativeEndian.Uint32(r.Data)); {
	case code == 0, -code == int32(unix.ENOENT): // nothing there
		return true, nil
	case -code == int32(unix.EINTR), -code == int32(unix.EAGAIN):
		return true, errInterrupted
	default:
		return true, os.NewSyscallError("netlink", syscall.Errno(-code))
	}
}

// attribute encodes one netlink attribute (struct nlattr), padded to four bytes.
func attribute(kind uint16, value []byte) []byte {
	a := make([]byte, 4, 4+len(value)+3)
	binary.NativeEndian.PutUint16(a[0:], uint16(4+len(value)))
	binary.NativeEndian.PutUint16(a[2:], kind)
	a = append(a, value...)
	for len(a)%4 != 0 {
		a = append(a, 0)
	}
	return a
}

func cstring(s string) []byte { return append([]byte(s), 0) }

// attributes decodes the attributes of a message.
func attributes(b []byte) (object, error) {
	o := make(object)
	err := eachAttribute(b, func(kind uint16, value []byte) { o[kind] = value })
	return o, err
}

func eachAttribute(b []byte, f func(kind uint16, value []byte)) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return errors.New("short attribute")
		}
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return errors.New("attribute of a bad length")
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:n])
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}
