package netlink

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Attributes are those of a message or of a nested attribute, by type without flags. Of several of one type the last counts.
type Attributes map[uint16][]byte

// Attribute encodes one attribute (struct nlattr), padded to four bytes.
func Attribute(kind uint16, value []byte) []byte {
	a := make([]byte, 4, 4+len(value)+3)
	binary.NativeEndian.PutUint16(a[0:], uint16(4+len(value)))
	binary.NativeEndian.PutUint16(a[2:], kind)
	a = append(a, value...)
	for len(a)%4 != 0 {
		a = append(a, 0)
	}
	return a
}

// Uint32 encodes an attribute whose value is a number in the machine's byte order.
func Uint32(kind uint16, value uint32) []byte {
	return Attribute(kind, binary.NativeEndian.AppendUint32(nil, value))
}

// String encodes an attribute whose value is text that ends with a zero byte.
func String(kind uint16, value string) []byte { return Attribute(kind, CString(value)) }

// CString returns text as C has it.
func CString(s string) []byte { return append([]byte(s), 0) }

// Parse decodes attributes.
func Parse(b []byte) (Attributes, error) {
	o := make(Attributes)
	err := Each(b, func(kind uint16, value []byte) { o[kind] = value })
	return o, err
}

// Each calls f with each attribute in order. Flags are taken off its type.
func Each(b []byte, f func(kind uint16, value []byte)) error {
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

// Text returns an attribute's value as text without the final zero byte.
func (a Attributes) Text(kind uint16) string {
	b := a[kind]
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return string(b)
}

// Number returns an attribute's value as a number in the machine's byte order; 0 where there is none.
func (a Attributes) Number(kind uint16) uint32 {
	if len(a[kind]) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(a[kind])
}
