package zone

import (
	"fmt"
	"strings"
)

// Bounds of RFC 1035 section 2.3.4.
const (
	maxName  = 255
	maxLabel = 63
)

// AppendName appends the wire form (RFC 1035 section 3.1) of an absolute name in lower case; a final dot is optional.
// Escapes are not known: the names of this project are host names.
func AppendName(dst []byte, name string) ([]byte, error) {
	start := len(dst)
	trimmed := strings.TrimSuffix(name, ".")
	if trimmed != "" {
		for label := range strings.SplitSeq(trimmed, ".") {
			if len(label) == 0 || len(label) > maxLabel {
				return nil, fmt.Errorf("name %q: a label has %d octets, not 1 to %d", name, len(label), maxLabel)
			}
			dst = append(dst, byte(len(label)))
			for i := range len(label) {
				c := label[i]
				if c <= ' ' || c >= 0x7f || c == '\\' || c == '"' {
					return nil, fmt.Errorf("name %q: character %q is not allowed", name, c)
				}
				dst = append(dst, lower(c))
			}
		}
	}
	dst = append(dst, 0)
	if len(dst)-start > maxName {
		return nil, fmt.Errorf("name %q: longer than %d octets", name, maxName)
	}
	return dst, nil
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// scanName returns the offset behind the name at off, which must not be compressed.
func scanName[T string | []byte](msg T, off int) (int, bool) {
	start := off
	for off < len(msg) {
		n := int(msg[off])
		off++
		if n == 0 {
			return off, off-start <= maxName
		}
		if n > maxLabel {
			return 0, false
		}
		off += n
	}
	return 0, false
}

// SkipName returns the offset behind the name at off, which may end in a compression pointer. The pointer is not followed.
func SkipName(msg []byte, off int) (int, bool) {
	start := off
	for off < len(msg) && off-start < maxName {
		n := int(msg[off])
		switch {
		case n == 0:
			return off + 1, true
		case n >= 0xc0:
			return off + 2, off+2 <= len(msg)
		case n > maxLabel:
			return 0, false
		}
		off += 1 + n
	}
	return 0, false
}

// textOf returns the presentation form, with final dot, of a wire name made by AppendName.
func textOf[T string | []byte](wire T) string {
	if len(wire) <= 1 {
		return "."
	}
	text := make([]byte, 0, len(wire))
	for i := 0; wire[i] != 0; i += 1 + int(wire[i]) {
		text = append(append(text, wire[i+1:i+1+int(wire[i])]...), '.')
	}
	return string(text)
}

// Labels returns the number of labels of an uncompressed wire name, the root not counted.
func Labels(name []byte) (n int) {
	for i := 0; name[i] != 0; i += 1 + int(name[i]) {
		n++
	}
	return n
}

// TextName returns the presentation form, with final dot, of an uncompressed wire name; octets that are not those of host
// names come as they are. It is empty where data is no name.
func TextName[T string | []byte](data T) string {
	if end, ok := scanName(data, 0); !ok || end != len(data) {
		return ""
	}
	return textOf(data)
}
