package zone

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
)

// Record is one datum of a name.
type Record struct {
	// Name is absolute, in any case; a final dot is optional. Escapes are not known.
	Name string
	Type Type
	// TTL in seconds, at most 2^31-1 (RFC 2181 section 8). Zero means the zone's. The records of one name and type share
	// the smallest that is given, and their signatures with them.
	TTL uint32
	// Data is the rdata in wire form; names in it are uncompressed and in lower case.
	Data []byte
}

// Address makes an A or AAAA record. Mapped addresses count as IPv4. A zone refuses the record of an invalid address.
func Address(name string, addr netip.Addr) Record {
	addr = addr.Unmap().WithZone("")
	typ := TypeA
	if addr.Is6() {
		typ = TypeAAAA
	}
	return Record{Name: name, Type: typ, Data: addr.AsSlice()}
}

// Named makes a record whose data is an absolute name: PTR, NS, CNAME.
func Named(name string, typ Type, target string) (Record, error) {
	data, err := AppendName(nil, target)
	return Record{Name: name, Type: typ, Data: data}, err
}

// Service makes an SRV record (RFC 2782).
func Service(name string, priority, weight, port uint16, target string) (Record, error) {
	data := make([]byte, 0, 6+len(target)+2)
	for _, v := range []uint16{priority, weight, port} {
		data = binary.BigEndian.AppendUint16(data, v)
	}
	data, err := AppendName(data, target)
	return Record{Name: name, Type: TypeSRV, Data: data}, err
}

// Text makes a TXT record. A string of more than 255 octets becomes several; no string at all becomes an empty one.
func Text(name string, texts ...string) Record {
	var data []byte
	for _, text := range texts {
		for {
			part := text[:min(len(text), math.MaxUint8)]
			data = append(append(data, byte(len(part))), part...)
			if text = text[len(part):]; text == "" {
				break
			}
		}
	}
	if len(data) == 0 {
		data = []byte{0}
	}
	return Record{Name: name, Type: TypeTXT, Data: data}
}

// SSHFingerprint makes an SSHFP record with a SHA-256 digest (RFC 4255, RFC 6594). The algorithm is IANA's number: 1 RSA,
// 3 ECDSA, 4 Ed25519.
func SSHFingerprint(name string, algorithm uint8, sha256 [32]byte) Record {
	return Record{Name: name, Type: TypeSSHFP, Data: append([]byte{algorithm, 2}, sha256[:]...)}
}

// CAA makes a CAA record (RFC 8659); the tag has 1 to 255 octets, of which a longer one keeps the first.
func CAA(name string, flags uint8, tag, value string) Record {
	tag = tag[:min(len(tag), math.MaxUint8)]
	return Record{Name: name, Type: TypeCAA, Data: append(append([]byte{flags, byte(len(tag))}, tag...), value...)}
}

// check refuses data that is not of the record's type, and types that a zone cannot hold. Types without a rule are opaque.
func (r Record) check() error {
	ok := len(r.Data) <= math.MaxUint16
	switch r.Type {
	case TypeA:
		ok = len(r.Data) == 4
	case TypeAAAA:
		ok = len(r.Data) == 16
	case TypeNS, TypePTR, TypeCNAME:
		ok = isName(r.Data)
	case TypeSRV:
		ok = len(r.Data) > 6 && isName(r.Data[6:])
	case TypeTXT:
		ok = ok && isText(r.Data)
	case TypeRRSIG:
		ok = ok && len(r.Data) > 18
	case TypeSOA, TypeDNAME:
		return fmt.Errorf("type %d is not for records", r.Type)
	default:
		// RFC 6895 section 3.1: the types for questions and for messages alone.
		if r.Type == 0 || r.Type == typeOPT || r.Type >= 128 && r.Type <= 255 {
			return fmt.Errorf("type %d is not for records", r.Type)
		}
	}
	switch {
	case !ok:
		return fmt.Errorf("malformed data of %d octets for type %d", len(r.Data), r.Type)
	case r.TTL > math.MaxInt32:
		return errTTL
	}
	return nil
}

var errTTL = errors.New("ttl above 2147483647")

// isName reports whether data is one uncompressed name in lower case.
func isName(data []byte) bool {
	end, ok := scanName(data, 0)
	if !ok || end != len(data) {
		return false
	}
	for _, c := range data {
		if c != lower(c) {
			return false
		}
	}
	return true
}

// isText reports whether data is one or more strings, each behind its length.
func isText(data []byte) bool {
	i := 0
	for i < len(data) {
		i += 1 + int(data[i])
	}
	return i == len(data) && i > 0
}

// isWildcard reports whether a name has a label that RFC 4592 gives a meaning, which this package does not know.
func isWildcard(name string) bool {
	return name == "*" || strings.HasPrefix(name, "*.") || strings.Contains(name, ".*.")
}
