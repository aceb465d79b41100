package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxDatagram is more than the kernel puts into one datagram of a listing (netlink_dump() in net/netlink/af_netlink.c).
const maxDatagram = 32 << 10

// maxTries bounds how often a listing that a change interrupted is taken again.
const maxTries = 5

// errInterrupted says that what was listed changed meanwhile.
var errInterrupted = errors.New("changed while it was listed")

// Conn is a netlink socket.
type Conn struct {
	fd       int
	sequence uint32
	buffer   []byte
}

// Dial opens a socket of a protocol, as unix.NETLINK_ROUTE. The caller closes it.
func Dial(protocol int) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the kernel: %w", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot ask the kernel: %w", err), unix.Close(fd))
	}
	return &Conn{fd: fd}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Message is a message from the kernel without its header.
type Message struct {
	Type uint16
	Body []byte
}

// List asks for a listing and returns its messages. One that a change interrupted is taken again. A kernel that answers
// ENOENT has nothing to list.
func (c *Conn) List(kind uint16, body []byte) ([]Message, error) {
	for try := 1; ; try++ {
		list, err := c.exchange(kind, unix.NLM_F_DUMP, body)
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		if err == nil || !errors.Is(err, errInterrupted) || try == maxTries {
			return list, err
		}
	}
}

// Ask makes a request and returns its answer. An error of the kernel wraps its syscall.Errno.
func (c *Conn) Ask(kind uint16, body []byte) ([]Message, error) {
	return c.exchange(kind, unix.NLM_F_ACK, body)
}

// Do makes a request and waits for its acknowledgement. Flags are added to those of every request. An error of the kernel
// wraps its syscall.Errno.
func (c *Conn) Do(kind uint16, flags uint16, body []byte) error {
	_, err := c.exchange(kind, unix.NLM_F_ACK|flags, body)
	return err
}

func (c *Conn) exchange(kind, flags uint16, body []byte) ([]Message, error) {
	c.sequence++
	m := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(m[0:], uint32(unix.SizeofNlMsghdr+len(body)))
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|flags)
	binary.NativeEndian.PutUint32(m[8:], c.sequence)
	if err := unix.Sendto(c.fd, append(m, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	if c.buffer == nil {
		c.buffer = make([]byte, maxDatagram)
	}
	var list []Message
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		datagram := slices.Clone(c.buffer[:n])
		for len(datagram) >= unix.SizeofNlMsghdr {
			size := int(binary.NativeEndian.Uint32(datagram))
			if size < unix.SizeofNlMsghdr || size > len(datagram) {
				return nil, unix.EINVAL
			}
			m := message{datagram[:size]}
			datagram = datagram[min((size+3)&^3, len(datagram)):]
			if m.sequence() != c.sequence {
				continue
			}
			done, err := m.end()
			if done || err != nil {
				return list, err
			}
			list = append(list, Message{Type: m.kind(), Body: m.body()})
		}
	}
}

// message is one with its header (struct nlmsghdr).
type message struct{ bytes []byte }

func (m message) kind() uint16     { return binary.NativeEndian.Uint16(m.bytes[4:]) }
func (m message) flags() uint16    { return binary.NativeEndian.Uint16(m.bytes[6:]) }
func (m message) sequence() uint32 { return binary.NativeEndian.Uint32(m.bytes[8:]) }
func (m message) body() []byte     { return m.bytes[unix.SizeofNlMsghdr:] }

// end reports whether a message is the end of an answer, or an error.
func (m message) end() (done bool, err error) {
	if m.flags()&unix.NLM_F_DUMP_INTR != 0 {
		return true, errInterrupted
	}
	if m.kind() != unix.NLMSG_ERROR && m.kind() != unix.NLMSG_DONE {
		return false, nil
	}
	if len(m.body()) < 4 {
		return true, nil
	}
	switch code := int32(binary.NativeEndian.Uint32(m.body())); {
	case code == 0:
		return true, nil
	case -code == int32(unix.EINTR), -code == int32(unix.EAGAIN):
		return true, errInterrupted
	default:
		return true, os.NewSyscallError("netlink", syscall.Errno(-code))
	}
}
