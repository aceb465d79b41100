package host

import (
	"fmt"
	"strings"
)

// UnitForPath returns the unit of a path, as data-x.mount for /data/x with the ending mount (systemd-escape(1) with --path).
func UnitForPath(path, ending string) string {
	trimmed := strings.Join(strings.FieldsFunc(path, func(r rune) bool { return r == '/' }), "/")
	if trimmed == "" {
		return "-." + ending
	}
	var b strings.Builder
	for i := range len(trimmed) {
		c := trimmed[i]
		switch {
		case c == '/':
			b.WriteByte('-')
		case c == '.' && i > 0, c == '_', c == ':', c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String() + "." + ending
}
