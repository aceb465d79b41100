// Package fstab reads tables of file systems: fstab(5), and what the kernel shows in the same form in /proc/swaps and
// mountinfo, which escape blanks in the same way.
package fstab

import (
	"strconv"
	"strings"
)

// Entry is a line of fstab(5) that counts.
type Entry struct {
	// Source is a device, LABEL= or UUID=; Target is where it is mounted, or none or swap.
	Source, Target, Type string
}

// Parse returns the entries of a table, as ParseLine has them.
func Parse(table string) []Entry {
	var list []Entry
	for line := range strings.Lines(table) {
		if e, ok := ParseLine(line); ok {
			list = append(list, e)
		}
	}
	return list
}

// ParseLine returns the entry of a line; comments, blank lines and those with less than three fields have none.
func ParseLine(line string) (Entry, bool) {
	f := strings.Fields(line)
	if len(f) < 3 || strings.HasPrefix(f[0], "#") {
		return Entry{}, false
	}
	return Entry{Unescape(f[0]), Unescape(f[1]), f[2]}, true
}

// Unescape returns a field whose blanks and backslashes are written as a backslash and three octal digits.
func Unescape(field string) string {
	var b strings.Builder
	for i := 0; i < len(field); i++ {
		if field[i] == '\\' && i+4 <= len(field) {
			if n, err := strconv.ParseUint(field[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(field[i])
	}
	return b.String()
}
