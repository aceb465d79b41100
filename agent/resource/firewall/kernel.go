package firewall

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/netlink"
)

// Messages and attributes of linux/netfilter/nf_tables.h. Only attributes that say what the table does are looked at: not
// handles, positions, counters, and what later kernels may add.
const (
	getTable   = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETTABLE
	getChain   = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETCHAIN
	getRule    = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE
	getSet     = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSET
	getSetElem = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM
	getObject  = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETOBJ

	// sizeofNfgenmsg is struct nfgenmsg: family, version, resource.
	sizeofNfgenmsg = 4

	// attrTable is the table's name in all of them, attrName that of a set or object.
	attrTable = 1
	attrName  = 2
	attrElems = 3

	// attrKey is the key of a set's element, attrValue the bytes within it.
	attrKey   = 1
	attrValue = 1

	attrObjectType = 3
	attrObjectData = 4
	// objectCounter is the type of named counters.
	objectCounter = 1
	attrBytes     = 1
	attrPackets   = 2
)

var meaningful = map[uint16][]uint16{
	getTable: {1, 2},              // name, flags (dormant)
	getChain: {1, 3, 4, 5, 7, 10}, // table, name, hook, policy, type, flags
	getRule:  {1, 2, 4, 7},        // table, chain, expressions, userdata (the comment)
	getSet:   {1, 2, 3, 4, 5},     // table, name, flags, type and length of keys
}

// loaded is our table as the kernel has it.
type loaded struct {
	// fingerprint is a hash over everything but the elements of members' sets.
	fingerprint string
	// members are the elements of those sets, sorted.
	members map[string][]netip.Addr
}

// look asks the kernel for our table; nil if there is none.
func look() (*loaded, error) {
	l, err := snapshot()
	if err != nil {
		return nil, fmt.Errorf("cannot ask the kernel for the firewall: %w", err)
	}
	return l, nil
}

func snapshot() (*loaded, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	l := &loaded{members: make(map[string][]netip.Addr)}
	d := digest{hash: sha256.New()}
	for _, kind := range []uint16{getTable, getChain, getSet, getRule} {
		objects, err := list(c, kind, netlink.String(attrTable, table))
		if err != nil {
			return nil, err
		}
		if kind == getTable && len(objects) == 0 {
			return nil, nil
		}
		for i := range objects {
			o := &objects[i]
			d.number(kind, ':')
			for _, a := range meaningful[kind] {
				d.number(a, '=')
				d.bytes(o[a])
			}
			if kind != getSet {
				continue
			}
			elements, err := elements(c, o[attrName])
			if err != nil {
				return nil, err
			}
			if name := o.text(attrName); isMembers(name) {
				if l.members[name], err = addresses(elements); err != nil {
					return nil, err
				}
				continue
			}
			for _, e := range elements {
				d.text = append(d.text, "e="...)
				d.bytes([]byte(e))
			}
		}
	}
	l.fingerprint = d.sum()
	return l, nil
}

// digest hashes a listing as text. What there is of it at a time is small.
type digest struct {
	hash hash.Hash
	text []byte
}

func (d *digest) number(n uint16, end byte) {
	d.text = append(strconv.AppendUint(d.text, uint64(n), 10), end)
}

// bytes adds a value in hexadecimal digits.
func (d *digest) bytes(b []byte) {
	d.text = append(hex.AppendEncode(d.text, b), ';')
	d.hash.Write(d.text)
	d.text = d.text[:0]
}

func (d *digest) sum() string {
	d.hash.Write(d.text)
	return hex.EncodeToString(d.hash.Sum(nil))
}

// maxAttribute is the highest attribute that anything here looks at.
const maxAttribute = 10

// object is what a message tells of one thing in our table, by attribute.
type object [maxAttribute + 1][]byte

func (o *object) text(attribute uint16) string { return string(bytes.TrimRight(o[attribute], "\x00")) }

// list returns the objects of a kind that are in our table, in the kernel's order.
func list(c *netlink.Conn, kind uint16, filter []byte) ([]object, error) {
	messages, err := c.List(kind, append([]byte{unix.NFPROTO_INET, 0, 0, 0}, filter...))
	if err != nil {
		return nil, err
	}
	objects := make([]object, 0, len(messages))
	for _, m := range messages {
		if len(m.Body) < sizeofNfgenmsg {
			continue
		}
		var o object
		err := netlink.Each(m.Body[sizeofNfgenmsg:], func(kind uint16, value []byte) {
			if kind <= maxAttribute {
				o[kind] = value
			}
		})
		if err != nil {
			return nil, err
		}
		if string(bytes.TrimRight(o[attrTable], "\x00")) == table {
			objects = append(objects, o)
		}
	}
	return objects, nil
}

// elements returns the encoded elements of a set, sorted: a hash table lists them in any order.
func elements(c *netlink.Conn, set []byte) ([]string, error) {
	parts, err := list(c, getSetElem, slices.Concat(netlink.String(attrTable, table), netlink.Attribute(attrName, set)))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, p := range parts {
		err := netlink.Each(p[attrElems], func(_ uint16, element []byte) { all = append(all, string(element)) })
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(all)
	return all, nil
}

// addresses decodes elements of a set of addresses.
func addresses(elements []string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, e := range elements {
		o, err := netlink.Parse([]byte(e))
		if err != nil {
			return nil, err
		}
		key, err := netlink.Parse(o[attrKey])
		if err != nil {
			return nil, err
		}
		if a, ok := netip.AddrFromSlice(key[attrValue]); ok {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all, nil
}

// Counter is how much a rule matched since our table was loaded.
type Counter struct {
	// Name is in-RULE, out-RULE or drop-RULE for the rules of the manifest; in-refused and out-refused are what no rule allowed.
	Name           string
	Packets, Bytes uint64
}

// Counters reads the counters of our table in the kernel, in order of name; none where there is no table.
func Counters(*host.Host) ([]Counter, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("cannot read the firewall's counters: %w", err)
	}
	defer c.Close()
	objects, err := list(c, getObject, netlink.String(attrTable, table))
	if err != nil {
		return nil, fmt.Errorf("cannot read the firewall's counters: %w", err)
	}
	var all []Counter
	for _, o := range objects {
		data, err := netlink.Parse(o[attrObjectData])
		if err != nil {
			return nil, fmt.Errorf("cannot read the firewall's counters: %w", err)
		}
		if t := o[attrObjectType]; len(t) != 4 || binary.BigEndian.Uint32(t) != objectCounter || len(data[attrBytes]) != 8 || len(data[attrPackets]) != 8 {
			continue
		}
		all = append(all, Counter{
			Name:    o.text(attrName),
			Packets: binary.BigEndian.Uint64(data[attrPackets]), Bytes: binary.BigEndian.Uint64(data[attrBytes]),
		})
	}
	slices.SortFunc(all, func(a, b Counter) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}
