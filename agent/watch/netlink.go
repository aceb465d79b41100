package watch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// listen hands each message of netlink groups to handle until ctx ends: type and body, which is only valid within the call.
// Where the kernel dropped some it says lost.
func listen(ctx context.Context, protocol int, groups uint32, lost func(), handle func(kind uint16, body []byte)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return fmt.Errorf("cannot open netlink: %w", os.NewSyscallError("socket", err))
	}
	socket := os.NewFile(uintptr(fd), "netlink")
	defer socket.Close()
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return fmt.Errorf("cannot join netlink groups: %w", os.NewSyscallError("bind", err))
	}
	lost() // whatever happened before
	buf := make([]byte, readSize)
	for {
		n, err := socket.Read(buf)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			lost()
			continue
		case err != nil:
			return fmt.Errorf("cannot read netlink: %w", err)
		case n == len(buf):
			lost() // cut off
		}
		for b := buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				lost()
				break
			}
			handle(binary.NativeEndian.Uint16(b[4:]), b[unix.SizeofNlMsghdr:size])
			b = b[min(len(b), (size+3)&^3):]
		}
	}
}

// families are the names that nft(8) has for what the kernel counts (linux/netfilter.h).
var families = map[byte]string{
	unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_ARP: "arp", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev",
}

// tables watches nftables tables, named FAMILY/TABLE.
type tables struct {
	mu    sync.Mutex
	names []string
}

func newTables() *tables { return &tables{} }

func (w *tables) set(names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names = slices.Clone(names)
}

func (w *tables) run(ctx context.Context, t teller) error {
	return listen(ctx, unix.NETLINK_NETFILTER, 1<<(unix.NFNLGRP_NFTABLES-1), t.lost, func(kind uint16, body []byte) {
		if name := tableOf(kind, body); name != "" && w.wants(name) {
			t.touch(name)
		}
	})
}

func (w *tables) wants(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.names, name)
}

// tableOf returns the table that a message of nftables is about, or "". In all messages about a table, a chain, a rule, a set
// or its elements the table is the first kind of attribute, behind a header of four bytes that begins with the family
// (linux/netfilter/nf_tables.h); those about a generation have a number there.
func tableOf(kind uint16, body []byte) string {
	const header, attribute, tableName = 4, 4, 1
	if kind>>8 != unix.NFNL_SUBSYS_NFTABLES || kind&0xff == unix.NFT_MSG_NEWGEN || len(body) < header {
		return ""
	}
	family := families[body[0]]
	for b := body[header:]; len(b) >= attribute; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < attribute || size > len(b) {
			return ""
		}
		if binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == tableName {
			return family + "/" + string(bytes.TrimRight(b[attribute:size], "\x00"))
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return ""
}

// network watches links, addresses and routes. It has one name, which is empty.
type network struct {
	mu     sync.Mutex
	wanted bool
}

func (w *network) set(names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted = len(names) > 0
}

func (w *network) run(ctx context.Context, t teller) error {
	const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE
	return listen(ctx, unix.NETLINK_ROUTE, groups, t.lost, func(uint16, []byte) {
		w.mu.Lock()
		wanted := w.wanted
		w.mu.Unlock()
		if wanted {
			t.touch("")
		}
	})
}
