package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"
)

// zoneSize is how many hosts a zone has: as many as a Zone manifest takes.
const zoneSize = 10000

// ttl of all records, in seconds, and the SOA's serial.
const ttl, serial = 30, 1

// hosts are the names and addresses that every server serves. Host i is in zone i/zoneSize.
type hosts int

func (n hosts) zones() int { return (int(n) + zoneSize - 1) / zoneSize }

func domain(zone int) string { return fmt.Sprintf("z%d.bench.example", zone) }

func label(i int) string { return fmt.Sprintf("host-%06d", i) }

func hostName(i int) string { return label(i) + "." + domain(i/zoneSize) }

// network holds the addresses of all hosts.
func (n hosts) network() netip.Prefix {
	length := 16
	for 1<<(32-length) < int(n)+skipped {
		length--
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10}), length)
}

// skipped are the first addresses of the network: its gateway is among them.
const skipped = 256

func address(i int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 10<<24|uint32(i+skipped))
	return netip.AddrFrom4(b)
}

func reverse(addr netip.Addr) string {
	b := addr.As4()
	return fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa", b[3], b[2], b[1], b[0])
}

// writeZones writes the zone files that the other servers read, one at a time, to what create returns for an origin.
func (n hosts) writeZones(create func(origin string) (io.WriteCloser, error)) error {
	write := func(origin, servers string, records func(w io.Writer)) error {
		w, err := create(origin)
		if err != nil {
			return err
		}
		var b strings.Builder
		fmt.Fprintf(&b, "$ORIGIN %s.\n$TTL %d\n@ SOA ns-bench.%s. hostmaster %d 60 30 86400 10\n@ NS ns-bench.%s.\n", origin, ttl, servers, serial, servers)
		records(&b)
		_, err = io.WriteString(w, b.String())
		if closed := w.Close(); err == nil {
			err = closed
		}
		return err
	}
	for zone := range n.zones() {
		err := write(domain(zone), domain(zone), func(w io.Writer) {
			fmt.Fprintln(w, "ns-bench A 127.0.0.1")
			for i := zone * zoneSize; i < min((zone+1)*zoneSize, int(n)); i++ {
				fmt.Fprintf(w, "%s A %s\n", label(i), address(i))
			}
		})
		if err != nil {
			return err
		}
	}
	for second, origin := range n.reverseZones() {
		err := write(origin, domain(0), func(w io.Writer) {
			for i := range int(n) {
				if b := address(i).As4(); int(b[1]) == second {
					fmt.Fprintf(w, "%d.%d PTR %s.\n", b[3], b[2], hostName(i))
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// reverseZones are the origins of the reverse zones, by the second octet of their addresses.
func (n hosts) reverseZones() []string {
	var origins []string
	for second := range 1 << (16 - n.network().Bits()) {
		origins = append(origins, fmt.Sprintf("%d.10.in-addr.arpa", second))
	}
	return origins
}

// origins of all zones.
func (n hosts) origins() []string {
	var all []string
	for zone := range n.zones() {
		all = append(all, domain(zone))
	}
	return append(all, n.reverseZones()...)
}

// kind of a query. The echo tells them by the first octet of the name: h, a digit, x.
type kind uint8

const (
	addressOf kind = iota
	pointerOf
	missing
	kinds
)

// typeA, typePTR, typeSOA and typeOPT are record types (RFC 1035, RFC 6891).
const typeA, typePTR, typeSOA, typeOPT = 1, 12, 6, 41

// query is a packet to send, with the id left to the sender.
type query struct {
	packet []byte
	kind   kind
	host   int
}

// queries makes so many: 70 % addresses, 20 % pointers, 10 % names that are not there, of hosts at random.
func (n hosts) queries(count int) []query {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	// All packets in one piece, so that sending them costs no more memory accesses than it must.
	arena := make([]byte, 0, count*80)
	all := make([]query, count)
	for k := range all {
		i := random.IntN(int(n))
		q := query{kind: addressOf, host: i}
		name, qtype := hostName(i), uint16(typeA)
		switch r := random.IntN(10); {
		case r == 9:
			q.kind, name = missing, "x"+name[1:]
		case r >= 7:
			q.kind, name, qtype = pointerOf, reverse(address(i)), typePTR
		}
		begin := len(arena)
		arena = appendQuery(arena, name, qtype)
		q.packet = arena[begin:len(arena):len(arena)]
		all[k] = q
	}
	return all
}

// appendQuery appends a query with EDNS (RFC 6891) of 1,232 octets and no options.
func appendQuery(b []byte, name string, qtype uint16) []byte {
	b = append(b, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1)
	b = appendName(b, name)
	b = binary.BigEndian.AppendUint16(b, qtype)
	b = append(b, 0, 1)
	b = append(b, 0, 0, typeOPT)
	b = binary.BigEndian.AppendUint16(b, 1232)
	return append(b, 0, 0, 0, 0, 0, 0)
}

func appendName(b []byte, name string) []byte {
	for label := range strings.SplitSeq(name, ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0)
}
