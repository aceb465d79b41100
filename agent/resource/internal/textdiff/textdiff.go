// Package textdiff shows people what a change does to a text file, within a bound.
//
// A diff begins with a line that names the file, never is longer than [Max], and never shows content that not everybody on
// the machine may read.
package textdiff

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Max is the most bytes that a diff has: what converge.Diff may hold.
const Max = 4 << 10

// maxCells bounds the table of the line comparison. Larger changes are shown as one block.
const maxCells = 1 << 16

// Contents returns the lines that differ, old ones with "-" and new ones with "+" before them. Equal contents give "".
// Secret contents and those that are not text are only measured.
func Contents(path string, before, after []byte, secret bool) string {
	switch {
	case bytes.Equal(before, after):
		return ""
	case secret:
		return fmt.Sprintf("%s: content differs (%d bytes, wanted %d); not shown, because not everybody may read it", path, len(before), len(after))
	case !text(before) || !text(after):
		return fmt.Sprintf("%s: content differs (%d bytes, wanted %d); not text", path, len(before), len(after))
	}
	var b strings.Builder
	b.WriteString(path + ":\n")
	writeLines(&b, split(before), split(after))
	return Bound(strings.TrimSuffix(b.String(), "\n"))
}

// Bound cuts s at a line's end so that it has at most Max bytes, and says how many lines were left out.
func Bound(s string) string {
	if len(s) <= Max {
		return s
	}
	const room = 64
	cut := strings.LastIndexByte(s[:Max-room], '\n')
	if cut < 0 {
		for cut = Max - room; !utf8.RuneStart(s[cut]); cut-- {
		}
	}
	return fmt.Sprintf("%s\n… %d more lines", s[:cut], strings.Count(s[cut:], "\n"))
}

// Join joins diffs of several things, leaving out the empty ones, within the bound.
func Join(diffs ...string) string {
	var parts []string
	for _, d := range diffs {
		if d != "" {
			parts = append(parts, d)
		}
	}
	return Bound(strings.Join(parts, "\n"))
}

func text(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }

func split(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	lines := strings.Split(string(b), "\n")
	if lines[len(lines)-1] == "" {
		return lines[:len(lines)-1]
	}
	lines[len(lines)-1] += " (no newline at end)"
	return lines
}

func writeLines(b *strings.Builder, before, after []string) {
	for len(before) > 0 && len(after) > 0 && before[0] == after[0] {
		before, after = before[1:], after[1:]
	}
	for len(before) > 0 && len(after) > 0 && before[len(before)-1] == after[len(after)-1] {
		before, after = before[:len(before)-1], after[:len(after)-1]
	}
	if len(before)*len(after) > maxCells {
		writeBlock(b, "-", before)
		writeBlock(b, "+", after)
		return
	}
	// common[i][j] is the length of the longest common subsequence of before[i:] and after[j:].
	common := make([][]int, len(before)+1)
	for i := range common {
		common[i] = make([]int, len(after)+1)
	}
	for i := len(before) - 1; i >= 0; i-- {
		for j := len(after) - 1; j >= 0; j-- {
			if before[i] == after[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(before) && j < len(after) {
		switch {
		case before[i] == after[j]:
			i, j = i+1, j+1
		case common[i+1][j] >= common[i][j+1]:
			writeBlock(b, "-", before[i:i+1])
			i++
		default:
			writeBlock(b, "+", after[j:j+1])
			j++
		}
	}
	writeBlock(b, "-", before[i:])
	writeBlock(b, "+", after[j:])
}

func writeBlock(b *strings.Builder, sign string, lines []string) {
	for _, line := range lines {
		b.WriteString(sign + line + "\n")
	}
}
