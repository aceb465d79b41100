//go:build machine

package interop

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// shape is what there is to know of a probe's octets without judging them.
type shape struct {
	whole                bool // There is a header.
	aa, tc, ra, z        bool
	opcode, rcode        int
	questions            int
	answers, authorities int
	extras               int
	// asked says that there is one question that can be read.
	asked bool
	name  string
	typ   uint16
	class uint16
	// left is what stands behind the records that are counted; -1 where these cannot be read.
	left int
	opts []optShape
	// others are the types of the further records.
	others []uint16
}

// optShape is an OPT record.
type optShape struct {
	version    byte
	size       uint16
	named      bool
	last, sane bool
	do         bool
	cookie     int // The length of the first cookie, -1 without.
}

// shapeOf reads a probe.
func shapeOf(msg []byte) (s shape) {
	s.left = -1
	if len(msg) < headerSize {
		return s
	}
	flags := binary.BigEndian.Uint16(msg[2:])
	s.whole, s.opcode, s.rcode = true, int(flags>>11&0xf), int(flags&0xf)
	s.aa, s.tc, s.ra, s.z = flags&0x400 != 0, flags&0x200 != 0, flags&0x80 != 0, flags&0x40 != 0
	count := func(at int) int { return int(binary.BigEndian.Uint16(msg[at:])) }
	s.questions, s.answers, s.authorities, s.extras = count(atQuestion), count(atAnswer), count(atOther), count(atExtra)
	off := headerSize
	for i := range s.questions {
		name, end, err := dns.UnpackDomainName(msg, off)
		if err != nil || end+4 > len(msg) || pointed(msg[off:end]) {
			return s
		}
		if i == 0 {
			s.name, s.typ, s.class = dns.CanonicalName(name), binary.BigEndian.Uint16(msg[end:]), binary.BigEndian.Uint16(msg[end+2:])
		}
		off = end + 4
	}
	s.asked = s.questions == 1
	for range s.answers + s.authorities + s.extras {
		if off = s.record(msg, off); off < 0 {
			return s
		}
	}
	s.left = len(msg) - off
	return s
}

// pointed reports whether a name has a pointer.
func pointed(name []byte) bool {
	for i := 0; i < len(name); i += 1 + int(name[i]) {
		if name[i] >= 0xc0 {
			return true
		}
	}
	return false
}

// limit returns how many octets the asker takes over UDP.
func (s shape) limit() int {
	if len(s.opts) == 0 {
		return dns.MinMsgSize
	}
	return max(dns.MinMsgSize, int(s.opts[0].size))
}

// record reads one record and returns the offset behind it, -1 where it cannot be read.
func (s *shape) record(msg []byte, off int) int {
	_, next, err := dns.UnpackDomainName(msg, off)
	if err != nil || next+10 > len(msg) {
		return -1
	}
	typ, end := binary.BigEndian.Uint16(msg[next:]), next+10+int(binary.BigEndian.Uint16(msg[next+8:]))
	if end > len(msg) {
		return -1
	}
	if typ != dns.TypeOPT {
		s.others = append(s.others, typ)
		return end
	}
	o := optShape{
		version: msg[next+5], size: binary.BigEndian.Uint16(msg[next+2:]), named: msg[off] != 0, sane: true, cookie: -1, do: msg[next+6]&0x80 != 0,
		last: end == len(msg),
	}
	for data := msg[next+10 : end]; len(data) > 0; {
		if len(data) < 4 || 4+int(binary.BigEndian.Uint16(data[2:])) > len(data) {
			o.sane = false
			break
		}
		size := int(binary.BigEndian.Uint16(data[2:]))
		if binary.BigEndian.Uint16(data) == dns.EDNS0COOKIE && o.cookie < 0 {
			o.cookie = size
		}
		data = data[4+size:]
	}
	s.opts = append(s.opts, o)
	return end
}
